"""A whole update cycle on Delta tables on disk with a tiny random model, and a log in memory."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas import tables
from schemas.cycles import Cycle, CycleStatus, Stage
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable, CorruptAdapter, LeaseHeld, NotEnoughData, SettingsError
from schemas.versions import ModelVersion, VersionState, move
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.registry import Registry
from trainer.core.evidence import rater_hash
from trainer.cycle import CycleRunner
from trainer.records import Outcome, VersionRecord
from trainer.score_report import ScoreRequest
from trainer.settings import TrainerSettings


@dataclass
class World:
    """A data folder with labels, a log, and what a cycle made of them."""

    settings: TrainerSettings
    events: MemoryEvents

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        return CycleRunner(self.settings, self.events, load_base=app.loader(self.settings)).run(stop)

    def record(self, version: str) -> VersionRecord:
        return CycleRunner(self.settings, self.events, load_base=app.loader(self.settings)).registry.record(version)

    def told(self, cycle_id: str) -> list[Cycle]:
        return [e.data for e in self.events.events if isinstance(e.data, Cycle) and e.data.cycle_id == cycle_id]

    def versions(self) -> list[ModelVersion]:
        return [e.data for e in self.events.events if isinstance(e.data, ModelVersion)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    return World(lake.settings(lake.fill(tmp_path / "data"), base), MemoryEvents())


def with_settings(world: World, **changes: Any) -> World:
    return World(lake.settings(world.settings.data, Path(world.settings.base_model), **changes), world.events)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[World, Outcome]:
    """A cycle that went through; shared by the tests that only look."""
    world = World(lake.settings(lake.fill(tmp_path_factory.mktemp("done") / "data"), base), MemoryEvents())
    return world, world.run()


def test_a_cycle_ends_with_a_registered_version(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    assert (outcome.status, outcome.version) == (CycleStatus.FINISHED, "v1")
    (event,) = world.versions()
    assert (event.version, event.state, event.parent) == ("v1", VersionState.REGISTERED, "base")
    assert event.adapter_path == "v1" and event.adapter_sha256 == world.record("v1").adapter_sha256
    assert (world.settings.registry / "v1" / "adapter_config.json").is_file()


def test_its_events_go_through_the_stages_in_order_and_end_with_the_outcome(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    told = world.told(outcome.cycle_id)
    assert told[0].status is CycleStatus.STARTED
    assert [c.stage for c in told if c.status is CycleStatus.STAGE_DONE] == list(Stage)
    assert told[-1].status is CycleStatus.FINISHED and told[-1].version == "v1"
    assert told[-1].cost.generated_tokens > 0 and told[-1].cost.trained_tokens > 0


def test_the_version_is_told_of_before_the_cycle_is_finished(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    ids = [e.id for e in world.events.events]
    version = next(n for n, e in enumerate(world.events.events) if isinstance(e.data, ModelVersion))
    assert version < ids.index(f"{outcome.cycle_id}-finished")


def test_the_record_holds_what_a_repetition_needs(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    record = world.record("v1")
    assert record.tables == {"gold/ratings": 1, "gold/preferences": 1, "silver/responses": 1, "gold/annotators": None}
    assert record.cycle_id == outcome.cycle_id and record.config.seed == 3 and record.config.threads == 1
    assert record.base_model.sha256 is not None and len(record.content_hash) == 64
    assert set(record.cost) == {"pin", "reward_model", "policy", "evaluate"}
    assert [g.name for g in record.gates] == [
        "finite", "changed",
        "reward_model", "calibration", "beyond_length", "judge", "comparisons", "win_rate", "win_certainty",
        "kl", "kl_parent", "length", "latency", "repetition", "sameness", "flattery", "questions", "format", "unsafe",
        "over_refusal", "red_team", "sycophancy",
    ]  # fmt: skip
    assert all(g.passed and g.remedy is None for g in record.gates)
    assert record.evaluation.samples[0].prompt and record.evaluation.prompts == 11
    assert record.labels["judge_only"] == record.metrics["judge_only_labels"] > 0


def test_the_version_names_each_label_and_prompt_that_it_learned_from(done: tuple[World, Outcome]) -> None:
    world, _ = done
    registry, record = Registry(world.settings.registry), world.record("v1")
    known = registry.evidence("v1") or []
    labels = Counter(e.set for e in known if e.kind != "prompt")
    assert labels == {name: n for name, n in record.labels.items() if n}
    rated = next(e for e in known if e.kind == "rating")
    raters = {rater_hash(f"u{n}") for n in range(200)}
    assert rated.rater in raters and rated.response_ids == (lake.response_id(int(rated.id.split("-")[1])),)
    production = set(pl.read_delta(str(world.settings.lake.at(tables.RESPONSES.path)))["prompt_id"])
    assert {e.id for e in known if e.kind == "prompt"} & production
    text = (registry.folder("v1") / "evidence.jsonl").read_text()
    assert not any(word in text for word in lake.WORDS if len(word) > 4)


def test_a_version_whose_evidence_was_altered_is_not_believed(done: tuple[World, Outcome], tmp_path: Path) -> None:
    world, _ = done
    copy = tmp_path / "registry"
    shutil.copytree(world.settings.registry, copy)
    with (copy / "v1" / "evidence.jsonl").open("a") as out:
        out.write("{}\n")
    with pytest.raises(CorruptAdapter, match=r"evidence\.jsonl is not what the record"):
        Registry(copy).evidence("v1")


def test_the_cycle_folder_has_one_line_of_metrics_for_each_iteration(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    folder = world.settings.cycles / outcome.cycle_id
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1]
    assert math.isclose(lines[0]["first_ratio"], 1.0, abs_tol=1e-5)
    assert json.loads((folder / "config.json").read_text())["ppo"]["iterations"] == 2


def test_production_answers_are_scored_with_one_score_a_head(done: tuple[World, Outcome]) -> None:
    world, outcome = done
    every = pl.read_delta(str(world.settings.lake.at(tables.SCORES.path)))
    scores = every.filter(pl.col("scored_at") <= outcome.ended_at)  # other tests score later, in any order
    assert scores["response_id"].to_list() == [lake.response_id(n) for n in range(119, 103, -1)]
    assert set(scores["head_scores"].list.len()) == {4} and set(scores["reward_model"]) == {"reward-v1"}


def test_answers_are_scored_for_drift_once_and_only_if_they_are_to_be_written(done: tuple[World, Outcome]) -> None:
    world, _ = done
    asked = ScoreRequest(limit=40, since=lake.EPOCH + timedelta(seconds=90), dry_run=True)
    report = app.run_score(world.settings, asked)
    # Answers 90 to 119, of which the odd ones are rude: half are below zero. Training's answers were the same kinds.
    assert (report.total.answers, report.written, report.reward_model) == (30, 0, "reward-v1")
    assert report.total.below_zero == 0.5 and report.total.drift is not None and report.total.safety_cost is None
    written = app.run_score(world.settings, replace(asked, dry_run=False, reward_model="v1"))
    assert written.written == 30 - 16  # sixteen of them had been scored when the cycle ended
    assert app.run_score(world.settings, replace(asked, dry_run=False)).written == 0
    with pytest.raises(NotEnoughData, match="no answers to score"):
        app.run_score(world.settings, replace(asked, version="v9"))
    with pytest.raises(SettingsError, match="no reward model v7; there: reward-v1"):
        app.run_score(world.settings, replace(asked, reward_model="v7"))


def found_features(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """Of each look into the kept features: answers found, and asked for."""
    logged = [vars(record) for record in caplog.records if record.message == "features found"]
    return [(record["answers"], record["of"]) for record in logged]


def test_what_cycles_have_read_is_not_read_again_for_a_score_or_the_reward_model_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.run()
    caplog.set_level("INFO", logger="trainer.adapters.feature_cache")
    caplog.clear()
    app.run_score(world.settings, ScoreRequest(limit=16, dry_run=True))  # the cycle had scored sixteen
    for _ in range(2):
        app.run_reward_only(world.settings, stop=_never())
    (scored, of), (first, labelled), (again, _) = found_features(caplog)
    assert scored == of > 0
    assert labelled / 2 < first < again == labelled  # it learns from answers, too, that the cycle had no use for


def test_the_command_scores_the_newest_answers_and_prints_one_json_object(done: tuple[World, Outcome]) -> None:
    world, _ = done
    command = ("score", "--limit", "8", "--dry-run", "--json", "--data", str(world.settings.data))
    called = subprocess.run(
        [sys.executable, "-c", "from infra.cli import main; main()", *command, "--model", world.settings.base_model],
        capture_output=True,
        text=True,
        check=False,
    )
    assert called.returncode == 0, called.stderr
    report = json.loads(called.stdout)
    # The newest are 119 to 112, a rude one and a polite one in turn.
    assert report["total"]["answers"] == 8 and report["total"]["below_zero"] == 0.5 and report["written"] == 0


def test_a_file_of_answers_is_scored_by_version_and_writes_nothing(done: tuple[World, Outcome], tmp_path: Path) -> None:
    world, _ = done
    rows = [{"prompt": "tea please", "completion": lake.answer(n, n < 4), "version": f"m{n % 2}"} for n in range(8)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = app.run_score(world.settings, ScoreRequest(file=tmp_path / "answers.jsonl"))
    assert {name: s.answers for name, s in report.by_version.items()} == {"m0": 4, "m1": 4}
    assert report.written == 0 and report.table().splitlines()[1].startswith("m0 ")


def test_a_version_can_be_made_again_to_the_same_weights(done: tuple[World, Outcome]) -> None:
    world, _ = done
    lake.write(world.settings.data, tables.RATINGS, [lake.rating(n, label=False) for n in range(500, 600)])
    recorded, today = app.run_reproduce(world.settings, "v1")
    assert recorded == today


def test_the_next_cycle_starts_from_the_version_that_is_live(world: World) -> None:
    world.run()
    first = world.versions()[0]
    live = move(first, VersionState.LIVE, actor="test", reason="")
    world.events.publish(new_event(live, source="test"))
    outcome = world.run()
    record = world.record("v2")
    assert (outcome.version, record.parent) == ("v2", "v1")
    assert record.parent_adapter_sha256 == first.adapter_sha256 != record.adapter_sha256


def test_a_version_that_fails_a_gate_is_rejected_with_the_reason(world: World) -> None:
    strict = with_settings(
        world, gates={"reward_accuracy": 0.0, "win_rate": 1.0, "win_certainty": 0.0, "comparisons": 1, "slower": 10.0}
    )
    outcome = strict.run()
    assert outcome.status is CycleStatus.REFUSED and outcome.reason.startswith("win_rate: ")
    (event,) = strict.versions()
    assert event.state is VersionState.REJECTED and event.reason == outcome.reason
    assert [g.name for g in event.gates if not g.passed] == ["win_rate"]


def test_too_few_labels_fail_the_cycle_and_say_how_many_are_needed(tmp_path: Path, base: Path) -> None:
    world = World(lake.settings(lake.fill(tmp_path / "data", 8), base), MemoryEvents())
    outcome = world.run()
    assert outcome.status is CycleStatus.FAILED and "there are 12 labels in all and 20 are needed" in outcome.reason
    assert not world.versions() and world.told(outcome.cycle_id)[-1].status is CycleStatus.FAILED


def test_a_lake_without_tables_is_no_labels(tmp_path: Path, base: Path) -> None:
    outcome = World(lake.settings(tmp_path / "data", base), MemoryEvents()).run()
    assert "there are 0 labels" in outcome.reason


def test_a_cycle_that_is_asked_to_stop_ends_as_failed_and_its_labels_count_again(world: World) -> None:
    looks = iter(range(1000))
    outcome = world.run(lambda: next(looks) > 6)
    assert (outcome.status, outcome.reason) == (CycleStatus.FAILED, "stopped")
    runner = CycleRunner(world.settings, world.events, load_base=app.loader(world.settings))
    assert runner.cycles.labels_seen() == 0 and not runner.registry.versions()


def test_a_spent_budget_fails_the_cycle_and_names_the_setting(world: World) -> None:
    outcome = with_settings(world, max_cycle_tokens=20).run()
    assert outcome.status is CycleStatus.FAILED and "THUMBWHEEL_MAX_CYCLE_TOKENS" in outcome.reason


def test_two_cycles_at_once_are_refused(world: World) -> None:
    runner = CycleRunner(world.settings, world.events, load_base=app.loader(world.settings))
    with runner.cycles.lease(), pytest.raises(LeaseHeld, match=r"another update cycle is running .* process \d+ on"):
        world.run()


def test_a_log_that_is_away_at_the_start_stops_the_cycle_before_it_begins(world: World) -> None:
    world.events.down = True
    with pytest.raises(BrokerUnavailable):
        world.run()
    assert not lake.outcomes(world.settings.data)


def test_a_version_that_the_log_did_not_hear_of_is_announced_at_the_next_start(world: World) -> None:
    class GoesDown(MemoryEvents):
        def board(self) -> Any:
            board = super().board()
            self.down = True
            return board

    events = GoesDown()
    outcome = World(world.settings, events).run()
    assert (outcome.status, outcome.announced, events.events) == (CycleStatus.FINISHED, False, [])
    events.down = False
    CycleRunner(world.settings, events, load_base=app.loader(world.settings)).recover()
    assert [type(e.data) for e in events.events] == [ModelVersion, Cycle]
    CycleRunner(world.settings, events, load_base=app.loader(world.settings)).recover()
    assert len(events.events) == 2
    assert lake.outcomes(world.settings.data)[0]["announced"]


def test_a_parent_whose_bytes_were_changed_fails_the_cycle(world: World) -> None:
    world.run()
    live = move(world.versions()[0], VersionState.LIVE, actor="test", reason="")
    world.events.publish(new_event(live, source="test"))
    file = world.settings.registry / "v1" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    outcome = world.run()
    assert outcome.status is CycleStatus.FAILED and "its record says" in outcome.reason


def test_the_reward_model_alone_is_reported_beside_length(world: World) -> None:
    report = app.run_reward_only(world.settings, stop=_never())
    assert report.pair_accuracy is not None and report.pair_accuracy.mean == 1.0
    assert report.pair_length_baseline is not None and report.pair_length_baseline.mean == 0.5
    assert json.loads(Path(report.file).read_text())["pair_accuracy"]["mean"] == 1.0
    assert "pairs: by length" in report.table()
    assert report.cross_validation is not None and report.cross_validation.accuracy.mean == 1.0
    assert report.cross_validation.difference.low > 0.3
    assert set(report.by_source) == {"label", "rating"}
    assert "0 unsafe and 0 safe examples" in report.safety.reason


def _never() -> Any:
    import threading

    return threading.Event()
