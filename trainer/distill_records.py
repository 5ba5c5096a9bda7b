"""What a distillation writes down: how it began, where the student came from, what it showed."""

from datetime import datetime
from typing import Literal

from schemas.cycles import Cost
from schemas.versions import GateResult
from trainer.core.distill_config import DistillConfig, StageReport
from trainer.core.distill_table import Latency, Size
from trainer.records import BaseModelInfo, Environment, Frozen, Interval, ProbeFigures
from trainer.settings import CycleConfig


class StudentSource(Frozen):
    """What a student was before it learned: some blocks of its teacher, or a model of its own."""

    kind: Literal["cut", "model"]
    name: str
    layers: tuple[int, ...] = ()
    """The teacher's blocks, from 0, that a cut one was made of."""
    model: BaseModelInfo | None = None


class Recipe(Frozen):
    """All that decides a student's weights, beside the tables' versions."""

    teacher: str
    teacher_adapter_sha256: str | None
    base_model: BaseModelInfo
    fitted_by: str
    """The version whose reward model chose the answers and whose judge compares: the teacher, or, where that is the
    base, the newest version whose reward model passed its gates."""
    student: StudentSource
    cycle: CycleConfig
    """The configuration of a cycle on this base: sampling, limits, split, gates and seed are those."""
    distill: DistillConfig


class Start(Frozen):
    """`start.json` of a distillation at work: whoever goes on with it must be told the same."""

    id: str
    recipe: Recipe
    code_version: str
    environment: Environment


class NotAskedGate(Frozen):
    """A gate that could not be asked of a student, and why."""

    name: str
    reason: str


class TokenGap(Frozen):
    """Nats a token on held-out prompts, with intervals over answers: KL(teacher || student) on the teacher's answers,
    KL(student || teacher) on the student's own."""

    forward: Interval
    reverse: Interval


class Quality(Frozen):
    """A student on held-out prompts. Rewards are normalized on the teacher's answers to training prompts, by the reward
    model that chose what it learned from; the judge learned from other people's labels. KL is in nats an answer.
    What rests on shared tokens is None where there are none."""

    prompts: int
    answers_per_prompt: int
    win_rate_vs_teacher: Interval
    win_rate_vs_start: Interval
    reward: Interval
    teacher_reward: Interval
    start_reward: Interval
    length: float
    teacher_length: float
    start_length: float
    finished: float
    teacher_finished: float
    kl_base: float | None
    kl_teacher: float | None
    gap_before: TokenGap | None
    gap_after: TokenGap | None
    probes: tuple[ProbeFigures, ...]
    probes_asked: int
    suite_sha256: str


class StudentRecord(Frozen):
    """`record.json` in a student's folder: its lineage and its verdict. It holds no text of any user."""

    id: str
    created_at: datetime
    recipe: Recipe
    tables: dict[str, int | None]
    content_hash: str
    evidence_sha256: str
    prompts: dict[str, int]
    answers_kept: int
    reward_model: str
    reward_sha256: str
    judge_sha256: str
    weights_sha256: str
    dtype: str
    code_version: str
    environment: Environment
    quality: Quality
    gates: tuple[GateResult, ...]
    not_asked: tuple[NotAskedGate, ...]
    passed: bool
    reason: str
    cost: dict[str, Cost]


class ComparedRow(Frozen):
    """One line of the table. `ratio` is student over teacher, with a 95 % interval where there is one."""

    what: str
    student: str
    teacher: str = ""
    start: str = ""
    ratio: str = ""


class DistillReport(Frozen):
    """`report.json`, and what the command prints: figures that a clock measured are here and not in the record."""

    id: str
    folder: str
    teacher: str
    student: StudentSource
    passed: bool
    reason: str
    quality: Quality
    stages: tuple[StageReport, ...]
    latency: Latency
    student_size: Size
    teacher_size: Size
    price_per_hour: float | None
    currency: str
    table: tuple[ComparedRow, ...] = ()
    gates: tuple[GateResult, ...]
    not_asked: tuple[NotAskedGate, ...]
    cost: dict[str, Cost]
