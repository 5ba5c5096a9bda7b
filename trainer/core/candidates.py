"""Which of a training's states is kept: by what the judge says of it, not by the reward that was trained on.

Every iteration's rollouts were drawn by the state before its update, so the judge's opinion of them costs nothing more.
One batch of answers is a noisy sample, of other prompts each time; so a state's score is the mean over itself and its
neighbours, and training ends where the judge's score has fallen for good while the reward may still be rising: that is
what over-optimization looks like from inside (Gao et al. 2022, 2210.10760).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Candidate(Generic[S]):
    """A state of the policy as it was measured before an update."""

    iteration: int
    state: S
    reward: float
    kl: float
    costs: Mapping[str, float]
    kept_limits: bool
    judged: float | None
    """The judge's mean score of its answers; None without a judge."""
    judged_error: float = 0.0
    """Standard error of that mean."""


@dataclass
class Candidates(Generic[S]):
    """The states of one training, in order."""

    every: list[Candidate[S]] = field(default_factory=list[Candidate[S]])

    def add(self, candidate: Candidate[S]) -> None:
        """One more."""
        self.every.append(candidate)

    def best(self) -> Candidate[S] | None:
        """The one to keep: of those within their limits the best judged, or without a judge the last.

        None where there is none within its limits.
        """
        fit = [c for c in self.every if c.kept_limits]
        if not fit or any(c.judged is None for c in fit):
            return fit[-1] if fit else None
        # The later one of equals: it has learned more.
        return max(fit, key=lambda c: (self._smoothed(self.every.index(c)), c.iteration))

    def turned(self, patience: int) -> bool:
        """Whether the judge has liked each of the last `patience` states less than the best, by more than chance.

        More than chance: two standard errors of the difference. False without a judge.
        """
        judged = [c for c in self.every if c.judged is not None]
        if patience < 1 or len(judged) <= patience:
            return False
        top = max(judged[:-patience], key=lambda c: c.judged or 0.0)
        return all(_clearly_below(c, top) for c in judged[-patience:])

    def _smoothed(self, place: int) -> float:
        return smoothed([c.judged for c in self.every], place)


def smoothed(judged: Sequence[float | None], place: int) -> float:
    """The mean over a place and its two neighbours, as far as there are some."""
    near = [value for value in judged[max(0, place - 1) : place + 2] if value is not None]
    return sum(near) / len(near) if near else -math.inf


def _clearly_below(one: "Candidate[S]", top: "Candidate[S]") -> bool:
    if one.judged is None or top.judged is None:
        return False
    return one.judged < top.judged - 2 * math.hypot(one.judged_error, top.judged_error)
