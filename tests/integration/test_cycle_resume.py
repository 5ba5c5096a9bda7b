"""A cycle whose processes are killed goes on where the last one was, and comes to the same bytes."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from infra.lab.log import RecordedEvents
from schemas.cycles import Cycle, CycleStatus
from schemas.versions import ModelVersion
from tests.integration import cycle_worker
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.cycle import CycleRunner

FILES = ("adapter_model.safetensors", "value_head.safetensors", "reward.safetensors", "judge.safetensors")
SAVED_AT = {
    "reading": set[str](),
    "half_read": set[str](),
    "fitted": {"features", "fitted"},
    "training": {"features", "fitted", "before", "ppo"},
    "evaluating": {"features", "fitted", "before", "ppo", "trained"},
    "evaluated": {"features", "fitted", "before", "ppo", "trained", "evaluation"},
    "registered": {"features", "fitted", "before", "ppo", "trained", "evaluation"},
}


def kill_at(data: Path, base: Path, moments: Iterable[str]) -> None:
    """Run a process up to each of these moments, one after the other."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.cycle_worker", str(data), str(base), *moments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr


def taken(data: Path, moment: str) -> list[str]:
    """The parts that the process took up from an earlier one."""
    lines = [json.loads(s) for s in (data / f"{moment}.log").read_text().splitlines() if s.startswith("{")]
    return [line["part"] for line in lines if line["message"] == "taken up where it was left"]


def found(data: Path, moment: str) -> int:
    """The answers that the process did not have to read, since an earlier one had."""
    lines = [json.loads(s) for s in (data / f"{moment}.log").read_text().splitlines() if s.startswith("{")]
    (line,) = [line for line in lines if line["message"] == "features found"]
    return line["answers"]


def runner(data: Path, base: Path) -> CycleRunner:
    given = cycle_worker.settings(data, base)
    return CycleRunner(given, RecordedEvents(data / "events.jsonl"), load_base=app.loader(given))


def test_a_cycle_killed_at_every_stage_comes_to_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    base = lake.tiny_base(tmp_path / "base")
    whole, torn = (lake.fill(tmp_path / name) for name in ("whole", "torn"))
    assert runner(whole, base).run().version == "v1"

    kill_at(torn, base, SAVED_AT)
    for moment, saved in SAVED_AT.items():
        assert set(json.loads((torn / f"{moment}.json").read_text())) == saved, moment
    assert found(torn, "half_read") == 0 and found(torn, "fitted") == 16
    assert taken(torn, "training") == ["features", "fitted"]
    assert taken(torn, "evaluating") == ["features", "fitted", "before", "ppo"]
    assert taken(torn, "registered") == ["features", "fitted", "before", "trained", "evaluation"]

    last = runner(torn, base)
    last.recover()
    (outcome,) = last.cycles.outcomes()
    assert (outcome.status, outcome.version, outcome.tries) == (CycleStatus.FINISHED, "v1", 7)
    for file in FILES:
        assert (torn / "registry/v1" / file).read_bytes() == (whole / "registry/v1" / file).read_bytes(), file
    records = [runner(data, base).registry.record("v1") for data in (whole, torn)]
    timed = {"token_seconds"}  # processor time is never the same
    assert records[0].evaluation.model_dump(exclude=timed) == records[1].evaluation.model_dump(exclude=timed)
    assert records[0].gates == records[1].gates and records[0].metrics == records[1].metrics
    (folder,) = (torn / "cycles").glob("c*")
    steps = [json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2] and not (folder / "state").exists()
    told = [e.data for e in RecordedEvents(torn / "events.jsonl").published()]
    assert [d.version for d in told if isinstance(d, ModelVersion)] == ["v1"]
    assert [d.status for d in told if isinstance(d, Cycle)] == [CycleStatus.FINISHED]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a folder in which a cycle was begun whose process is gone."""
    root = tmp_path_factory.mktemp("cut")
    base = lake.tiny_base(root / "base")
    data = lake.fill(root / "data")
    first = runner(data, base)
    start = _begin(first)
    assert first.cycles.cut_off() == [start]
    return data, base


def _begin(first: CycleRunner) -> Any:
    """Begin a cycle and go no further than its end in an exception that nothing here catches, as a kill would."""

    class Gone(BaseException):
        pass

    def stop() -> bool:
        raise Gone

    with pytest.raises(Gone):
        first.run(stop)
    (start,) = first.cycles.cut_off()
    return start


def changed(cut: tuple[Path, Path], tmp_path: Path, **changes: Any) -> CycleRunner:
    """A runner with other settings on a copy of that folder."""
    import shutil

    data = tmp_path / "data"
    shutil.copytree(cut[0], data)
    given = cycle_worker.settings(data, cut[1]).model_copy(update=changes)
    return CycleRunner(given, RecordedEvents(data / "events.jsonl"), load_base=app.loader(given))


def test_a_cycle_of_another_code_version_is_closed_and_a_new_one_begins(
    cut: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.adapters.environment.code_version", lambda: "another")
    later = changed(cut, tmp_path)
    assert later.run().status is CycleStatus.FINISHED
    first, second = sorted(later.cycles.outcomes(), key=lambda o: o.ended_at)
    assert first.status is CycleStatus.FAILED and "the code or what it runs on has changed since" in first.reason
    assert not first.conclusive and (second.tries, second.version) == (1, "v1")


def test_a_cycle_of_another_configuration_is_closed_and_a_new_one_begins(
    cut: tuple[Path, Path], tmp_path: Path
) -> None:
    later = changed(cut, tmp_path)
    config = later.settings.cycle_config(n_parameters=1, dtype="float32", device="cpu", threads=1, seed=99)
    (start,) = later.cycles.cut_off()
    later.cycles.folder(start.cycle_id).config(config)
    assert later.run().status is CycleStatus.FINISHED
    assert "the configuration has changed since" in min(later.cycles.outcomes(), key=lambda o: o.ended_at).reason


def test_a_cycle_that_killed_too_many_processes_is_given_up_with_its_labels(
    cut: tuple[Path, Path], tmp_path: Path
) -> None:
    later = changed(cut, tmp_path, max_tries=1)
    later.recover()
    (outcome,) = later.cycles.outcomes()
    assert "1 died of it by now" in outcome.reason and outcome.conclusive
    assert later.cycles.labels_seen() == 180


def test_a_cycle_whose_data_were_erased_since_fails_with_that_reason(cut: tuple[Path, Path], tmp_path: Path) -> None:
    later = changed(cut, tmp_path)
    for file in (later.settings.data / "lake/gold/ratings").glob("*.parquet"):
        file.unlink()
    outcome = later.run()
    assert outcome.status is CycleStatus.FAILED and "are gone: erased or vacuumed since" in outcome.reason
    assert outcome.tries == 2 and not later.registry.versions()


def test_a_cycle_goes_on_from_the_labels_that_it_pinned_and_not_from_newer_ones(
    cut: tuple[Path, Path], tmp_path: Path
) -> None:
    from schemas import tables

    later = changed(cut, tmp_path)
    lake.write(later.settings.data, tables.RATINGS, [lake.rating(n, label=False) for n in range(500, 600)])
    outcome = later.run()
    assert (outcome.status, outcome.tries, outcome.labels) == (CycleStatus.FINISHED, 2, 180)
