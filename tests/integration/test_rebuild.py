"""Derived tables against bronze: what is right is called identical, what is wrong is found and mended, and a live job
beside it loses nothing by it."""

import contextlib
import itertools
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from infra.cli.rebuild import rebuild as command
from infra.local.log import read_all
from schemas import tables, topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.envelope import Event
from schemas.errors import SettingsError, TableConflict
from schemas.labels import Candidate, Label, Verdict
from schemas.outputs import Output
from schemas.preferences import Preference
from schemas.tables import Table
from streams.adapters.dead_letters import source
from streams.adapters.increments import watermark
from streams.adapters.lake import Move
from streams.comparison import Part
from streams.metrics import Metrics
from streams.rebuild import REBUILT, Rebuild, Report
from streams.refine import Refine
from tests.integration.streams_kit import ROOT, Kit, content, event, feedback, output, stop, until

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SILVER, RATINGS, PAIRS = tables.RESPONSES, tables.RATINGS, tables.PREFERENCES


class Bronze:
    """Puts events straight into the bronze tables, as ingest does."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._ends: dict[str, int] = {}

    def put(self, *events: Event[Any]) -> None:
        for table in (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS):
            assert table.topic is not None
            ours = [e for e in events if isinstance(e.data, table.topic.payload)]
            start = self._ends.get(table.name, 0)
            rows = [tables.event_row(e, partition=0, offset=start + i, ingested_at=e.time) for i, e in enumerate(ours)]
            self._ends[table.name] = start + len(rows)
            if rows:
                opened = self._kit.table(table)
                opened.append(opened.arrow(rows), {source(table.topic.name, 0): Move(start or None, start + len(rows))})


@pytest.fixture
def kit(broker: str, tmp_path: Path) -> Kit:
    return Kit(broker, tmp_path / "data")


@pytest.fixture
def bronze(kit: Kit) -> Bronze:
    return Bronze(kit)


def answers(count: int, question: str) -> list[Output]:
    return [output(question, f"answer {n}") for n in range(count)]


def label(a: Output, b: Output, *, task: str, labeler: str = "ada") -> Event[Label]:
    left, right = (Candidate(completion=o.completion, response_id=o.response_id, version="base") for o in (a, b))
    shown = {"task_id": task, "prompt_id": a.prompt_id, "prompt": a.prompt, "left": left, "right": right}
    return event(Label(**shown, labeler_id=labeler, verdict=Verdict.LEFT, seconds_taken=1.0))


def story(seed: int, tag: str) -> list[Event[Any]]:
    """Three prompts with thumbs up and down, a withdrawal, a correction and a label: in an order of chance."""
    chance, found = random.Random(seed), list[Event[Any]]()
    for n in range(3):
        up, down, third = answers(3, f"{tag} {n}?")
        said = [
            feedback(up.response_id, "thumbs_up", "ann"),
            feedback(down.response_id, "thumbs_down", "bob"),
            feedback(down.response_id, "correction", "bob", "better"),
            feedback(third.response_id, "thumbs_up", "cid"),
            feedback(third.response_id, "withdrawal", "cid"),
        ]
        moments = itertools.count()
        found += [event(o, time=NOON) for o in (up, down, third)]
        found += [event(f, time=NOON + timedelta(minutes=next(moments))) for f in said]
        found.append(label(up, third, task=f"{tag}-{n}"))
    chance.shuffle(found)
    return found


def rounds(refine: Refine) -> None:
    while refine.round():
        pass


def made(kit: Kit, **more: Any) -> Rebuild:
    return Rebuild(kit.settings, patience_seconds=more.pop("patience_seconds", 0.3), **more)


def check(kit: Kit, *names: str, **more: Any) -> dict[str, Report]:
    return {r.table.split("/")[1]: r for r in made(kit, **more).run(names, mend=False)}


def mend(kit: Kit, *names: str, **more: Any) -> dict[str, Report]:
    return {r.table.split("/")[1]: r for r in made(kit, **more).run(names, mend=True)}


def found(report: Report) -> tuple[int, int, int]:
    return report.missing, report.extra, report.differing


def spoil(kit: Kit, table: Table, number: int, **changes: Any) -> dict[str, Any]:
    """A further revision of one of the table's first rows that nothing in bronze says; the row as it was."""
    opened = kit.table(table)
    row_id = kit.rows(table)[table.key].unique().sort()[number]
    row = next(r for r in kit.latest(table).to_dicts() if r[table.key] == row_id)
    wrong = {**row, "revision": row["revision"] + 1, **changes}
    opened.append(opened.arrow([wrong]), {})
    return row


def held(kit: Kit) -> dict[str, list[dict[str, Any]]]:
    return {table.name: content(kit.latest(table)) for table in REBUILT}


def test_what_refine_has_made_is_identical_with_what_bronze_comes_to(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(1, str(kit.data)))
    rounds(kit.refine(refine_rows=2))
    reports = check(kit)
    assert [r.rebuilt.rows for r in reports.values()] == [kit.latest(t).height for t in REBUILT]
    assert [r.rebuilt.rows for r in reports.values()][:3] == [9, 6, 9], "two ratings; a pair, a correction, a label"
    assert all(r.identical and str(r.live) == str(r.rebuilt) for r in reports.values())


def test_the_hash_is_of_what_the_rows_say_and_not_of_how_they_came_to_be(broker: str, tmp_path: Path) -> None:
    events = story(2, str(tmp_path))
    hashes: list[list[str]] = []
    for name, rows, cut in (("one", 1, 9), ("two", 1000, 27)):
        kit = Kit(broker, tmp_path / name)
        bronze, refine = Bronze(kit), kit.refine(refine_rows=rows)
        for at in range(0, len(events), cut):
            bronze.put(*events[at : at + cut])
            rounds(refine)
        if name == "one":
            for table in (SILVER, RATINGS, PAIRS):
                kit.table(table).compact(1 << 20)
        hashes.append([str(r.live) for r in check(kit, "responses", "ratings", "preferences").values()])
    assert hashes[0] == hashes[1]


WRONG: list[tuple[Table, int, dict[str, Any], tuple[int, int, int]]] = [
    (SILVER, 0, {"thumb": 1, "comment": "nobody said this"}, (0, 0, 1)),
    (SILVER, 1, {"retracted": True}, (1, 0, 0)),
    (SILVER, 2, {"response_id": "chatcmpl-" + "f" * 32}, (0, 1, 0)),
    (RATINGS, 0, {"weight": 0.25}, (0, 0, 1)),
    # One too many under the prompt that it names, and one that differs where it belongs.
    (RATINGS, 1, {"label": False, "prompt_id": "prompt-elsewhere", "revision": 7}, (0, 1, 1)),
    (PAIRS, 0, {"retracted": True}, (1, 0, 0)),
    (PAIRS, 1, {"preference_id": "pair-made-up"}, (0, 1, 0)),
    (PAIRS, 2, {"chosen": "torn", "revision": 1}, (0, 0, 1)),
]


@pytest.mark.parametrize("slice_units", [1, 20_000])
def test_wrong_rows_are_found_and_mended(kit: Kit, bronze: Bronze, slice_units: int) -> None:
    bronze.put(*story(3, str(kit.data)))
    rounds(kit.refine())
    before, right = held(kit), check(kit)
    for table, number, changes, _ in WRONG:
        spoil(kit, table, number, **changes)
    seen = check(kit, slice_units=slice_units)
    for name in ("responses", "ratings", "preferences"):
        counts = [c for table, _, _, c in WRONG if table.name == name]
        assert found(seen[name]) == tuple(map(sum, zip(*counts, strict=True)))
        assert str(seen[name].rebuilt) == str(right[name].live) != str(seen[name].live)
    after = mend(kit, slice_units=slice_units)
    assert all(r.right and str(r.after) == str(right[name].live) for name, r in after.items())
    assert held(kit) == before
    assert all(r.identical for r in check(kit).values())


def test_a_lost_table_comes_back_with_its_place_in_the_log(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(4, str(kit.data)))
    rounds(kit.refine())
    before, right = held(kit), check(kit)
    places = {t.name: kit.table(t).position(watermark(topics.FEEDBACK.name, 0)) for t in REBUILT}
    for table in (SILVER, RATINGS, PAIRS):
        shutil.rmtree(kit.data / "lake" / table.path)
    assert [found(r) for r in check(kit).values()][:3] == [(9, 0, 0), (6, 0, 0), (9, 0, 0)]
    mend(kit, slice_units=4)
    assert held(kit) == before
    assert {name: str(r.live) for name, r in check(kit).items()} == {name: str(r.live) for name, r in right.items()}
    assert {t.name: kit.table(t).position(watermark(topics.FEEDBACK.name, 0)) for t in REBUILT} == places
    rows = kit.rows(SILVER).height
    bronze.put(event(feedback(kit.latest(SILVER)["response_id"][0], "copy")))
    rounds(kit.refine())
    assert kit.rows(SILVER).height == rows + 1, "refine goes on where the tables are"


def test_stopped_in_the_middle_it_keeps_what_is_mended_and_the_next_call_goes_on(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(12, str(kit.data)))
    rounds(kit.refine())
    before, stopped = held(kit), threading.Event()
    shutil.rmtree(kit.data / "lake" / SILVER.path)

    def after_two_slices(_: str, done: int, __: int) -> None:
        if done == 2:
            stopped.set()

    mend(kit, slice_units=2, stop=stopped, progress=after_two_slices)
    some = kit.rows(SILVER)
    assert 0 < some.height < len(before["responses"])
    mend(kit)
    assert held(kit) == before
    assert kit.rows(SILVER).height == len(before["responses"]), "what was mended is not written again"


def test_some_tables_can_be_named_and_others_can_not(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(5, str(kit.data)))
    rounds(kit.refine())
    spoil(kit, SILVER, 0, comment="wrong")
    spoil(kit, RATINGS, 0, weight=0.25)
    assert list(mend(kit, "ratings")) == ["ratings"]
    assert {name: r.identical for name, r in check(kit, "responses", "ratings").items()} == {
        "responses": False, "ratings": True
    }  # fmt: skip
    with pytest.raises(SettingsError, match="scores can't be rebuilt"):
        check(kit, "scores")


def test_mended_gold_is_published_as_refine_would_have(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(6, str(kit.data)))
    rounds(kit.refine())
    row = spoil(kit, RATINGS, 0, weight=0.25)
    published: list[Any] = []
    mend(kit, publish=published.extend)
    assert [(r.rating_id, r.revision, r.weight) for r in published] == [(row["rating_id"], 3, row["weight"])]


def test_an_event_that_refine_takes_in_while_a_row_is_being_mended_is_not_lost(kit: Kit, bronze: Bronze) -> None:
    events = story(7, str(kit.data))
    bronze.put(*events)
    refine = kit.refine()
    rounds(refine)
    spoil(kit, RATINGS, 0, weight=0.25)
    response = kit.latest(RATINGS).sort("rating_id")["response_id"][0]
    late = event(feedback(response, "withdrawal", _rater(kit, response)), time=NOON + timedelta(hours=1))
    in_between = iter([lambda: (bronze.put(late), rounds(refine))])

    def publish(_: Sequence[Any]) -> None:
        next(in_between, lambda: None)()

    reports = mend(kit, publish=publish)
    assert reports["ratings"].conflicts == 1
    assert response not in kit.latest(RATINGS)["response_id"].to_list(), "the withdrawal counts"
    assert all(r.identical for r in check(kit).values())


def test_a_round_of_refine_that_has_read_a_row_before_it_was_mended_is_refused(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(8, str(kit.data)))
    rounds(kit.refine())
    row = spoil(kit, SILVER, 0, comment="nobody said this")

    class Interrupted(Rebuild):
        """It comes to no end: the watermarks are not put right by it."""

        def _advance(self, part: Part, start: Mapping[str, int]) -> None:
            raise KeyboardInterrupt

    class Overtaken(Refine):
        """A rebuild comes between what it reads and what it writes."""

        def _append(self, table: Any, rows: Sequence[Any], moves: Any) -> None:
            if rows and not overtaken:
                overtaken.append(table.table.name)
                with pytest.raises(KeyboardInterrupt):
                    Interrupted(kit.settings, patience_seconds=0.1).run(mend=True)
            super()._append(table, rows, moves)

    overtaken: list[str] = []
    refine = Overtaken(kit.settings, Metrics(), threading.Event())
    bronze.put(event(feedback(row["response_id"], "flag", "eve", "rude"), time=NOON + timedelta(hours=2)))
    with pytest.raises(TableConflict):
        refine.round()
    assert overtaken == ["responses"]
    rounds(refine)
    assert kit.latest(SILVER).sort("response_id").to_dicts()[0]["comment"] == "rude"
    same = kit.rows(SILVER).group_by("response_id", "revision").len()["len"].max()
    assert same == 1, "no two rows of one id have one revision"
    assert all(r.identical for r in check(kit).values())


def _rater(kit: Kit, response: str) -> str:
    return kit.latest(SILVER).filter(response_id=response)["rater_id"][0]


REBUILD = """
import sys
from pathlib import Path
from schemas.connection import KafkaConnection
from streams.comparison import Part
from streams.metrics import Metrics
from streams.rebuild import Rebuild
from streams.settings import StreamSettings
settings = StreamSettings(data=Path(sys.argv[1]), kafka=KafkaConnection(bootstrap_servers=sys.argv[2]))
told = lambda table, done, total: print(table, done, total, flush=True)
Rebuild(settings, progress=told, slice_units=2, patience_seconds=0.2).run(mend=True)
"""


def test_killed_in_the_middle_and_started_again_it_comes_to_the_same(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*story(9, str(kit.data)))
    rounds(kit.refine())
    before = held(kit)
    for table in (SILVER, RATINGS, PAIRS):
        shutil.rmtree(kit.data / "lake" / table.path)
    for place in ("silver/responses 2 ", "gold/ratings 1 ", "gold/preferences 2 "):
        arguments = [sys.executable, "-c", REBUILD, str(kit.data), kit.bootstrap]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(line.startswith(place) for line in process.stdout), f"it came to {place}"
            process.kill()
    mend(kit)
    assert held(kit) == before
    assert all(r.identical for r in check(kit).values())


def test_under_traffic_what_is_wrong_is_mended_and_what_is_on_its_way_is_not_called_wrong(
    fresh_broker: str, tmp_path: Path
) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    with running(kit) as sent:
        until(lambda: kit.rows(PAIRS).height > 3, "the first pairs")
        watched = check(kit, "responses", "ratings", "preferences", patience_seconds=60.0)
        assert all(r.identical and str(r.live) == str(r.rebuilt) for r in watched.values())
        for table, changes in ((SILVER, {"comment": "wrong"}), (RATINGS, {"weight": 0.25}), (PAIRS, {"weight": 0.25})):
            spoil(kit, table, 0, **changes)
        mended = mend(kit, patience_seconds=60.0)
        assert [mended[t.name].right for t in (SILVER, RATINGS, PAIRS)] == [True] * 3
        sent.stop()
        for table in (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS):
            until(lambda table=table: kit.rows(table).height == sent.count(table), f"everything in {table.name}")
        until(lambda: not sum(r.unconsumed for r in check(kit).values()), "everything in gold")
    assert all(r.identical for r in check(kit, "responses", "ratings", "preferences").values())
    for table in (SILVER, RATINGS, PAIRS):
        assert kit.rows(table).group_by(table.key, "revision").len()["len"].max() == 1, "one row of one revision"


class Traffic(threading.Thread):
    """Stories told one after the other, ten events at a time, until told to stop."""

    def __init__(self, kit: Kit) -> None:
        super().__init__()
        self._kit, self._done = kit, threading.Event()
        self._sent: list[Event[Any]] = []

    def run(self) -> None:
        for number in itertools.count():
            events = story(number, f"{self._kit.data} {number}")
            for at in range(0, len(events), 10):
                self._kit.send(*events[at : at + 10])
                self._sent += events[at : at + 10]
                if self._done.wait(0.4):
                    return

    def stop(self) -> None:
        self._done.set()
        self.join()

    def count(self, table: Table) -> int:
        assert table.topic is not None
        return sum(isinstance(e.data, table.topic.payload) for e in self._sent)


@contextlib.contextmanager
def running(kit: Kit) -> Iterator[Traffic]:
    """Ingest and refine as processes, with traffic; they end in order."""
    processes, traffic = [kit.start("ingest"), kit.start("refine", RATERS__ESTIMATE_SECONDS="0.5")], Traffic(kit)
    traffic.start()
    try:
        yield traffic
    finally:
        traffic.stop()
        ended = [stop(process) for process in processes]
    assert ended == [0, 0]


def call(kit: Kit, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    place = ("--data", str(kit.data), "--bootstrap-servers", kit.bootstrap, "--patience", "0.2")
    return CliRunner().invoke(app, [*arguments, *place])


def test_the_command_compares_mends_and_records_the_act(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    Bronze(kit).put(*story(10, "cli"))
    rounds(kit.refine())
    alike = call(kit, "--check")
    assert (alike.exit_code, alike.stdout.count("identical")) == (0, 4)
    row = spoil(kit, RATINGS, 0, weight=0.25)
    seen = call(kit, "--check")
    assert seen.exit_code == 1
    assert f"differing  {row['rating_id']}: weight" in seen.stdout
    assert "0 missing, 0 extra, 1 differing" in seen.stdout
    done = call(kit)
    assert (done.exit_code, "mended   1 rows" in done.stdout) == (0, True)
    assert call(kit, "--check").exit_code == 0
    events = read_all(KafkaConnection(bootstrap_servers=fresh_broker), topics.PREFERENCES, Preference)
    told = [e.data for e in events]
    assert max(p.revision for p in told if p.preference_id == row["rating_id"]) == 3
    (act,) = read_all(KafkaConnection(bootstrap_servers=fresh_broker), topics.AUDIT, Audit)
    assert (act.data.action, act.data.target) == ("rebuild", "silver and gold")
    assert isinstance(call(kit, "scores").exception, SettingsError)


def test_a_table_with_a_lost_file_is_said_and_comes_back_when_its_folder_is_moved_away(
    kit: Kit, bronze: Bronze
) -> None:
    bronze.put(*story(11, str(kit.data)))
    rounds(kit.refine())
    before, folder = held(kit), kit.data / "lake" / RATINGS.path
    next(folder.glob("*.parquet")).unlink()
    refused = call(kit, "--check")
    assert isinstance(refused.exception, SettingsError)
    assert "move its folder out of" in str(refused.exception)
    shutil.move(folder, kit.data / "away")
    assert call(kit).exit_code == 0
    assert held(kit) == before
