"""New version against its parent on the same cases.

A gate fails where the rise is beyond its margin, AND its 95 % interval (bootstrap over cases) lies above zero, AND the
rise can't be put down to chance when all such gates are looked at together: one-sided sign-flip tests, which are exact
where the versions are equal (then each difference is as likely with the other sign), under Holm's step-down correction
(Holm 1979), which holds for any dependence between gates. A version that is no worse fails any of them in at most
`family_error` of cycles.

That is a test for harm, not a proof that there is none: with few cases only a large rise is seen. Each gate therefore
says which true rise it would notice in four of five cycles, and whether "no more than the margin" is shown.

Shapes: N cases, R resamples.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

RESAMPLES, SIGNS = 2000, 4000
"""Draws of an interval, and of a p-value: the smallest that Holm may ask for is about 0.003."""
EXACT = 12
"""Up to so many differing cases all 2^n signs are tried."""
POWER = 0.8


@dataclass(frozen=True)
class Paired:
    """What one probe measured, case by case; higher is worse. `base` is empty where the parent is the base, or where
    the base was not asked."""

    name: str
    new: tuple[float, ...]
    parent: tuple[float, ...]
    base: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.new) != len(self.parent) or (self.base and len(self.base) != len(self.new)):
            raise ValueError(f"probe {self.name}: give each version one figure for each case")


@dataclass(frozen=True)
class Rise:
    """Mean difference with its 95 % interval, how likely chance alone makes one as large, and what would be seen."""

    mean: float
    low: float
    high: float
    n: int
    p: float
    seen: float
    """A true rise that the test finds with a probability of 0.8 at the level it was asked for."""
    ceiling: float
    """What the true rise is at most. The interval's upper end, but where cases are yes or no, or none differs, at least
    3 / n: that much may be true of what was never seen (the rule of three)."""


def rise(new: Sequence[float], old: Sequence[float], *, seed: int, level: float = 0.05) -> Rise:
    """How much higher `new` is than `old`, aligned by case; `level` is that of the one-sided test. Needs a case."""
    difference_N = torch.tensor(list(new), dtype=torch.float64) - torch.tensor(list(old), dtype=torch.float64)
    if not bool(torch.isfinite(difference_N).all()):
        return Rise(math.nan, math.nan, math.nan, len(difference_N), 0.0, math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    low, high = bootstrap(difference_N, generator)
    mean, n = float(difference_N.mean()), len(difference_N)
    counted = bool(((difference_N == 0) | (difference_N.abs() == 1)).all())
    ceiling = max(high, 3 / n) if counted else high
    return Rise(mean, low, high, n, _sign_flip(difference_N, generator), _seen(difference_N, level), ceiling)


def bootstrap(values_N: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """The 95 % percentile interval of a mean."""
    drawn_RN = torch.randint(len(values_N), (RESAMPLES, len(values_N)), generator=generator)
    ends = torch.quantile(values_N[drawn_RN].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _sign_flip(difference_N: Tensor, generator: torch.Generator) -> float:
    """One-sided p of the sum, over all signs of the differences that are not zero, or over random ones."""
    some_N = difference_N[difference_N != 0]
    n, seen = len(some_N), float(some_N.sum())
    if n == 0:
        return 1.0
    slack = 1e-9 * float(some_N.abs().sum())
    if n <= EXACT:
        flips_RN = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
        sums_R = ((1 - 2 * flips_RN).double() * some_N).sum(1)
        return float((sums_R >= seen - slack).double().mean())
    flips_RN = torch.randint(2, (SIGNS, n), generator=generator)
    sums_R = ((1 - 2 * flips_RN).double() * some_N).sum(1)
    return (1 + int((sums_R >= seen - slack).sum())) / (1 + SIGNS)


def _seen(difference_N: Tensor, level: float) -> float:
    """The rise that would be noticed, from the spread of the differences; at least that of one changed case in 20."""
    normal = NormalDist()
    spread = max(float(difference_N.std(correction=0)), 0.05**0.5 * float(difference_N.abs().max().clamp(max=1.0)))
    spread = spread or 0.05**0.5
    return (normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)) * spread / len(difference_N) ** 0.5


def by_chance(p_values: Sequence[float], error: float) -> list[bool]:
    """Whether each may be chance, by Holm: the k-th smallest of m is none while all up to it are <= error / (m - k)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    chance = [True] * len(p_values)
    for k, i in enumerate(order):
        if p_values[i] > error / (len(p_values) - k):
            break
        chance[i] = False
    return chance
