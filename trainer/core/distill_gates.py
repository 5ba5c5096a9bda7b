"""The gates of a cycle asked of a student: its parent is its teacher.

What can't be asked of it is told with its reason, and never counts as passed: the student then passes only the others.
The verdicts on reward model and judge are those of the cycle that fitted them, since it is these that judge here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.versions import GateResult
from trainer.core.gates.labels import Share
from trainer.core.gates.paired import Paired
from trainer.core.gates.thresholds import PROBES, GateThresholds
from trainer.core.gates.verdicts import Distance, comparisons, finite, kl, latency, length, probes, win_rate

CARRIED = ("reward_model", "calibration", "beyond_length", "judge")
"""Of the cycle that fitted reward model and judge."""
NEARER = "a student nearer to its teacher: more layers, prompts, epochs or iterations (THUMBWHEEL_DISTILL__...)"


@dataclass(frozen=True)
class NotAsked:
    """A gate that could not be asked, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class StudentCandidate:
    """What was measured of a student. Lengths are mean tokens an answer, in the teacher's tokens.

    `kl` and `kl_parent` are None where student and teacher share no tokenizer; `work` is the weights multiplied for a
    token as a share of the teacher's.
    """

    changed: bool
    win_rate: Share
    comparisons: tuple[float, float, float]
    kl: Distance | None
    kl_parent: Distance | None
    length: float
    teacher_length: float
    work: float
    probes: tuple[Paired, ...]
    figures: Mapping[str, float]
    fitted_by: str
    """The version whose cycle fitted reward model and judge."""
    carried: tuple[GateResult, ...]
    """That version's gates."""
    seed: int = 0


def judge_student(found: StudentCandidate, thresholds: GateThresholds) -> tuple[tuple[GateResult, ...], list[NotAsked]]:
    """Every gate's verdict, and the gates that were not asked."""
    carried, missing = _carried(found)
    distances = (("kl", found.kl), ("kl_parent", found.kl_parent))
    asked = (
        finite(found.figures),
        learned(found.changed),
        *carried,
        comparisons(found.comparisons, thresholds),
        win_rate(found.win_rate, thresholds),
        *(kl(name, distance, thresholds) for name, distance in distances if distance is not None),
        length(found.length, found.teacher_length, thresholds),
        latency(found.work, thresholds),
        *probes([p for p in found.probes if p.new], thresholds, seed=found.seed),
    )
    no_kl = "student and teacher share no tokenizer, so their probabilities can't be compared"
    missing += [NotAsked(name, no_kl) for name, distance in distances if distance is None]
    return tuple(map(_told, asked)), [*missing, *_unasked_probes(found.probes)]


def learned(changed: bool) -> GateResult:
    """Training found a state nearer to the teacher than the one it began with."""
    return GateResult(
        name="changed",
        passed=changed,
        value=float(changed),
        threshold=1.0,
        cases=1,
        detail="its weights are its own"
        if changed
        else "no state was nearer to the teacher than the one it began with",
        remedy=None if changed else "more prompts, or another THUMBWHEEL_DISTILL__LEARNING_RATE",
    )


def _carried(found: StudentCandidate) -> tuple[list[GateResult], list[NotAsked]]:
    by_name = {gate.name: gate for gate in found.carried}
    kept = [by_name[name] for name in CARRIED if name in by_name]
    told = [g.model_copy(update={"detail": f"in the cycle of {found.fitted_by}: {g.detail}"}) for g in kept]
    why = f"the record of {found.fitted_by} is of a release without this gate"
    return told, [NotAsked(name, why) for name in CARRIED if name not in by_name]


def _unasked_probes(paired: Sequence[Paired]) -> list[NotAsked]:
    asked = {p.name for p in paired if p.new}
    reasons = {"safety_cost": "there is no safety head"}
    return [
        NotAsked(name, reasons.get(name, "no probe of this kind was chosen")) for name in PROBES if name not in asked
    ]


def _told(gate: GateResult) -> GateResult:
    """A student's parent is its teacher; what would change its refusal is another thing than for a version."""
    if gate.name in (*CARRIED, "finite", "changed", "comparisons"):
        return gate
    gate = gate.model_copy(update={"detail": gate.detail.replace("the parent", "the teacher")})
    if gate.passed:
        return gate
    advice = {"latency": "fewer layers, or a smaller model"}.get(gate.name, NEARER)
    if gate.name in PROBES:
        advice += f"; or THUMBWHEEL_GATES__{gate.name.upper()}_RISE if it is wanted"
    return gate.model_copy(update={"remedy": advice})
