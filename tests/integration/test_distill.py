"""Students of a version that a whole cycle made, on Delta tables on disk with a tiny random model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.envelope import new_event
from schemas.errors import CycleError, ModelError, NotEnoughData, SettingsError, ThumbwheelError, UnknownVersion
from schemas.versions import ModelVersion, VersionState, move
from serving.adapters.base_model import load_base_model
from tests.integration import trainer_lake as lake
from tests.unit.trainer.core.language import language_model
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.files import sha256_of
from trainer.cycle import CycleRunner
from trainer.distill_records import DistillReport, StudentRecord
from trainer.distill_sources import DistillRequest
from trainer.settings import TrainerSettings
from trainer.stages import Stopped

QUICK = {
    "answers": 2, "keep": 1, "epochs": 2, "batch_answers": 8, "iterations": 3, "prompts_per_iteration": 4, "checks": 2,
    "min_prompts": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, MemoryEvents]:
    """A data folder with v1 in its registry, which is live."""
    data, events = lake.fill(tmp_path_factory.mktemp("learned") / "data"), MemoryEvents()
    settings = lake.settings(data, base)
    assert CycleRunner(settings, events, load_base=app.loader(settings)).run().version == "v1"
    (registered,) = [e.data for e in events.events if isinstance(e.data, ModelVersion)]
    events.publish(new_event(move(registered, VersionState.LIVE, actor="test", reason=""), source="test"))
    return data, events


class School:
    """Makes students of the module's version, each in a folder of the test's own."""

    def __init__(self, learned: tuple[Path, MemoryEvents], base: Path, folder: Path) -> None:
        self.data, self.events = learned
        self.base, self.folder = base, folder

    def settings(self, distill: dict[str, Any] | None = None, **changes: Any) -> TrainerSettings:
        given = {"answers_per_held_out": 1, "distill": QUICK | (distill or {}), **changes}
        return lake.settings(self.data, self.base, **given)

    def make(
        self,
        name: str = "student",
        *,
        stop: Callable[[], bool] = lambda: False,
        distill: dict[str, Any] | None = None,
        changes: dict[str, Any] | None = None,
        **asked: Any,
    ) -> DistillReport:
        request = DistillRequest(**{"layers": 1, "output": self.folder / name, **asked})
        return app.distill(self.settings(distill, **(changes or {})), request, stop, events=lambda: self.events)

    def record(self, name: str = "student") -> StudentRecord:
        return StudentRecord.model_validate_json((self.folder / name / "record.json").read_text())


@pytest.fixture
def school(learned: tuple[Path, MemoryEvents], base: Path, tmp_path: Path) -> School:
    return School(learned, base, tmp_path)


@pytest.fixture(scope="module")
def done(
    learned: tuple[Path, MemoryEvents], base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[School, DistillReport]:
    """A student of the live version; shared by the tests that only look."""
    made = School(learned, base, tmp_path_factory.mktemp("done"))
    return made, made.make()


def test_a_student_is_a_model_that_transformers_and_the_gateway_load(done: tuple[School, DistillReport]) -> None:
    made, report = done
    folder = made.folder / "student"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    served = load_base_model(str(folder), dtype="float32", device="cpu", max_context_tokens=128)
    tokens = torch.tensor([[2, 12, 3]])
    assert torch.equal(model(input_ids=tokens).logits, served.model(input_ids=tokens).logits)
    assert model.config.num_hidden_layers == 1 and report.student.layers == (0,)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(made.base).get_vocab()
    assert not (made.folder / ".student.work").exists()


def test_its_record_tells_teacher_tables_prompts_and_weights(done: tuple[School, DistillReport]) -> None:
    made, report = done
    record, folder = made.record(), made.folder / "student"
    assert record.recipe.teacher == record.recipe.fitted_by == "v1" and record.reward_model == "reward-v1"
    assert record.recipe.teacher_adapter_sha256 == sha256_of(
        made.data / "registry" / "v1" / "adapter_model.safetensors"
    )
    assert record.weights_sha256 == sha256_of(folder / "model.safetensors")
    assert record.tables == {"gold/ratings": 1, "gold/preferences": 1, "silver/responses": 1, "gold/annotators": None}
    lines = [json.loads(line) for line in (folder / "evidence.jsonl").read_text().splitlines()]
    assert {(line["kind"], line["set"]) for line in lines} == {("prompt", "train"), ("prompt", "held_out")}
    assert record.prompts == {name: sum(line["set"] == name for line in lines) for name in ("train", "held_out")}
    told = (
        (folder / "record.json").read_text() + (folder / "report.json").read_text() + (folder / "README.md").read_text()
    )
    assert not any(word in told for word in ("coffee", "please", "thanks")), "no text of any user"
    assert DistillReport.model_validate_json((folder / "report.json").read_text()) == report


def test_the_gates_of_a_cycle_are_asked_and_what_is_not_is_said(done: tuple[School, DistillReport]) -> None:
    _, report = done
    assert [g.name for g in report.gates] == [
        "finite", "changed", "reward_model", "calibration", "beyond_length", "judge", "comparisons", "win_rate", "kl",
        "kl_parent", "length", "latency", "repetition", "sameness", "flattery", "questions", "format", "unsafe",
        "over_refusal", "red_team", "sycophancy",
    ]  # fmt: skip
    assert report.passed and [n.name for n in report.not_asked] == ["safety_cost"]
    by_name = {gate.name: gate for gate in report.gates}
    # Of 30,368 weights with the adapter the student has 11,360: one block less, and no adapter.
    assert by_name["latency"].value == pytest.approx(11_360 / 30_368, abs=1e-4)
    assert by_name["kl_parent"].value == pytest.approx(report.quality.kl_teacher)


def test_the_table_and_the_card_set_it_beside_its_teacher(done: tuple[School, DistillReport]) -> None:
    made, report = done
    rows = {row.what: row for row in report.table}
    assert rows["parameters"].student == "11,360" and rows["parameters"].ratio == "0.37"
    assert rows["memory for a token in flight"].ratio == "0.50"
    assert rows["cost of 1,000 answers"].student.endswith(" s")
    assert {"wins over the teacher", "mean reward", "time for a token", "time to the first token"} <= rows.keys()
    assert report.quality.gap_before is not None and report.quality.gap_after is not None
    card = (made.folder / "student" / "README.md").read_text()
    assert "library_name: transformers" in card and "| safety_cost | not asked |" in card
    assert "cut to its blocks 0" in card and "## Limits" in card


def test_a_student_that_was_stopped_is_gone_on_with_to_the_same_bytes(
    done: tuple[School, DistillReport], school: School
) -> None:
    looks = iter(range(10_000))
    with pytest.raises(Stopped):
        school.make(stop=lambda: next(looks) > 14, changes={"checkpoint_seconds": 0.0})
    state = school.folder / ".student.work" / "state"
    finished = {file.name: file.stat().st_mtime_ns for file in state.glob("answers-*") if file.is_file()}
    assert finished and (state / "before.safetensors").is_file() and not (school.folder / "student").exists()
    looks = iter(range(10_000))
    with pytest.raises(Stopped):
        school.make(stop=lambda: next(looks) > 9, changes={"checkpoint_seconds": 0.0})
    assert {file.name: file.stat().st_mtime_ns for file in state.glob("answers-*")} == finished, "none is drawn again"
    school.make()
    assert school.record().weights_sha256 == done[0].record().weights_sha256


def test_what_was_begun_with_other_settings_is_not_gone_on_with(school: School) -> None:
    with pytest.raises(Stopped):
        school.make(stop=_after(6))
    with pytest.raises(SettingsError, match=r"other settings or models began it: remove that folder"):
        school.make(distill={"epochs": 1})
    (school.folder / ".student.work" / "start.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"can't be read: remove that folder to begin anew"):
        school.make()


def test_the_base_teaches_by_the_newest_reward_model_and_a_full_disk_costs_nothing_that_is_finished(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"epochs": 1, "iterations": 0}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("trainer.distill.student_card", full)
        with pytest.raises(CycleError, match=r"No space left on device; what is finished is kept"):
            school.make(teacher="base", distill=short)
    assert not (school.folder / "student").exists()
    report = school.make(teacher="base", distill=short)
    record = school.record()
    assert report.teacher == "base" and (record.recipe.fitted_by, record.recipe.teacher_adapter_sha256) == ("v1", None)
    by_name = {gate.name: gate for gate in report.gates}
    assert by_name["kl"].value == pytest.approx(by_name["kl_parent"].value, abs=1e-4)


def test_a_student_of_another_vocabulary_learns_answers_alone_and_its_kl_is_not_asked(
    school: School, tmp_path: Path
) -> None:
    other = _other_vocabulary(tmp_path / "other", school.base)
    report = school.make(model=str(other), layers=None, model_name="other", distill={"lora_rank": 2})
    assert [stage.stage for stage in report.stages] == ["supervised"]
    assert {"kl", "kl_parent"} <= {n.name for n in report.not_asked} and report.quality.kl_teacher is None
    assert report.student.name == "other" and school.record().recipe.student.model is not None
    assert report.quality.length > 0 and len(report.gates) == 19


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"layers": 2}, ModelError, "2 of 2 blocks can't be taken"),
        ({"teacher": "v9"}, UnknownVersion, "there is no version v9"),
        ({"teacher": "../v1"}, UnknownVersion, "there is no version"),
        ({"layers": None, "model": "BASE"}, ModelError, "a student must be smaller"),
        ({"layers": None, "model": "nowhere"}, ModelError, "can't load the base model 'nowhere'"),
        ({"distill": {"min_prompts": 200}}, NotEnoughData, "prompts to learn from and 200 are needed"),
        ({"distill": {"keep": 9}}, SettingsError, "THUMBWHEEL_DISTILL__...: 9 answers can't be kept of 2"),
        ({"output": Path("DATA/registry/v7")}, SettingsError, "inside the registry"),
        ({"output": Path("DATA/lake")}, SettingsError, "is there already"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    school: School, asked: dict[str, Any], error: type[ThumbwheelError], said: str
) -> None:
    if asked.get("model") == "BASE":
        asked = asked | {"model": str(school.base)}
    if "output" in asked:
        asked = asked | {"output": Path(str(asked["output"]).replace("DATA", str(school.data)))}
    with pytest.raises(error, match=said):
        school.make(**asked)


def test_without_a_live_version_the_teacher_must_be_named(base: Path, tmp_path: Path) -> None:
    settings = lake.settings(tmp_path / "data", base)
    with pytest.raises(UnknownVersion, match="no version is live yet: name the teacher"):
        app.distill(settings, DistillRequest(layers=1), events=MemoryEvents)
    with pytest.raises(NotEnoughData, match="no reward model yet"):
        app.distill(settings, DistillRequest(layers=1, teacher="base"), events=MemoryEvents)


def test_another_base_than_the_teachers_is_refused(school: School, tmp_path: Path) -> None:
    other = tmp_path / "base"
    shutil.copytree(school.base, other)
    language_model(3).model.save_pretrained(other)
    school.base = other
    with pytest.raises(ModelError, match=r"version v1 is of the base model random .* name its base with --model"):
        school.make()


def test_the_command_shows_both_side_by_side_and_its_exit_code_says_that_it_was_refused(school: School) -> None:
    command = (
        "distill", "--data", str(school.data), "--teacher", "v1", "--layers", "1", "--prompts", "24", "--answers", "2",
        "--keep", "1", "--output", str(school.folder / "own"),
    )  # fmt: skip
    quick = {
        "THUMBWHEEL_DISTILL__EPOCHS": "1", "THUMBWHEEL_DISTILL__ITERATIONS": "1", "THUMBWHEEL_DTYPE": "float32",
        "THUMBWHEEL_PPO__MAX_NEW_TOKENS": "6", "THUMBWHEEL_GATES__PROBE_TOKENS": "600",
        "THUMBWHEEL_ANSWERS_PER_HELD_OUT": "1", "COLUMNS": "160",
    }  # fmt: skip
    run = subprocess.run(
        (sys.executable, "-c", "from infra.cli import main; main()", *command),
        env=os.environ | quick,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3, run.stderr
    assert "wins over the teacher" in run.stdout and "not asked" in run.stdout
    assert "refused by comparisons: 11 prompts compared" in run.stdout and "own with its verdict" in run.stdout
    assert "stage=on_policy" in run.stderr
    assert school.record("own").passed is False
    assert "(refused)" in (school.folder / "own" / "README.md").read_text()


def _after(n: int) -> Callable[[], bool]:
    looks = iter(range(10_000))
    return lambda: next(looks) > n


def _other_vocabulary(folder: Path, base: Path) -> Path:
    """A smaller model whose tokenizer numbers the words another way."""
    shutil.copytree(base, folder)
    text = json.loads((folder / "tokenizer.json").read_text())
    words = text["model"]["vocab"]
    text["model"]["vocab"] = {word: n if n < 4 else 19 - n for word, n in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(text))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(folder)
    return folder
