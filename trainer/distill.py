"""`thumbwheel distill`: a smaller student from a version's answers and rewards.

    prepare ─► answers ─────────► supervised ─────► on_policy ─────────► evaluate ─► write
     │          │                  │                 │                    │           └ <data>/students/<id>/, whole
     │          │                  │                 │                    └ held-out prompts, judge, probes: the gates
     │          │                  │                 └ the student's own answers, the teacher judges each token
     │          │                  └ the best of them by the reward model: -log q and KL to the teacher at each token
     │          └ several answers of the teacher to each training prompt
     └ teacher, reward model, judge, prompts of the lake (consent and split as in a cycle), the untrained student

Nothing is registered and no event is sent: a student is a base model of its own. What is finished is kept in a hidden
folder beside the student's, so that the same command goes on where it was stopped, and comes to the same bytes.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import torch

from schemas.errors import CycleError, LeaseHeld, SettingsError
from schemas.versions import BASE_VERSION
from trainer.adapters import environment
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import Lease
from trainer.adapters.events import Events
from trainer.adapters.files import sha256_of, write_lines, write_whole
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pins
from trainer.adapters.policies import Policy
from trainer.adapters.probes import load_suite
from trainer.adapters.registry import EVIDENCE_FILE, Registry
from trainer.adapters.signing import signer
from trainer.adapters.student_card import compared, student_card
from trainer.adapters.students import finish, learning, size_of, write_student
from trainer.core import gates
from trainer.core.distill_config import StageReport
from trainer.core.distill_gates import StudentCandidate, judge_student
from trainer.core.evidence import evidence
from trainer.core.gates import Share, effective
from trainer.core.probes.suite import Suite
from trainer.distill_evaluation import Bench, Evaluated, evaluate_before, evaluate_student
from trainer.distill_learning import Classroom, learn, lessons_of, teach
from trainer.distill_records import DistillReport, NotAskedGate, Recipe, Start, StudentRecord
from trainer.distill_sources import (
    DistillRequest,
    LoadBase,
    choose_teacher,
    load_teacher,
    make_recipe,
    make_student,
    place_of,
    raters_for,
    read_prompts,
    share_tokens,
    student_id,
)
from trainer.distill_steps import Step, Steps
from trainer.figures import comparisons
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)

RECORD_FILE, REPORT_FILE = "record.json", "report.json"


@dataclass(frozen=True)
class Work:
    """A distillation's room, and where its student goes."""

    id: str
    folder: Path
    room: Classroom
    pins: Pins
    registry: Registry
    settings: TrainerSettings
    now: Callable[[], datetime]


def run_distill(
    settings: TrainerSettings,
    request: DistillRequest,
    load: LoadBase,
    *,
    events: Callable[[], Events],
    now: Callable[[], datetime],
    stop: Callable[[], bool] = lambda: False,
) -> DistillReport:
    """From a teacher to a student on disk with its verdict; raises `ThumbwheelError`s, `Stopped` among them."""
    registry = Registry(settings.registry, signer(settings.signing_key_file))
    suite = load_suite(settings.gates.probes)
    name = choose_teacher(request, events)
    raters = raters_for(name, registry)
    steps = Steps(f"of {name}", stop=stop, price_per_hour=settings.price_per_hour, currency=settings.currency)
    with contextlib.ExitStack() as held:
        with steps.step(Step.PREPARE):
            teacher = load_teacher(name, raters, registry, settings, load)
            steps.device = str(teacher.lm.device)
            untrained, source = make_student(request, teacher)
            recipe = make_recipe(settings, name, raters, source, teacher.lm)
            steps.id = student_id(recipe)
            folder = place_of(request, settings, steps.id)
            work = folder.with_name(f".{folder.name}.work")
            held.enter_context(_OneAtATime(work))
            lake = TrainerLake(settings.lake)
            pins = _begun(work, steps.id, recipe, lake)
            data, traffic = read_prompts(lake, pins, recipe, raters.record.config.reward.by)
            shared = share_tokens(untrained, teacher.lm, data.train_prompts, recipe.cycle.limits)
            torch.manual_seed(recipe.cycle.seed)  # an adapter draws its A from the global generator
            student, parameters = learning(untrained, recipe.distill.lora_rank)
        keep = Checkpoints(work / "state", seconds=settings.checkpoint_seconds)
        room = Classroom(recipe, teacher, student, parameters, shared, raters, data, steps, keep, traffic)
        report = _unbroken(lambda: _run(Work(steps.id, folder, room, pins, registry, settings, now), suite))
        shutil.rmtree(work, ignore_errors=True)
    return report


def _unbroken(run: Callable[[], DistillReport]) -> DistillReport:
    """What came from outside (disk, device, an erasure) as one line that says what to do."""
    try:
        return run()
    except (OSError, RuntimeError) as error:
        logger.warning("the distillation broke off", exc_info=True)
        raise CycleError(
            f"the distillation broke off: {error}; what is finished is kept, and the same command goes on from there"
        ) from error


class _OneAtATime(Lease):
    """One process on a student."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._work = work

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except LeaseHeld as error:
            raise LeaseHeld(f"another process is at work in {self._work}: wait until it is done, or stop it") from error


def _begun(work: Path, id: str, recipe: Recipe, lake: TrainerLake) -> Pins:
    """The tables' files: those that it began with, where it goes on; raises `SettingsError` where it can't."""
    start = Start(id=id, recipe=recipe, code_version=environment.code_version(), environment=environment.environment())
    file, pinned = work / "start.json", work / "pins.json"
    if file.is_file() and pinned.is_file():
        try:
            before, pins = Start.model_validate_json(file.read_text(encoding="utf-8")), Pins.read(pinned)
        except ValueError as error:
            raise SettingsError(f"what was begun in {work} can't be read: remove that folder to begin anew") from error
        named = {"recipe": "settings or models", "code_version": "code", "environment": "libraries or machine"}
        changed = [what for name, what in named.items() if getattr(before, name) != getattr(start, name)]
        if changed:
            raise SettingsError(
                f"what was begun in {work} can't be gone on with, because other {' and '.join(changed)} began it: "
                f"remove that folder to begin anew, or name another with --output"
            )
        logger.info("going on with what was begun", extra={"distillation": id})
        return pins
    shutil.rmtree(work / "state", ignore_errors=True)  # of what nobody knows how it began
    pins = lake.pins()
    write_whole(pinned, pins.text())
    write_whole(file, start.model_dump_json(indent=1) + "\n")
    return pins


def _run(work: Work, suite: Suite) -> DistillReport:
    room = work.room
    steps, keep = room.steps, room.keep
    with steps.step(Step.ANSWERS):
        taught = teach(room)
        lessons, aside = lessons_of(room, taught)
        bench = Bench(
            teacher=room.teacher,
            data=room.data,
            raters=room.raters,
            signal=taught.signal,
            config=room.recipe.cycle,
            distill=room.recipe.distill,
            shared=room.shared,
            teacher_is_base=room.recipe.teacher == BASE_VERSION,
            progress=steps.progress,
        )
        before = keep.result("before", lambda: evaluate_before(bench, room.student))
    stages = learn(room, taught, lessons, aside)
    student = finish(room.student, room.teacher.lm.dtype)
    with steps.step(Step.EVALUATE):
        found = keep.result("evaluation", lambda: evaluate_student(bench, student, before, suite))
        steps.use(generated=found.tokens)
    with steps.step(Step.WRITE):
        return _write(work, student, found, stages, kept=len(lessons.answers))


def _write(
    work: Work, student: Policy, found: Evaluated, stages: tuple[StageReport, ...], *, kept: int
) -> DistillReport:
    """The student's folder with record, report and card; the report."""
    room, settings = work.room, work.settings
    asked, not_asked = judge_student(_candidate(work, student, found, stages), room.recipe.cycle.gates)
    verdict = {
        "gates": asked,
        "not_asked": tuple(NotAskedGate(name=n.name, reason=n.reason) for n in not_asked),
        "passed": gates.passed(asked),
        "reason": gates.refusal(asked),
        "cost": room.steps.cost(),
        "quality": found.quality,
    }
    report = DistillReport(
        id=work.id,
        folder=str(work.folder),
        teacher=room.recipe.teacher,
        student=room.recipe.student,
        stages=stages,
        latency=found.latency,
        student_size=size_of(student.lm),
        teacher_size=size_of(room.teacher.lm, _adapter_size(room)),
        price_per_hour=settings.price_per_hour,
        currency=settings.currency,
        **verdict,
    )
    report = report.model_copy(update={"table": compared(report)})

    def fill(directory: Path, weights_sha256: str) -> None:
        write_lines(directory / EVIDENCE_FILE, (e.model_dump_json() for e in evidence(room.data) if e.kind == "prompt"))
        record = StudentRecord(
            id=work.id,
            created_at=work.now(),
            recipe=room.recipe,
            tables=work.pins.versions(),
            content_hash=room.data.content_hash,
            evidence_sha256=sha256_of(directory / EVIDENCE_FILE),
            prompts={"train": len(room.data.train_prompts), "held_out": len(room.data.held_out_prompts)},
            answers_kept=kept,
            reward_model=room.raters.record.reward_model.id,
            reward_sha256=room.raters.reward_sha256,
            judge_sha256=room.raters.judge_sha256,
            weights_sha256=weights_sha256,
            dtype=str(student.lm.dtype).removeprefix("torch."),
            code_version=environment.code_version(),
            environment=environment.environment(),
            **verdict,
        )
        (directory / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (directory / REPORT_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (directory / "README.md").write_text(student_card(record, report), encoding="utf-8")

    key = signer(settings.signing_key_file)
    write_student(student.lm, work.folder, fill, lambda folder: None if key is None else key.sign(work.id, folder))
    logger.info("student written", extra={"distillation": work.id, "passed": report.passed})
    return report


def _candidate(work: Work, student: Policy, found: Evaluated, stages: tuple[StageReport, ...]) -> StudentCandidate:
    """What the gates look at."""
    room, quality = work.room, found.quality
    teacher = room.teacher.lm.n_parameters() + _adapter_size(room)
    figures = {
        "win_rate": quality.win_rate_vs_teacher.mean,
        "reward": quality.reward.mean,
        "length": quality.length,
        **{f"gap_{stage.stage}": stage.gap.value for stage in stages},
        **{f"probe_{probe.name}": probe.new for probe in quality.probes},
    }
    return StudentCandidate(
        changed=any(stage.kept_step for stage in stages),
        win_rate=Share(**quality.win_rate_vs_teacher.model_dump()),
        comparisons=_comparisons(work),
        kl=found.kl,
        kl_parent=found.kl_parent,
        length=quality.length,
        teacher_length=quality.teacher_length,
        work=student.lm.n_parameters() / teacher,
        probes=found.paired,
        figures=figures,
        fitted_by=room.recipe.fitted_by,
        carried=room.raters.record.gates,
        seed=room.recipe.cycle.seed,
    )


def _comparisons(work: Work) -> tuple[float, float, float]:
    """Prompts compared here, and the effective prompts and people behind the judge by its version's evidence."""
    known = work.registry.evidence(work.room.recipe.fitted_by)
    prompts = float(len(work.room.data.held_out_prompts))
    if known is None:
        return prompts, *comparisons(work.room.data)[1:]
    judged = [e for e in known if e.set == "judge" and e.kind != "prompt"]
    by_prompt = effective((e.prompt_id, e.weight) for e in judged)
    by_rater = effective((e.rater or e.prompt_id, e.weight) for e in judged)
    return prompts, by_prompt, by_rater


def _adapter_size(room: Classroom) -> int:
    """Parameters of the teacher's adapter; a base that teaches carries one that changes nothing."""
    if room.recipe.teacher == BASE_VERSION:
        return 0
    return sum(p.numel() for p in room.teacher.adapter_parameters())
