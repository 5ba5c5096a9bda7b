"""What a version must show before it may be served. Every gate is recorded with its figure, interval and threshold.

A gate that has too few cases for an interval is lenient, and says so in its detail: it asks for a point estimate that
is not on the wrong side. One that has no case at all fails: what was not measured is not known to be good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.versions import GateResult


@dataclass(frozen=True)
class GateThresholds:
    """Thresholds with their reasons."""

    reward_accuracy: float = 0.5
    """Chance. A reward model below it would teach the opposite of what people said."""
    enough_cases: int = 200
    """From here on the interval's lower end must be above chance. People who err in a fifth of cases cap the accuracy
    at 0.8, so a useful model is right in 0.6 of their labels; 200 are what tells 0.57 from chance."""
    win_rate: float = 0.5
    """Do no harm: on held-out prompts the judge must not prefer the version that is served now."""
    win_rate_low: float = 0.4
    """The interval's lower end: with 64 prompts a truly equal version has it near 0.38, one a little better passes."""
    kl_slack: float = 1.25
    """Times PPO's own budget, because KL is measured here on other prompts than those it was held to."""
    shortest: float = 0.5
    longest: float = 2.0
    """Mean length as a share of the parent's: beyond it, the reward was won by length."""


@dataclass(frozen=True)
class Share:
    """A share of cases with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Candidate:
    """What was measured of a new version. Lengths are mean tokens an answer, KL nats an answer against the base.

    `reward_model` and `judge` are accuracies on labels that they have not seen; None where there were none.
    """

    reward_model: Share | None
    judge: Share | None
    win_rate_vs_parent: Share
    kl: float
    kl_budget: float
    length: float
    parent_length: float
    figures: Mapping[str, float]


def judge_candidate(candidate: Candidate, thresholds: GateThresholds) -> tuple[GateResult, ...]:
    """Every gate's verdict."""
    return (
        finite(candidate.figures),
        accuracy("reward_model", candidate.reward_model, thresholds),
        accuracy("judge", candidate.judge, thresholds),
        win_rate(candidate.win_rate_vs_parent, thresholds),
        kl(candidate.kl, candidate.kl_budget, thresholds),
        length(candidate.length, candidate.parent_length, thresholds),
    )


def passed(gates: Sequence[GateResult]) -> bool:
    """Whether all of them held, and there were some."""
    return bool(gates) and all(gate.passed for gate in gates)


def refusal(gates: Sequence[GateResult]) -> str:
    """One line on why a version is refused; empty where it is not."""
    return "; ".join(f"{gate.name}: {gate.detail}" for gate in gates if not gate.passed)


def finite(figures: Mapping[str, float]) -> GateResult:
    """No figure is NaN or infinite."""
    bad = sorted(name for name, value in figures.items() if not math.isfinite(value))
    detail = f"not finite: {', '.join(bad)}" if bad else f"{len(figures)} figures are finite"
    return GateResult(name="finite", passed=not bad, value=float(len(bad)), threshold=0.0, detail=detail)


def accuracy(name: str, share: Share | None, thresholds: GateThresholds) -> GateResult:
    """A model of people's labels is better than chance on labels it has not seen."""
    wanted = thresholds.reward_accuracy
    if share is None or share.n == 0:
        detail = "no labels to check it on: collect feedback on more prompts"
        return GateResult(name=name, passed=False, value=0.0, threshold=wanted, detail=detail)
    strict = share.n >= thresholds.enough_cases
    good = share.low > wanted if strict else share.mean >= wanted
    rule = "interval above chance" if strict else f"point only, below {thresholds.enough_cases} cases"
    return GateResult(
        name=name,
        passed=good,
        value=share.mean,
        low=share.low,
        high=share.high,
        threshold=wanted,
        detail=f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}] on {share.n} labels ({rule})",
    )


def win_rate(share: Share, thresholds: GateThresholds) -> GateResult:
    """The judge does not prefer the parent's answers."""
    good = share.mean >= thresholds.win_rate and share.low >= thresholds.win_rate_low
    return GateResult(
        name="win_rate",
        passed=good,
        value=_known(share.mean),
        low=_known(share.low),
        high=_known(share.high),
        threshold=thresholds.win_rate,
        detail=f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}] against the parent on {share.n} prompts; "
        f"asked for {thresholds.win_rate:.2f} and a lower end of {thresholds.win_rate_low:.2f}",
    )


def kl(value: float, budget: float, thresholds: GateThresholds) -> GateResult:
    """The version has not moved too far from the base."""
    limit = budget * thresholds.kl_slack
    detail = f"{value:.2f} nats an answer against the base, at most {limit:.2f}"
    return GateResult(name="kl", passed=value <= limit, value=_known(value), threshold=limit, detail=detail)


def length(mean: float, parent: float, thresholds: GateThresholds) -> GateResult:
    """Answers are neither much longer nor much shorter than the parent's."""
    ratio = mean / max(parent, 1.0)
    good = thresholds.shortest <= ratio <= thresholds.longest
    broken = thresholds.shortest if ratio < thresholds.shortest else thresholds.longest
    detail = (
        f"{mean:.1f} tokens an answer, the parent's {parent:.1f}: {ratio:.2f} of it, "
        f"allowed {thresholds.shortest:.2f} to {thresholds.longest:.2f}"
    )
    return GateResult(name="length", passed=good, value=_known(ratio), threshold=broken, detail=detail)


def _known(value: float) -> float:
    """Events carry no NaN; the gate `finite` has failed by then, and -1 is outside every figure's range."""
    return value if math.isfinite(value) else -1.0
