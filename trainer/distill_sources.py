"""What a distillation works with: the teacher, the models that rate its answers, the prompts, the student."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import ModelError, NotEnoughData, SettingsError, UnknownVersion
from schemas.versions import BASE_VERSION
from trainer.adapters import environment
from trainer.adapters.events import Events
from trainer.adapters.files import sha256_of
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pins
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy
from trainer.adapters.registry import JUDGE_FILE, REWARD_FILE, SAFETY_FILE, Registry
from trainer.adapters.students import cut_student, load_student, require_smaller
from trainer.core import dataset
from trainer.core.dataset import Dataset, Turn
from trainer.core.distill_data import spread_layers
from trainer.core.domains import By, Traffic
from trainer.core.reward import RewardEnsemble
from trainer.core.safety import SafetyHead
from trainer.distill_records import Recipe, StudentSource
from trainer.features import encode_prompt
from trainer.records import VersionRecord
from trainer.scoring import latest_reward_model
from trainer.settings import Limits, TrainerSettings

LoadBase = Callable[[], LanguageModel]


@dataclass(frozen=True)
class DistillRequest:
    """What was asked for: the teacher (None: the live version), and a student by `model` or by `layers`."""

    teacher: str | None = None
    model: str | None = None
    model_name: str | None = None
    layers: int | None = None
    output: Path | None = None


@dataclass(frozen=True)
class Raters:
    """The models that rate answers by their features on the teacher's base, and the version they were fitted for."""

    record: VersionRecord
    reward: RewardEnsemble
    judge: RewardEnsemble
    safety: SafetyHead | None
    reward_sha256: str
    judge_sha256: str


def choose_teacher(request: DistillRequest, events: Callable[[], Events]) -> str:
    """The version that was named, or the one that is live; raises `UnknownVersion`, `BrokerUnavailable`."""
    if request.teacher is not None:
        return request.teacher
    log = events()
    try:
        live = log.board().live()
    finally:
        log.close()
    if live is None:
        raise UnknownVersion(
            "no version is live yet: name the teacher (--teacher v1), or promote one with `thumbwheel versions promote`"
        )
    return live.version


def raters_for(teacher: str, registry: Registry) -> Raters:
    """Reward model and judge of the teacher's cycle; for the base, of the newest whose reward model passed.

    Raises `UnknownVersion`, `CorruptAdapter`, `NotEnoughData`.
    """
    name = teacher
    if teacher == BASE_VERSION:
        found = latest_reward_model(registry)
        if found is None:
            raise NotEnoughData("there is no reward model yet that passed its gate: run `thumbwheel train --now` first")
        name = found.record.version
    record, folder = registry.verify(name), registry.folder(name)
    if record.reward_model.trunk is not None:
        raise ModelError(
            f"the reward model of {name} reads answers by a trunk of its own, and a distillation reads them by the "
            "base alone: name a --teacher whose reward model was trained with THUMBWHEEL_REWARD__TRUNK=frozen"
        )
    digest = sha256_of(folder / REWARD_FILE)
    if digest != record.reward_model.sha256:
        raise ModelError(f"the reward model of {name} is not what its record says; restore it from a copy")
    return Raters(
        record=record,
        reward=RewardEnsemble.load(folder / REWARD_FILE),
        judge=RewardEnsemble.load(folder / JUDGE_FILE),
        safety=SafetyHead.load(folder / SAFETY_FILE) if (folder / SAFETY_FILE).is_file() else None,
        reward_sha256=digest,
        judge_sha256=sha256_of(folder / JUDGE_FILE),
    )


def load_teacher(teacher: str, raters: Raters, registry: Registry, settings: TrainerSettings, load: LoadBase) -> Policy:
    """The teacher on its base; raises `ModelError` where this base is another than the record's."""
    wanted = raters.record.base_model
    here = environment.base_model_info(settings.base_model_name, settings.base_model)
    known = wanted.sha256 is not None and here.sha256 is not None
    if (wanted.sha256 != here.sha256) if known else (wanted.name != here.name):
        raise ModelError(
            f"version {raters.record.version} is of the base model {wanted.name} (SHA-256 {_short(wanted.sha256)}), "
            f"and this one is {here.name} ({_short(here.sha256)}): name its base with --model"
        )
    lora = LoraSettings(**raters.record.config.lora.model_dump())
    adapter = None if teacher == BASE_VERSION else registry.folder(teacher)
    return attach_policy(load(), lora, adapter_dir=adapter, critic="none")


def make_student(request: DistillRequest, teacher: Policy) -> tuple[LanguageModel, StudentSource]:
    """The untrained student; raises `ModelError` where it can't be made or is no smaller than its teacher."""
    if request.layers is not None:
        student = cut_student(teacher, request.layers)
        chosen = spread_layers(teacher.lm.n_layers, request.layers)
        return student, StudentSource(kind="cut", name=f"layers{request.layers}", layers=chosen)
    assert request.model is not None
    student = load_student(request.model, device=str(teacher.lm.device))
    require_smaller(student, teacher.lm)
    name = request.model_name or Path(request.model).name
    return student, StudentSource(kind="model", name=name, model=environment.base_model_info(name, request.model))


def make_recipe(
    settings: TrainerSettings, teacher: str, raters: Raters, student: StudentSource, lm: LanguageModel
) -> Recipe:
    """All that decides the result. Labels are split as they were for the judge: what it learned from stays apart.

    Raises `SettingsError`.
    """
    cycle = settings.cycle_config(
        n_parameters=lm.n_parameters(),
        dtype=str(lm.dtype).removeprefix("torch."),
        device=str(lm.device),
        threads=environment.threads(),
        seed=settings.seed,
    )
    try:
        distill = settings.distill_config(lm.n_parameters())
    except ValueError as error:
        raise SettingsError(f"THUMBWHEEL_DISTILL__...: {error}") from error
    split = replace(raters.record.config.split, max_train_prompts=distill.prompts)
    return Recipe(
        teacher=teacher,
        teacher_adapter_sha256=None if teacher == BASE_VERSION else raters.record.adapter_sha256,
        base_model=raters.record.base_model,
        fitted_by=raters.record.version,
        student=student,
        cycle=cycle.model_copy(update={"split": split}),
        distill=distill,
    )


def read_prompts(lake: TrainerLake, pins: Pins, recipe: Recipe, by: By = "none") -> tuple[Dataset, Traffic]:
    """Prompts to learn from and held-out ones, as a cycle splits them, and the domains in which they are asked.

    Raises `NotEnoughData`, `DataGone`.
    """
    pinned = lake.read(pins, by=by)
    data = dataset.build(pinned.pairs, pinned.ratings, pinned.prompts, recipe.cycle.split)
    wanted = recipe.distill.min_prompts
    if len(data.train_prompts) < wanted:
        raise NotEnoughData(
            f"there are {len(data.train_prompts)} prompts to learn from and {wanted} are needed "
            f"(THUMBWHEEL_DISTILL__MIN_PROMPTS): let the gateway serve some more, or import prompts"
        )
    return data, pinned.traffic


def share_tokens(
    student: LanguageModel, teacher: LanguageModel, prompts: tuple[tuple[Turn, ...], ...], limits: Limits
) -> bool:
    """Whether both give every text the same token ids, and their output matrices the same rows."""
    if student.tokenizer is teacher.tokenizer:
        return True
    if student.eos_id != teacher.eos_id or len(student.head_weight()) != len(teacher.head_weight()):
        return False
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        return False
    return all(encode_prompt(student, p, limits) == encode_prompt(teacher, p, limits) for p in prompts)


def student_id(recipe: Recipe) -> str:
    """The same for the same recipe, so that the same command goes on where it was stopped."""
    told = json.dumps(json.loads(recipe.model_dump_json()), sort_keys=True)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.student.name).strip(".-")
    return f"{recipe.teacher}-{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def place_of(request: DistillRequest, settings: TrainerSettings, id: str) -> Path:
    """The student's folder; raises `SettingsError` where there is something already."""
    folder = (request.output or settings.data / "students" / id).expanduser().absolute()
    if folder.exists():
        raise SettingsError(f"{folder} is there already: remove it to make it again, or name another with --output")
    if folder.resolve().is_relative_to(settings.registry.resolve()):
        raise SettingsError(f"{folder} is inside the registry, which holds versions only: name another with --output")
    return folder


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else f"{digest[:12]}..."
