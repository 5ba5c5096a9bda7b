"""`thumbwheel tables` on a real broker and real tables: out of the lake, into it, and what is said of it."""

import gzip
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from infra.cli.tables import app
from infra.lake.content import content_hash
from infra.local.log import read_all
from schemas import tables, topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable, SettingsError
from schemas.labels import Label
from schemas.tables import Table
from tests.integration.streams_kit import Kit, event, feedback, output, until

PLAIN = "--without-redaction"
NOBODY = ("--bootstrap-servers", "127.0.0.1:1")
MAPPING = """
[columns]
prompt = "request.question"
completion = "answer"
user = "who"
time = "ts"
model = "engine"
correction = "better"
id = "message"

[thumb]
up_from = 4
down_to = 2
"""


@pytest.fixture
def kit(fresh_broker: str, tmp_path: Path) -> Kit:
    return Kit(fresh_broker, tmp_path / "data")


@pytest.fixture
def other(fresh_broker: str, tmp_path: Path) -> Kit:
    """Another data folder, filled from the same log."""
    return Kit(fresh_broker, tmp_path / "other")


def call(kit: Kit, *arguments: str | Path) -> Result:
    words = [str(a) for a in arguments]
    place = ["--data", str(kit.data)]
    if words[0] in ("export", "import") and "--bootstrap-servers" not in words:
        place += ["--bootstrap-servers", kit.bootstrap]
    return CliRunner().invoke(app, [*words, *place])


def good(kit: Kit, *arguments: str | Path) -> str:
    done = call(kit, *arguments)
    assert done.exception is None, done.exception
    assert done.exit_code == 0
    return done.stdout


def objects(kit: Kit, *arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in good(kit, *arguments, "--json").splitlines()]


def audits(kit: Kit) -> list[Audit]:
    return [e.data for e in read_all(KafkaConnection(bootstrap_servers=kit.bootstrap), topics.AUDIT, Audit)]


def settle(kit: Kit, **rows: int) -> None:
    """Ingest until the bronze tables hold so many rows, then refine until nothing is left to do."""
    ingest = kit.ingest()
    try:
        for name, number in rows.items():
            until(lambda n=name, w=number: stored(kit, n) >= w, f"{number} {name}", doing=ingest.step)
    finally:
        ingest._consumer.close()
    refine = kit.refine()
    while refine.round():
        pass


def stored(kit: Kit, name: str) -> int:
    return kit.rows(tables.BY_NAME[name]).height


def said(kit: Kit, table: Table, *columns: str) -> set[tuple[str, ...]]:
    """What the current rows say: the prompt as JSON, then the columns."""
    rows = kit.latest(table).iter_rows(named=True)
    return {(json.dumps(row["prompt"]), *(str(row[c]) for c in columns)) for row in rows}


def fill(kit: Kit) -> None:
    """Two answers to each of three questions, one thumb up and one down; the last thumb is withdrawn."""
    for n in range(3):
        up, down = (output(f"question {n}?", f"{word} {n}") for word in ("good", "bad"))
        kit.send(event(up), event(down))
        kit.send(event(feedback(up.response_id, "thumbs_up")), event(feedback(down.response_id, "thumbs_down")))
    kit.send(event(feedback(down.response_id, "withdrawal")))
    settle(kit, outputs=6, feedback=7)


def test_pairs_that_were_exported_and_imported_are_the_same_pairs(kit: Kit, other: Kit, tmp_path: Path) -> None:
    fill(kit)
    out = tmp_path / "pairs.parquet"
    assert "2 rows of gold/preferences@" in good(kit, "export", "preferences", "--out", out)
    good(kit, "import", out, "--format", "preference", PLAIN)
    settle(other, labels=2)
    pairs = [r for r in other.latest(tables.PREFERENCES).iter_rows(named=True) if r["source"] == "label"]
    found = {(r["prompt"][0]["content"], r["chosen"], r["rejected"]) for r in pairs}
    assert found == {(f"question {n}?", f"good {n}", f"bad {n}") for n in (0, 1)}
    assert found == {
        (r["prompt"][0]["content"], r["chosen"], r["rejected"]) for r in kit.latest(tables.PREFERENCES).to_dicts()
    }


def test_ratings_that_were_exported_and_imported_are_the_same_ratings(kit: Kit, tmp_path: Path) -> None:
    from infra.local.broker import EmbeddedBroker
    from infra.local.topics import create_topics

    fill(kit)
    out = tmp_path / "ratings.jsonl.gz"
    good(kit, "export", "unpaired", "--out", out, "--format", "jsonl", "--with-provenance")
    with EmbeddedBroker(tmp_path / "elsewhere-broker") as running:
        create_topics(KafkaConnection(bootstrap_servers=running.bootstrap_servers))
        elsewhere = Kit(running.bootstrap_servers, tmp_path / "elsewhere")
        good(elsewhere, "import", out, "--format", "unpaired", PLAIN)
        settle(elsewhere, outputs=5, feedback=5)
        columns = ("rating_id", "completion", "label", "rater_id", "judged_at", "weight")
        assert said(elsewhere, tables.RATINGS, *columns) == said(kit, tables.RATINGS, *columns)
        assert set(elsewhere.latest(tables.RATINGS)["version"]) == {"imported/base"}
        pairs = ("preference_id", "chosen", "rejected")
        assert said(elsewhere, tables.PREFERENCES, *pairs) == said(kit, tables.PREFERENCES, *pairs)


def test_a_log_of_stars_becomes_ratings_by_a_mapping_and_counts_once(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAPPING)

    def row(answer: str, thumb: int, who: str, second: int, **more: str) -> dict[str, Any]:
        common = {"request": {"question": "Hi?"}, "engine": "x", "message": f"m{second}", "ts": 1795176000 + second}
        return common | {"answer": answer, "thumb": thumb, "who": who} | more

    rows = [
        row("Hello.", 5, "ann", 0),
        row("What.", 1, "bob", 1, better="Good day."),
        row("Hm.", 3, "bob", 2),
        row("Hm.", 5, "bob", 3, request=""),
    ]
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for _ in range(2):
        (told,) = objects(kit, "import", log, "--format", "thumbs", "--mapping", tmp_path / "map.toml", PLAIN)
    assert told["events"] == {"outputs": 2, "feedback": 3}
    assert (told["bad"], told["silent"]) == (1, 1)
    assert told["bad_rows"][0]["row"] == 4
    settle(kit, outputs=2, feedback=3)
    ratings = kit.latest(tables.RATINGS)
    assert {(r["completion"], r["label"], r["rater_id"], r["version"]) for r in ratings.to_dicts()} == {
        ("Hello.", True, "ann", "imported/x"),
        ("What.", False, "bob", "imported/x"),
    }
    assert [t.timestamp() for t in ratings.sort("judged_at")["judged_at"]] == [1795176000, 1795176001]
    pairs = {(r["chosen"], r["rejected"], r["source"]) for r in kit.latest(tables.PREFERENCES).to_dicts()}
    assert ("Good day.", "What.", "correction") in pairs
    assert (stored(kit, "outputs"), stored(kit, "feedback")) == (2, 3)


def test_personal_data_does_not_reach_the_log(kit: Kit, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    row = {"prompt": "I am ann@example.org", "completion": "Hi ann@example.org", "thumb": 1, "user": "ann@example.org"}
    log.write_text(json.dumps(row))
    (told,) = objects(kit, "import", log, "--format", "thumbs")
    assert told["redacted"] == {"email": 2}
    written = b"".join(m.value() or b"" for name in (topics.OUTPUTS, topics.FEEDBACK) for m in kit.read(name.name))
    assert b"ann@" not in written
    assert b"I am [EMAIL_1]" in written


def test_what_people_agreed_to_travels_with_an_import(kit: Kit, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("prompt,completion,thumb\nHi?,Hello.,up\n")
    good(kit, "import", log, "--format", "thumbs", "--purposes", "labeling", PLAIN)
    settle(kit, outputs=1, feedback=1)
    assert kit.latest(tables.RESPONSES)["purposes"].to_list() == [["labeling"]]
    assert kit.latest(tables.RATINGS).is_empty()
    refused = call(kit, "import", log, "--format", "preference", "--purposes", "labeling", PLAIN)
    assert isinstance(refused.exception, SettingsError)


def test_what_each_person_agreed_to_is_in_a_column_and_goes_before(kit: Kit, tmp_path: Path) -> None:
    mapping, pairs = tmp_path / "map.toml", tmp_path / "pairs.jsonl"
    mapping.write_text('[columns]\npurposes = "consent"\n')
    rows = [("yes", "training,labeling"), ("no", "labeling"), ("silent", "")]
    pairs.write_text(
        "\n".join(json.dumps({"prompt": w, "chosen": "a", "rejected": "b", "consent": c}) for w, c in rows)
    )
    good(kit, "import", pairs, "--format", "preference", "--mapping", mapping, "--purposes", "training", PLAIN)
    settle(kit, labels=3)
    found = {row["prompt"][0]["content"]: row["purposes"] for row in kit.rows(tables.LABELS).to_dicts()}
    assert found == {"yes": ["training", "labeling"], "no": ["labeling"], "silent": ["training"]}
    taught = kit.latest(tables.PREFERENCES)["prompt"].to_list()
    assert sorted(prompt[0]["content"] for prompt in taught) == ["silent", "yes"]


def test_a_project_of_label_studio_becomes_pairs(kit: Kit, tmp_path: Path) -> None:
    def annotated(by: int, selected: str) -> dict[str, Any]:
        result = {"id": "a", "type": "pairwise", "from_name": "c", "to_name": "answer1,answer2",
                  "value": {"selected": selected}}  # fmt: skip
        return {
            "id": by,
            "completed_by": by,
            "created_at": "2026-11-20T10:00:00Z",
            "lead_time": 2.5,
            "result": [result],
        }

    tasks = [
        {"id": 1, "data": {"prompt": "Capital?", "answer1": "Paris.", "answer2": "Lyon."},
         "annotations": [annotated(1, "left"), annotated(2, "left"), annotated(3, "right")]},
        {"id": 2, "data": {"prompt": "2+2?", "answer1": "5", "answer2": "4"}, "annotations": [annotated(1, "right")]},
    ]  # fmt: skip
    export = tmp_path / "project-1.json"
    export.write_text(json.dumps(tasks))
    assert "4 labels" in good(kit, "import", export, "--format", "label-studio", PLAIN)
    settle(kit, labels=4)
    pairs = {(r["chosen"], r["rejected"]) for r in kit.latest(tables.PREFERENCES).to_dicts()}
    assert pairs == {("Paris.", "Lyon."), ("4", "5")}
    assert kit.rows(tables.LABELS)["labeler_id"].n_unique() == 3


def test_prompts_go_in_and_come_out(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"question {n}"}) for n in range(3)))
    good(kit, "import", file, "--format", "prompts", PLAIN)
    settle(kit, outputs=3)
    out = tmp_path / "out.parquet"
    good(kit, "export", "prompts", "--style", "text", "--out", out)
    assert sorted(pq.read_table(out)["prompt"].to_pylist()) == ["question 0", "question 1", "question 2"]


def test_real_comparisons_go_in_whole(kit: Kit, human_data: Path) -> None:
    (told,) = objects(kit, "import", human_data / "hh_harmless.jsonl.gz", "--format", "preference", PLAIN)
    assert told["rows"] == 1500
    assert told["events"]["labels"] + told["bad"] == 1500
    held = {e.id for e in read_all(KafkaConnection(bootstrap_servers=kit.bootstrap), topics.LABELS, Label)}
    settle(kit, labels=len(held))
    assert kit.latest(tables.PREFERENCES).height > 0.95 * len(held)


def test_real_votes_by_a_mapping(kit: Kit, human_data: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(
        '[columns]\nprompt = "prompt"\nchosen = "response_1"\nrejected = "response_2"\nuser = "id"\n'
    )
    file = human_data / "pandalm_annotators.jsonl.gz"
    (told,) = objects(
        kit, "import", file, "--format", "preference", "--mapping", tmp_path / "map.toml", "--dry-run", PLAIN
    )
    assert told["rows"] == 939
    assert told["events"]["labels"] + told["bad"] == 939
    assert all(row["reason"] == "chosen and rejected are the same text" for row in told["bad_rows"])


def test_a_dry_run_sends_nothing_and_needs_no_broker(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}))
    done = call(kit, "import", file, "--format", "preference", "--dry-run", PLAIN, *NOBODY)
    assert (done.exit_code, "1 labels" in done.stdout) == (0, True)
    assert audits(kit) == []
    refused = call(kit, "import", file, "--format", "preference", PLAIN, *NOBODY)
    assert isinstance(refused.exception, BrokerUnavailable)


def test_who_exported_and_imported_what_is_on_the_log(kit: Kit, tmp_path: Path) -> None:
    fill(kit)
    out = tmp_path / "pairs.jsonl"
    good(kit, "export", "preferences", "--out", out, "--format", "jsonl")
    good(kit, "import", out, "--format", "preference", PLAIN)
    exported, imported = audits(kit)
    version = objects(kit, "history", "preferences", "--limit", "1")[0]["version"]
    assert (exported.action, exported.target) == ("export", f"gold/preferences@{version}")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert content_hash(rows) in exported.detail
    assert (imported.action, imported.target) == ("import", "pairs.jsonl")
    assert "complete" in imported.detail
    assert "2 labels" in imported.detail


@pytest.mark.usefixtures("impatient")
def test_an_export_that_would_leave_no_trace_is_refused(kit: Kit, tmp_path: Path) -> None:
    fill(kit)
    out = tmp_path / "pairs.parquet"
    refused = call(kit, "export", "preferences", "--out", out, *NOBODY)
    assert isinstance(refused.exception, BrokerUnavailable)
    assert "--without-audit" in str(refused.exception)
    assert not out.exists()
    assert call(kit, "export", "preferences", "--out", out, "--without-audit", *NOBODY).exit_code == 0
    assert out.exists()
    again = call(kit, "export", "preferences", "--out", out, "--without-audit", *NOBODY)
    assert isinstance(again.exception, SettingsError)


class Stubborn:
    """A redactor that changes nothing, and a Ctrl-C that comes with its sixth conversation."""

    found: Mapping[str, int] = {}

    def __init__(self) -> None:
        self._left = 5

    def conversation(self) -> "Stubborn":
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self

    def redact(self, text: str, /) -> str:
        return text


def test_an_import_that_is_interrupted_leaves_its_trace_and_goes_on(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"p {n}", "chosen": "a", "rejected": "b"}) for n in range(20)))
    monkeypatch.setattr("infra.lake.redacting.recognisers", Stubborn)
    assert call(kit, "import", file, "--format", "preference").exit_code != 0
    good(kit, "import", file, "--format", "preference", PLAIN)
    ids = [e.id for e in read_all(KafkaConnection(bootstrap_servers=kit.bootstrap), topics.LABELS, Label)]
    assert (len(ids), len(set(ids))) == (25, 20)
    assert [a.detail.split(";")[0] for a in audits(kit)] == ["interrupted", "complete"]


def test_reading_goes_on_while_others_write(kit: Kit) -> None:
    writer = threading.Thread(target=fill, args=(kit,))
    writer.start()
    reads = 0
    while writer.is_alive() or reads < 8:
        for arguments in (["list"], ["show", "ratings"], ["history", "outputs"], ["diff", "outputs", "0"]):
            done = call(kit, *arguments, "--json")
            # A table that the writer has not made yet is said to be missing.
            assert done.exception is None or isinstance(done.exception, SettingsError), done.exception
            reads += 1
    writer.join()
    good(kit, "upkeep")
    assert kit.latest(tables.RATINGS).height == 5
    assert {row["files"] for row in objects(kit, "list") if row["table"] == "silver/responses"} == {1}


def test_the_tables_are_told_in_json_and_in_words(kit: Kit) -> None:
    fill(kit)
    listed = {row["table"]: row for row in objects(kit, "list")}
    assert set(listed) == {t.path for t in tables.ALL}
    assert (listed["bronze/feedback"]["rows"], listed["gold/ratings"]["rows"]) == (7, 5)
    assert listed["silver/responses"]["behind"] == 0
    newest = listed["gold/ratings"]["version"]
    history = objects(kit, "history", "ratings")
    assert history[0]["version"] == newest
    assert history[-1] | {"operation": "create table"} == history[-1]
    summary, *changes = objects(kit, "diff", "ratings", "0", str(newest))
    assert (summary["added"], summary["removed"], summary["changed"]) == (5, 0, 0)
    assert {change["kind"] for change in changes} == {"added"}
    shown = objects(kit, "show", "ratings", "--where", "label=false", "--limit", "1")
    assert [row["label"] for row in shown] == [False]
    words = (
        good(kit, "list")
        + good(kit, "history", "ratings")
        + good(kit, "show", "ratings")
        + good(kit, "diff", "ratings", "0")
    )
    for word in ("gold/ratings", "refine: feedback", "user: question", "5 added", "newest event"):
        assert word in words


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["show", "nothing"], "there is no table nothing"),
        (["show", "gold/ratings"], "there is no table gold/ratings in"),
        (["export", "ratings", "--out", "x", "--style", "text"], "goes out as it is"),
        (["export", "unpaired", "--out", "x", "--format", "csv"], "--format csv: it is one of parquet, jsonl"),
        (["export", "unpaired", "--out", "x", "--split", "half"], "--split half: it is one of train, held-out"),
        (["import", "nowhere", "--format", "thumbs"], "there is no file nowhere"),
        (["import", __file__, "--format", "yaml"], "--format yaml: it is one of preference"),
        (["import", __file__, "--format", "thumbs", "--purposes", "fun"], "--purposes fun: it is one of training"),
    ],
)
def test_what_can_not_be_is_said_before_any_work(tmp_path: Path, arguments: list[str], why: str) -> None:
    refused = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path)])
    assert isinstance(refused.exception, SettingsError)
    assert why in str(refused.exception)


def test_the_trainers_split_is_the_exports_split(kit: Kit, tmp_path: Path) -> None:
    fill(kit)
    for split in ("train", "held-out"):
        out = tmp_path / f"{split}.parquet"
        good(kit, "export", "unpaired", "--split", split, "--out", out, "--with-provenance")
    from trainer.core.dataset import is_held_out
    from trainer.settings import TrainerSettings

    config = TrainerSettings().split()
    held, learned = (
        [[(t["role"], t["content"]) for t in p] for p in pl.read_parquet(tmp_path / f"{part}.parquet")["prompt"]]
        for part in ("held-out", "train")
    )
    assert len(held) + len(learned) == 5
    assert all(is_held_out(p, config.holdout_share, config.seed) for p in held)
    assert not any(is_held_out(p, config.holdout_share, config.seed) for p in learned)
