"""A student beside its teacher: quality, latency, size and cost, each as a ratio with an interval where it is one.

Shapes: R resamples, N prompts.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RESAMPLES = 2000


@dataclass(frozen=True)
class Size:
    """How large a model is. `cache_bytes` are those of keys and values that one token in flight holds."""

    parameters: int
    weight_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Timed:
    """How long a model took over one prompt by itself: to the first token, and over the whole answer."""

    first: float
    whole: float
    tokens: int


@dataclass(frozen=True)
class Ratio:
    """Student over teacher, with a 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """Means over the prompts, in seconds."""

    first_token: float
    token: float
    answer: float


@dataclass(frozen=True)
class Latency:
    """Both sides on the same prompts in turns, and their ratios."""

    student: Speed
    teacher: Speed
    first_token: Ratio
    token: Ratio
    answer: Ratio
    prompts: int


def latency(student: Sequence[Timed], teacher: Sequence[Timed], *, seed: int) -> Latency:
    """Aligned by prompt. Intervals are percentile bootstraps over prompts of the ratio of sums."""
    if len(student) != len(teacher) or not student:
        raise ValueError("give as many timings of the student as of the teacher, and one at least")
    return Latency(
        student=_speed(student),
        teacher=_speed(teacher),
        first_token=_ratio([t.first for t in student], [t.first for t in teacher], seed=seed),
        token=_ratio(
            [t.whole for t in student],
            [t.whole for t in teacher],
            ([t.tokens for t in student], [t.tokens for t in teacher]),
            seed=seed,
        ),
        answer=_ratio([t.whole for t in student], [t.whole for t in teacher], seed=seed),
        prompts=len(student),
    )


def _speed(timed: Sequence[Timed]) -> Speed:
    whole = sum(t.whole for t in timed)
    return Speed(sum(t.first for t in timed) / len(timed), whole / sum(t.tokens for t in timed), whole / len(timed))


def _ratio(
    ours: Sequence[float],
    theirs: Sequence[float],
    per: tuple[Sequence[float], Sequence[float]] | None = None,
    *,
    seed: int,
) -> Ratio:
    """Of the sums, or of the sums each divided by that of its own `per`."""
    n = len(ours)
    columns = torch.tensor([ours, theirs, *(per or ([1.0] * n, [1.0] * n))], dtype=torch.float64).clamp_(min=1e-12)
    drawn_RN = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))

    def of(a: torch.Tensor, b: torch.Tensor, per_a: torch.Tensor, per_b: torch.Tensor) -> torch.Tensor:
        return (a.sum(-1) / per_a.sum(-1)) / (b.sum(-1) / per_b.sum(-1))

    mean = float(of(*columns))
    ends = torch.quantile(of(*(c[drawn_RN] for c in columns)), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Ratio(mean, float(ends[0]), float(ends[1]))


def cost_of_thousand(seconds_an_answer: float, price_per_hour: float | None) -> float:
    """Of 1,000 answers, one after the other: money where a price is known, else seconds."""
    seconds = 1000 * seconds_an_answer
    return seconds if price_per_hour is None else seconds * price_per_hour / 3600
