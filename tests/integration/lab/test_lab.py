"""The lab with the tiny model: real tables, the trainer's own cycle, and no cycle twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.lab import bronze, runner
from infra.lab.options import LabOptions
from infra.lab.results import CycleResult, Results
from infra.lab.stop import Interrupted
from infra.lab.world import Setup, folder_of, trainer_settings
from infra.simulate import tastes
from infra.simulate.prompts import held_out
from schemas import tables
from schemas.cycles import CycleStatus
from schemas.errors import SettingsError
from streams.adapters.lake import open_table
from streams.rebuild import Rebuild
from tests.integration.streams_kit import until
from trainer.adapters.cycles import Cycles
from trainer.adapters.registry import Registry
from trainer.app import run_reproduce

pytestmark = pytest.mark.timeout(1200)  # a minute of CPU, which a busy machine takes its time to give
SMALL = LabOptions(seeds=1, cycles=2, users=16, answers=120, flips=0.1, spammers=0.1)
QUICK = {
    "THUMBWHEEL_PPO__ITERATIONS": "2",
    "THUMBWHEEL_MAX_HELD_OUT_PROMPTS": "16",
    "THUMBWHEEL_SCORE_RESPONSES": "32",
    "THUMBWHEEL_REWARD__L2_GRID": "[0.1]",
    "THUMBWHEEL_GATES__REWARD_ACCURACY": "0",
    "THUMBWHEEL_GATES__WIN_RATE": "0",
    "THUMBWHEEL_GATES__WIN_RATE_LOW": "0",
    "THUMBWHEEL_GATES__WIN_CERTAINTY": "0",
    "THUMBWHEEL_GATES__COMPARISONS": "1",
}
"""Few labels and steps, and gates that such a cycle passes: what is tested here is the lab."""
MADE_ANEW = {"cycle_id", "seconds"}
COMMAND = (
    "lab", "--model", "tiny", "--seeds", "1", "--cycles", "2", "--users", "16", "--answers", "120", "--flips", "0.1",
    "--spammers", "0.1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


def setup(folder: Path, model: Path, options: LabOptions = SMALL) -> Setup:
    return Setup(options, folder, str(model), {name: tastes.load(name) for name in options.taste_names()})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Setup, list[CycleResult]]:
    """Two cycles that nobody disturbed; for tests that only look."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        made = setup(tmp_path_factory.mktemp("lab"), tiny_model)
        return made, runner.run(made)


def comparable(result: CycleResult) -> dict[str, object]:
    return result.model_dump(exclude=MADE_ANEW)


def test_a_cycle_learns_from_the_tables_and_its_version_is_promoted(whole: tuple[Setup, list[CycleResult]]) -> None:
    first, second = whole[1]
    assert (first.status, first.version, first.parent, first.promoted) == (CycleStatus.FINISHED, "v1", "base", True)
    assert (second.parent, second.version) == ("v1", "v2")
    assert first.collected.answers == second.collected.answers == 120
    assert first.labels_used["train"] >= 20 and first.labels < second.labels
    assert first.collected.labels == 0 and second.collected.labels > 0  # labelers are asked once there are scores
    assert first.reward_accuracy is not None and first.kl is not None and first.kl_limit is not None


def test_a_version_is_judged_on_prompts_that_nobody_asks(whole: tuple[Setup, list[CycleResult]]) -> None:
    made, (first, _) = whole
    assert first.vs_base is not None and first.vs_base.n == 80 == len(first.serving_by_prompt)
    assert first.vs_base == first.vs_parent == first.serving_vs_base
    outputs = open_table(folder_of(made.folder, 0) / "lake", tables.OUTPUTS).all().collect()
    asked = {turns[-1]["content"] for turns in outputs["prompt"].to_list()}
    assert asked and not asked & set(held_out())


def test_answers_of_the_second_cycle_are_the_promoted_versions(whole: tuple[Setup, list[CycleResult]]) -> None:
    outputs = open_table(folder_of(whole[0].folder, 0) / "lake", tables.OUTPUTS).all().sort("kafka_offset").collect()
    assert outputs["version"].to_list() == ["base"] * 120 + ["v1"] * 120
    assert outputs["event_id"].n_unique() == 240


def test_silver_and_gold_are_what_bronze_says(whole: tuple[Setup, list[CycleResult]]) -> None:
    settings = bronze.settings_for(folder_of(whole[0].folder, 0))
    reports = Rebuild(settings, patience_seconds=0.01).run(mend=False)
    assert all(report.identical and not report.unconsumed for report in reports)


def test_a_version_of_the_lab_can_be_made_again_like_any_other(whole: tuple[Setup, list[CycleResult]]) -> None:
    recorded, today = run_reproduce(trainer_settings(whole[0], 0), "v1")
    assert recorded == today


def test_the_page_and_the_results_are_in_the_folder(whole: tuple[Setup, list[CycleResult]]) -> None:
    made, results = whole
    assert Results(made.folder).read() == results
    assert "v2 promoted" in (made.folder / "report.html").read_text(encoding="utf-8")


def test_what_is_finished_is_not_run_again(whole: tuple[Setup, list[CycleResult]]) -> None:
    made, results = whole
    told: list[object] = []
    assert runner.run(made, told=lambda *said: told.append(said), ended=told.append) == results
    assert not told


def test_a_folder_is_one_lab_and_says_what_differs(whole: tuple[Setup, list[CycleResult]], tiny_model: Path) -> None:
    other = LabOptions(seeds=1, cycles=2, users=16, answers=120, flips=0.3, spammers=0.1)
    with pytest.raises(SettingsError, match=r"is a lab with flips 0\.1, and this one has 0\.3"):
        runner.run(setup(whole[0].folder, tiny_model, other))


def test_another_trainer_is_another_lab(
    whole: tuple[Setup, list[CycleResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THUMBWHEEL_PPO__ITERATIONS", "3")
    with pytest.raises(SettingsError, match="is a lab with ppo "):
        runner.run(whole[0])


def test_a_lab_that_is_asked_to_stop_stores_what_is_finished(tmp_path: Path, tiny_model: Path) -> None:
    made = setup(tmp_path, tiny_model)
    with pytest.raises(Interrupted):
        runner.run(made, stop=lambda: True)
    assert Results(tmp_path).read() == [] and "No cycle is finished yet." in (tmp_path / "report.html").read_text()


@contextmanager
def started(folder: Path, model: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, which is gone at the end."""
    environment = os.environ | QUICK | {"THUMBWHEEL_MODELS": str(model.parent), "OMP_NUM_THREADS": "1"}
    code = "from infra.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND, "--data", str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_after_ctrl_c_and_after_a_kill_the_same_command_goes_on_and_comes_to_the_same(
    whole: tuple[Setup, list[CycleResult]], tmp_path: Path, tiny_model: Path
) -> None:
    cycles, results = Cycles(folder_of(tmp_path, 0) / "cycles"), Results(tmp_path)
    with started(tmp_path, tiny_model) as process:
        until(lambda: len(cycles.ids()) == 1 or process.poll() is not None, "the first cycle", patience=600)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    assert cycles.cut_off() == [] and results.read() == []  # it ended in order, before its first result
    with started(tmp_path, tiny_model) as process:
        until(lambda: len(cycles.ids()) == 3 or process.poll() is not None, "the second cycle", patience=600)
        process.kill()
    first = results.file.read_bytes().splitlines()[0]
    found = runner.run(setup(tmp_path, tiny_model))
    assert results.file.read_bytes().splitlines()[0] == first
    assert [comparable(r) for r in found] == [comparable(r) for r in whole[1]]
    for table in bronze.TAKEN:
        rows = open_table(folder_of(tmp_path, 0) / "lake", table).all().select("event_id", "kafka_offset").collect()
        assert rows["event_id"].n_unique() == rows["kafka_offset"].n_unique() == rows.height
    assert len([o for o in cycles.outcomes() if o.conclusive]) == 2
    assert Registry(folder_of(tmp_path, 0) / "registry").versions() == ["v1", "v2"]
