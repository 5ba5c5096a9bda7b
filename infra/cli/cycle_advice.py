"""Why a cycle made no version that serves, and what would change it. Pure."""

from collections.abc import Iterable

from schemas.cycles import CycleStatus
from schemas.versions import GateResult
from trainer.journal import Outcome

ADVICE = {
    "finite": "a figure is not a number: look at metrics.jsonl for the iteration where it begins, and lower "
    "THUMBWHEEL_PPO__LEARNING_RATE",
    "reward_model": "more labels, on more prompts and from more people; `gold/annotators` shows whom to doubt",
    "judge": "more labels from more people: the judge learns from those whom the reward model never saw",
    "win_rate": "more labels; more PPO iterations, or a larger KL budget (THUMBWHEEL_PPO__KL_BUDGET), if the rate is "
    "only just below",
    "kl": "a smaller step: lower THUMBWHEEL_PPO__KL_BUDGET or raise THUMBWHEEL_PPO__BETA",
    "length": "the reward was won by length: labels in which the shorter answer wins, or a lower KL budget",
}
"""By gate, for verdicts that don't say themselves what would change them."""


def advice(gates: Iterable[GateResult]) -> list[str]:
    """A line for each gate that failed: what was measured, and what would change it."""
    lines: list[str] = []
    for gate in gates:
        if not gate.passed:
            change = getattr(gate, "remedy", "") or ADVICE.get(gate.name)
            lines.append(f"{gate.name}: {gate.detail}" + (f"; what helps: {change}" if change else ""))
    return lines


def next_step(outcome: Outcome | None) -> str:
    """What somebody may do about a cycle, or nothing."""
    if outcome is None:
        return "it goes on when the trainer runs, or by `thumbwheel cycles run`"
    if outcome.status is CycleStatus.AWAITING_APPROVAL:
        return f"`thumbwheel cycles approve {outcome.cycle_id}` or `thumbwheel cycles decline {outcome.cycle_id}`"
    if outcome.status is CycleStatus.FAILED and not outcome.conclusive:
        return "its labels are tried again by the next cycle"
    if outcome.status is CycleStatus.FAILED:
        return "its labels are not tried again by themselves; `thumbwheel cycles run` does"
    return ""
