"""Limits that a policy is held to, each by a multiplier of its own.

Implemented: the PID form of the Lagrangian method (Stooke, Achiam and Abbeel 2020, 2007.03964, algorithm 2): the
integral alone is the usual dual ascent, which overshoots; the proportional part answers at once, the derivative brakes
a cost that rises. What is over its limit makes its multiplier grow, what has slack lets it fall back to zero.
Left out on purpose: a critic for each cost. Rewards and costs are mixed before the advantages are made, and both are
linear in them, so one critic of the mixture learns the same.

All costs are in units of their own scale (`Limit.scale`), so that one set of gains serves nats, tokens and shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Gains:
    """The PID controller's gains, in reward (standard deviations) for a cost that is its scale above its limit."""

    proportional: float = 1.0
    integral: float = 0.25
    derivative: float = 0.5
    smoothing: float = 0.5
    """Weight of the past in the smoothed cost that the proportional and the derivative part look at."""
    most: float = 10.0
    """No multiplier is larger: beyond it the reward counts for nothing, and more would only lengthen the way back."""

    def __post_init__(self) -> None:
        if min(self.proportional, self.integral, self.derivative, self.most) < 0 or not 0 <= self.smoothing < 1:
            raise ValueError("gains must not be negative, smoothing must be at least 0 and below 1")


@dataclass(frozen=True)
class Limit:
    """The mean cost of an answer shall not be above `threshold`. Both are in the cost's own unit, `scale` too."""

    name: str
    threshold: float
    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"the scale of the limit {self.name!r} must be above 0")

    def kept(self, cost: float, *, slack: float = 0.0) -> bool:
        """Whether a cost is within the limit, or above it by at most `slack` scales. NaN is not."""
        return cost <= self.threshold + slack * self.scale


@dataclass(frozen=True)
class Multiplier:
    """What a limit weighs in the reward: `value` standard deviations of reward for each scale of cost."""

    limit: Limit
    gains: Gains
    value: float = 0.0
    accumulated: float = 0.0
    """The integral part; never below zero, so that slack saved up earlier excuses nothing later."""
    smoothed: float | None = None
    """The smoothed error, in scales; None before the first cost."""

    def after(self, cost: float) -> "Multiplier":
        """The multiplier once a mean cost was measured."""
        gains = self.gains
        error = (cost - self.limit.threshold) / self.limit.scale
        before = error if self.smoothed is None else self.smoothed
        smoothed = gains.smoothing * before + (1 - gains.smoothing) * error
        accumulated = min(max(self.accumulated + gains.integral * error, 0.0), gains.most)
        rising = max(0.0, smoothed - before)
        value = gains.proportional * smoothed + accumulated + gains.derivative * rising
        return replace(self, value=min(max(value, 0.0), gains.most), accumulated=accumulated, smoothed=smoothed)

    @property
    def per_unit(self) -> float:
        """The same for each unit of the cost."""
        return self.value / self.limit.scale


def start(limits: Sequence[Limit], gains: Gains) -> tuple[Multiplier, ...]:
    """Multipliers of zero."""
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"each limit needs a name of its own, got {', '.join(names)}")
    return tuple(Multiplier(limit, gains) for limit in limits)


def step(multipliers: Sequence[Multiplier], costs: Mapping[str, float]) -> tuple[Multiplier, ...]:
    """All multipliers after the mean costs of one batch, by name. One whose cost was not measured stays."""
    return tuple(m.after(costs[m.limit.name]) if m.limit.name in costs else m for m in multipliers)


def values(multipliers: Sequence[Multiplier]) -> dict[str, float]:
    """The multipliers by name, for logs."""
    return {m.limit.name: m.value for m in multipliers}


def total(multipliers: Sequence[Multiplier]) -> float:
    """1 + the sum of all: what the mixture of reward and costs is divided by, so that its size stays that of a reward.

    A = (A_R - sum lambda A_C) / (1 + sum lambda), as in Safe RLHF (2310.12773).
    """
    return 1.0 + sum(m.value for m in multipliers)


def broken(limits: Sequence[Limit], costs: Mapping[str, float], *, slack: float = 0.0) -> list[str]:
    """Names of the limits that are not kept; one whose cost is unknown is not counted."""
    return [m.name for m in limits if m.name in costs and not m.kept(costs[m.name], slack=slack)]
