"""Shares with their intervals: accuracies, differences of two methods on the same cases, and areas under a curve.

Shapes: K cases, G groups (prompts) that are drawn again as a whole.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 2000
BOOTSTRAP_CHUNK = 4_000_000
"""Draws that are held at once."""


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval and the number of cases behind it; a difference may be below zero."""

    mean: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int) -> Estimate:
    """Wilson score interval at 95 %; `successes` may hold halves for ties."""
    if n < 1:
        raise ValueError("an interval needs one case at least")
    z = 1.959964
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return Estimate(p, max(0.0, center - half), min(1.0, center + half), n)


def hits(margins_K: Tensor, labels_K: Tensor) -> Tensor:
    """1 for a margin on the label's side, 0 for one on the other, 0.5 for a margin of exactly zero."""
    right = torch.where(labels_K > 0.5, margins_K > 0, margins_K < 0)
    return right.float() + 0.5 * (margins_K == 0).float()


def accuracy(margins_K: Tensor, labels_K: Tensor) -> Estimate | None:
    """Share of margins on the label's side; None without cases."""
    if not len(margins_K):
        return None
    return wilson(float(hits(margins_K, labels_K).sum()), len(margins_K))


def mean_over_groups(
    values_K: Tensor, groups_K: Tensor, *, weights_K: Tensor | None = None, seed: int = 0
) -> Estimate | None:
    """The mean of `values_K` with a percentile bootstrap over groups: cases of one prompt share its difficulty.

    A paired comparison of two methods is the mean of their differences, case by case. None without cases.
    """
    if not len(values_K):
        return None
    weight_K = torch.ones(len(values_K)).double() if weights_K is None else weights_K.double()
    _, number_K = groups_K.unique(return_inverse=True)
    n_groups = int(number_K.max()) + 1
    sums_G = torch.zeros(n_groups, dtype=torch.float64).index_add_(0, number_K, values_K.double() * weight_K)
    counts_G = torch.zeros(n_groups, dtype=torch.float64).index_add_(0, number_K, weight_K)
    drawn = _resampled(torch.stack([sums_G, counts_G], 1), seed)
    low, high = _percentiles(drawn[:, 0] / drawn[:, 1])
    return Estimate(float((values_K.double() * weight_K).sum() / weight_K.sum()), low, high, len(values_K))


def _resampled(rows_GC: Tensor, seed: int) -> Tensor:
    """Column sums of `RESAMPLES` bootstrap samples of the rows."""
    generator = torch.Generator().manual_seed(seed)
    n, parts = len(rows_GC), list[Tensor]()
    at_once = max(1, BOOTSTRAP_CHUNK // n)
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        parts.append(rows_GC[torch.randint(n, (count, n), generator=generator)].sum(1))
    return torch.cat(parts)


def _percentiles(values: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def area_under_curve(scores_K: Tensor, labels_K: Tensor) -> Estimate | None:
    """P(score of a positive > score of a negative), ties half; Hanley & McNeil's (1982) standard error, at 95 %.

    None unless both classes are there. `n` counts the positives, which are the scarcer ones.
    """
    positive, negative = scores_K[labels_K > 0.5], scores_K[labels_K <= 0.5]
    n, m = len(positive), len(negative)
    if not n or not m:
        return None
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, positive.contiguous(), right=True)
    area = float((below + up_to).double().sum()) / (2 * n * m)
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    half = 1.959964 * max(0.0, variance) ** 0.5
    return Estimate(area, max(0.0, area - half), min(1.0, area + half), n)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; 0 where one of them doesn't vary."""
    if len(a) < 2 or float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
