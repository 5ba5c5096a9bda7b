"""The path of a rating, and the erasure of a person, on real tables that real programs write meanwhile."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from infra.cli.app import app as cli
from infra.provenance import erase as erasing
from infra.provenance import log
from infra.provenance.erase import derived_folders, erase, unfinished
from infra.provenance.footprint import footprint, learned
from infra.provenance.sources import Sources
from infra.provenance.trace import JudgementPath, ResponsePath, UnknownId, VersionPath, trace
from schemas import tables, topics
from schemas.labels import Candidate, Label, LabelTask, Verdict
from serving.adapters.keys import pseudonym_key
from serving.core.pseudonyms import protected
from tests.integration import trainer_lake
from tests.integration.streams_kit import Kit, event, feedback, output, until
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.cycle import CycleRunner
from trainer.settings import TrainerSettings

SECRET = "the-orchid-opens-at-nine"


@pytest.fixture
def kit(fresh_broker: str, tmp_path: Path) -> Kit:
    return Kit(fresh_broker, tmp_path / "data")


@pytest.fixture
def live(kit: Kit) -> Iterator[Kit]:
    """Ingest and refine at work."""
    ingest, refine = kit.ingest(), kit.refine()
    runners = [threading.Thread(target=program.run) for program in (ingest, refine)]
    for runner in runners:
        runner.start()
    yield kit
    for program in (ingest, refine):
        program._stop.set()
    for runner in runners:
        runner.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TrainerSettings:
    """A data folder on which an update cycle has made v1."""
    base = trainer_lake.tiny_base(tmp_path_factory.mktemp("base"))
    settings = trainer_lake.settings(trainer_lake.fill(tmp_path_factory.mktemp("world") / "data"), base)
    outcome = CycleRunner(settings, MemoryEvents(), load_base=app.loader(settings)).run()
    assert outcome.version == "v1"
    return settings


def sources(kit: Kit) -> Sources:
    return Sources(kit.data / "lake", kit.data / "registry")


def story(kit: Kit) -> dict[str, str]:
    """Ann asks twice, once in the same words as Bob; each rates, Ann remarks on Bob's answer, a labeler compares."""
    anns = output("Where is it?", f"Look, {SECRET}", user_id="ann")
    shared = output("What is tea?", "A drink of ann's.", user_id="ann")
    bobs = output("What is tea?", "A hot drink.", user_id="bob")
    carls = output("What is tea?", "No idea.", user_id="carl")
    task = LabelTask(
        task_id="task-1", prompt_id=anns.prompt_id, prompt=anns.prompt, reason="random", uncertainty=0.0,
        selection_probability=0.5, left=Candidate(completion=anns.completion, response_id=anns.response_id),
        right=Candidate(completion="Over there."),
    )  # fmt: skip
    label = Label(
        task_id="task-1", labeler_id="lea", verdict=Verdict.LEFT, prompt_id=task.prompt_id, prompt=task.prompt,
        left=task.left, right=task.right, seconds_taken=2.0,
    )  # fmt: skip
    kit.send(*map(event, (anns, shared, bobs, carls)))
    kit.send(
        event(feedback(anns.response_id, "thumbs_up", "ann")),
        event(feedback(shared.response_id, "thumbs_up", "ann")),
        event(feedback(bobs.response_id, "thumbs_up", "bob")),
        event(feedback(bobs.response_id, "comment", "ann", f"ha, {SECRET}")),
        event(feedback(carls.response_id, "thumbs_down", "carl")),
        event(task),
        event(label),
    )
    kit.send_raw(topics.FEEDBACK.name, json.dumps({"user_id": "ann", "text": SECRET}).encode())
    ids = {"ann": anns.response_id, "shared": shared.response_id, "bob": bobs.response_id, "carl": carls.response_id}
    until(lambda: kit.rows(tables.DEAD_LETTERS).height == 1, "the dead letter")
    until(lambda: kit.rows(tables.LABELS).height == 1, "the label")
    until(lambda: kit.latest(tables.RATINGS).height == 4, "four ratings")
    until(lambda: kit.latest(tables.PREFERENCES).height == 3, "two pairs on tea and a label")
    return ids


def where_it_stands(kit: Kit, text: str) -> set[str]:
    """The folders of all files below the lake and the broker's data that hold a text; parquet files are read."""
    found: set[str] = set()
    for file in kit.data.rglob("*.parquet"):
        if "_delta_log" not in file.parts and text in str(pl.read_parquet(file).to_dicts()):
            found.add(str(file.parent.relative_to(kit.data)))
    for file in kit.data.rglob("_delta_log/*.json"):
        if text in file.read_text():
            found.add(str(file.relative_to(kit.data)))
    return found


def test_a_response_leads_to_what_was_said_and_what_became_of_it(live: Kit) -> None:
    ids = story(live)
    path = trace(sources(live), ids["bob"])
    assert isinstance(path, ResponsePath)
    assert path.output is not None and path.output["user_id"] == "bob"
    assert sorted(row["kind"] for row in path.feedback) == ["comment", "thumbs_up"]
    rating = f"rating-{ids['bob']}"
    pairs = [row for row in path.judgements if "preference_id" in row]
    assert [row["rating_id"] for row in path.judgements if "rating_id" in row] == [rating]
    assert [(row["chosen_response_id"], row["rejected_response_id"]) for row in pairs] == [(ids["bob"], ids["carl"])]
    assert path.version is not None and path.version.version == "base" and path.version.answers == 4
    assert path.uses == ()


def test_a_rating_leads_back_to_its_answer_and_a_remark_leads_to_its_response(live: Kit) -> None:
    ids = story(live)
    path = trace(sources(live), f"rating-{ids['carl']}")
    assert isinstance(path, JudgementPath)
    assert [row["response_id"] for row in path.responses] == [ids["carl"]]
    assert [row["user_id"] for row in path.feedback] == ["carl"]
    remark = live.rows(tables.FEEDBACK).filter(pl.col("kind") == "comment")["event_id"].item()
    found = trace(sources(live), remark)
    assert isinstance(found, ResponsePath) and found.id == ids["bob"]
    label = live.latest(tables.PREFERENCES).filter(pl.col("source") == "label")["preference_id"].item()
    compared = trace(sources(live), label)
    assert isinstance(compared, JudgementPath) and [row["labeler_id"] for row in compared.labels] == ["lea"]


def test_an_id_that_nothing_has_is_refused_with_advice(kit: Kit) -> None:
    with pytest.raises(UnknownId, match="nothing here has the id 'rating-x'"):
        trace(sources(kit), "rating-x")
    with pytest.raises(UnknownId, match="was not recorded"):
        trace(sources(kit), f"chatcmpl-{'0' * 32}")


def test_a_version_names_its_data_and_a_rating_the_versions_that_learned_from_it(world: TrainerSettings) -> None:
    found = Sources(world.lake, world.registry)
    path = trace(found, "v1")
    assert isinstance(path, VersionPath) and path.parents == ("base",) and path.record is not None
    assert path.sets is not None
    judged = {
        name: sum(n for (s, w), n in path.sets.items() if s == name and w != "prompt") for name in ("train", "judge")
    }
    assert judged == {name: path.record.labels[name] for name in ("train", "judge")}
    evidence = next(e for e in found.evidence("v1") or () if e.kind == "rating" and e.set == "train")
    used = trace(found, evidence.id)
    assert isinstance(used, JudgementPath) and [(u.version, u.set) for u in used.uses] == [("v1", "train")]


def test_the_versions_that_learned_from_a_person_are_found_and_no_others(world: TrainerSettings) -> None:
    found = Sources(world.lake, world.registry)
    theirs = learned(found, footprint(found, "u3"))
    assert {row.version for row in theirs} == {"v1"} and sum(row.judgements for row in theirs) > 0
    assert learned(found, footprint(found, "nobody")) == []


def test_after_an_erasure_nothing_of_the_person_is_left_and_others_keep_theirs(live: Kit) -> None:
    ids = story(live)
    found = sources(live)
    log.wait_until_stored(live.settings.kafka, found, seconds=30)
    assert where_it_stands(live, SECRET)
    student = live.data / "students" / "s1"
    made_of_answers = [live.data / "features" / "space", student.with_name(".s1.work") / "state", student]
    for folder in made_of_answers:  # of the first two nothing says whose they are; a student holds no texts
        folder.mkdir(parents=True)
        (folder / "block.safetensors").write_bytes(b"of everybody")
    done = erase(found, "ann", live.data / "erasures", pause_seconds=0.5, derived=derived_folders(live.data))
    assert list(live.data.rglob("block.safetensors")) == [student / "block.safetensors"]
    assert (
        done.rows["bronze/outputs"] == 2 and done.rows["bronze/labels"] == 1 and done.rows["bronze/dead_letters"] == 1
    )
    assert where_it_stands(live, SECRET) == set()
    assert footprint(sources(live), "ann").empty and unfinished(live.data / "erasures") == []
    assert set(live.latest(tables.RATINGS)["response_id"]) == {ids["bob"], ids["carl"]}
    (pair,) = live.latest(tables.PREFERENCES).to_dicts()
    assert (pair["chosen_response_id"], pair["rejected_response_id"]) == (ids["bob"], ids["carl"])
    (bobs,) = live.latest(tables.RESPONSES).filter(pl.col("response_id") == ids["bob"]).to_dicts()
    assert (bobs["thumb"], bobs["comment"], bobs["feedback_count"]) == (1, None, 1)


def test_the_programs_go_on_after_an_erasure(live: Kit) -> None:
    ids = story(live)
    erase(sources(live), "ann", live.data / "erasures", pause_seconds=0.2)
    more = output("And coffee?", "Also hot.", user_id="dora")
    live.send(event(more), event(feedback(more.response_id, "thumbs_up", "dora")))
    live.send(event(feedback(ids["carl"], "thumbs_up", "carl")))
    until(lambda: more.response_id in set(live.latest(tables.RATINGS)["response_id"]), "a rating from afterwards")
    rated = lambda: live.latest(tables.RATINGS).filter(pl.col("response_id") == ids["carl"])["label"].to_list()  # noqa: E731
    until(lambda: rated() == [True], "a turned thumb on an answer from before")


def test_an_erasure_that_was_cut_off_goes_on_where_it_was(live: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = story(live)
    found = sources(live)
    real, calls = erasing.delete_rows, iter(range(100))

    def dies(*arguments: object) -> int:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(erasing, "delete_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        erase(found, "ann", live.data / "erasures", pause_seconds=0.2)
    assert unfinished(live.data / "erasures") == ["ann"]
    monkeypatch.setattr(erasing, "delete_rows", real)
    erase(sources(live), "ann", live.data / "erasures", pause_seconds=0.2)
    assert where_it_stands(live, SECRET) == set() and footprint(sources(live), "ann").empty
    assert set(live.latest(tables.RATINGS)["response_id"]) == {ids["bob"], ids["carl"]}


def test_a_name_with_quotes_in_it_erases_nobody_else(live: Kit) -> None:
    story(live)
    mallory = output("Hi", "Hello.", user_id="x' OR '1'='1")
    live.send(event(mallory))
    until(lambda: live.rows(tables.OUTPUTS).height == 5, "five answers")
    done = erase(sources(live), "x' OR '1'='1", live.data / "erasures", pause_seconds=0.2)
    assert done.rows["bronze/outputs"] == 1 and live.rows(tables.OUTPUTS).height == 4


def test_events_that_are_not_stored_yet_hold_an_erasure_up(kit: Kit) -> None:
    kit.send(event(output("Hi", "Hello.", user_id="ann")))
    with pytest.raises(log.NotStored, match="1 events lie in the log"):
        log.wait_until_stored(kit.settings.kafka, sources(kit), seconds=0.1)


def test_the_log_lets_go_of_what_the_tables_hold(live: Kit) -> None:
    story(live)
    found = sources(live)
    log.wait_until_stored(live.settings.kafka, found, seconds=30)
    gone = log.truncate(live.settings.kafka, found)
    assert gone["thumbwheel.outputs.v1"] == 4 and gone["thumbwheel.feedback.v1"] == 6
    assert [m for t in gone for m in live.read(t)] == []
    log.withdraw_tasks(live.settings.kafka, ["task-1"])
    assert [(m.key(), m.value()) for m in live.read(topics.LABEL_TASKS.name)][-1] == (b"task-1", None)


def test_samples_of_what_only_they_asked_leave_the_records(world: TrainerSettings, tmp_path: Path) -> None:
    shutil.copytree(world.data, tmp_path / "data", ignore=shutil.ignore_patterns("lease"))
    found = Sources(tmp_path / "data" / "lake", tmp_path / "data" / "registry")
    before = found.registry.record("v1").evaluation.samples
    from trainer.adapters.registry import quote

    assert found.registry.forget_samples({quote(before[0].prompt)}) >= 1
    after = found.registry.record("v1").evaluation.samples
    assert len(after) < len(before) and before[0].prompt not in {s.prompt for s in after}
    assert found.registry.verify("v1").version == "v1" and found.evidence("v1")


def test_the_command_erases_the_person_behind_an_address(live: Kit) -> None:
    """The gateway writes a keyed hash in the place of an e-mail address; whoever erases knows only the address."""
    key = pseudonym_key(live.data / "secrets" / "pseudonym_key.json", ours=True).key
    known_as = protected("eve@example.org", key)
    eves = output("Hi", f"Hello, {SECRET}", user_id=known_as)
    live.send(event(eves), event(feedback(eves.response_id, "thumbs_up", str(known_as))))
    until(lambda: live.latest(tables.RATINGS).height == 1, "a rating")
    common = ["--data", str(live.data)]
    shown = CliRunner().invoke(cli, ["trace", eves.response_id, *common])
    assert shown.exit_code == 0 and "thumbs up by user-" in shown.output and "no version has learned" in shown.output
    where = ["--bootstrap-servers", live.bootstrap, "--pause-seconds", "0.2", "--yes", "--truncate-log"]
    done = CliRunner().invoke(cli, ["erase", "--user", "eve@example.org", *common, *where])
    assert done.exit_code == 0, done.output
    assert where_it_stands(live, SECRET) == set() and live.read(topics.OUTPUTS.name) == []
    until(lambda: live.rows(tables.AUDIT).height == 1, "the audit event")
    (act,) = live.rows(tables.AUDIT).to_dicts()
    assert act["action"] == "erasure" and "eve@" not in str(act) and str(known_as) not in str(act)
    again = CliRunner().invoke(cli, ["erase", "--user", "eve@example.org", *common, *where])
    assert again.exit_code == 0 and "nothing is stored of this user" in again.output
