"""Results of cycles that never were."""

from typing import Any

from infra.lab.results import Collected, CycleResult, Range
from schemas.cycles import CycleStatus
from schemas.versions import GateResult

CUT = "kl: 9.00 nats an answer against the base, at most 7.50"


def rate(value: float, low: float, high: float) -> Range:
    return Range(value=value, low=low, high=high, n=80)


def gate(name: str, passed: bool) -> GateResult:
    return GateResult(name=name, passed=passed, value=1.0, threshold=0.5)


def promoted(seed: int, cycle: int, **changes: Any) -> CycleResult:
    """A cycle whose version serves: better than the base (70 %), and than its parent."""
    given: dict[str, Any] = {
        "seed": seed, "cycle": cycle, "cycle_id": f"c{seed}{cycle}", "status": CycleStatus.FINISHED, "reason": "",
        "parent": "base", "version": f"v{cycle}", "serving": f"v{cycle}", "promoted": True,
        "collected": Collected(answers=100, feedback={"thumbs_up": 40}, labels=0), "labels": 100,
        "labels_used": {"train": 50, "held_out": 20, "judge": 30}, "labels_dropped": {},
        "reward_accuracy": rate(0.7, 0.6, 0.8), "length_baseline": 0.55, "kl": 2.0, "kl_limit": 7.5,
        "judge_vs_parent": rate(0.6, 0.5, 0.7), "ppo_first_reward": 0.0, "ppo_reward": 1.0,
        "vs_base": rate(0.7, 0.6, 0.8), "vs_parent": rate(0.6, 0.52, 0.68), "vs_base_by_segment": {},
        "regression": "no", "serving_vs_base": rate(0.7, 0.6, 0.8), "serving_by_prompt": (0.6, 0.8),
        "words": 9.0, "parent_words": 8.0,
        "gates": (gate("judge", True), gate("kl", True)), "seconds": 10.0,
    }  # fmt: skip
    return CycleResult(**(given | changes))


def refused(seed: int, cycle: int, **changes: Any) -> CycleResult:
    """A cycle whose version broke its KL gate: the base serves on."""
    given: dict[str, Any] = {
        "status": CycleStatus.REFUSED, "reason": CUT, "serving": "base", "promoted": False, "regression": None,
        "serving_vs_base": None, "serving_by_prompt": (), "gates": (gate("judge", True), gate("kl", False)),
    }  # fmt: skip
    return promoted(seed, cycle, **(given | changes))


def failed(seed: int, cycle: int) -> CycleResult:
    """A cycle that made no version."""
    none = ("version", "reward_accuracy", "length_baseline", "kl", "kl_limit", "judge_vs_parent", "words")
    more = ("ppo_first_reward", "ppo_reward", "vs_base", "vs_parent")
    return refused(
        seed,
        cycle,
        status=CycleStatus.FAILED,
        reason="there are 8 labels in all and 20 are needed: collect more feedback",
        gates=(),
        labels_used={},
        **dict.fromkeys((*none, *more)),
    )
