"""How often each rater is right, from where several judged the same thing: Dawid & Skene (1979).

"Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics 28(1), 20-28,
doi:10.2307/2346806. Items I have an unknown true class K; rater R says class l of an item of class k with probability
confusion[R, k, l]. The E step (their equation 2.5) gives each item's class from what was said of it, the M step
(2.3, 2.4) the confusion matrices and class shares from that.

What differs from the paper:
- Maximum a posteriori: `PRIOR_STRENGTH` pseudo-judgements a class, of which `PRIOR` right, so that a rater with two
  judgements stays near the prior instead of going to 0 or 1 (the paper's estimates do). Classes have one each.
- Items whose class is known (gold questions) keep it.
- Items that one rater judged, and of which nothing is known, are left out: they can't tell who is right.
- The start is the share of votes, the order of raters and items is that of their names, and iteration ends when no
  probability moves by more than `TOLERANCE`: the same evidence gives the same numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = 0.8
"""What is believed of an unknown rater. Labelers of InstructGPT agreed with each other 73 % of the time on two answers
(arXiv:2203.02155, section 3.4), as two of accuracy 0.84 do: r^2 + (1 - r)^2; users are taken to be a little worse."""
PRIOR_STRENGTH = 10.0
"""So many judgements the prior is worth, in each class."""
CLASS_PRIOR = 1.0
TOLERANCE = 1e-6
MAX_ITERATIONS = 200
Z_95 = 1.959964
DECISIVE = 2
"""The first two classes are the sides that can be right (down and up; the one text and the other). A third is
"neither", which no row comes of: reliability is not judged by it."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one rater says of one item: a class from 0."""

    rater: str
    item: str
    said: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """The estimated chance of being right, where there is a right side, and its 95 % interval.

    It is the mean over the two sides, so one who always says the same is at a half, however common that side is.
    `items` is on how many it rests.
    """

    mean: float
    low: float
    high: float
    items: int


def reliabilities(
    opinions: Iterable[Opinion], *, truths: Mapping[str, int] | None = None, classes: int = 2
) -> dict[str, Reliability]:
    """By rater, for those who judged something that others judged too, or whose truth is known.

    Opinions are one for each rater and item (of several the last in order of `said` counts).
    """
    known = truths or {}
    kept = _informative(opinions, known)
    if not kept:
        return {}
    raters, items = sorted({o.rater for o in kept}), sorted({o.item for o in kept})
    rater_at, item_at = {r: i for i, r in enumerate(raters)}, {r: i for i, r in enumerate(items)}
    rater_N = np.array([rater_at[o.rater] for o in kept])
    item_N = np.array([item_at[o.item] for o in kept])
    said_N = np.array([o.said for o in kept])
    fixed = {item_at[item]: truth for item, truth in known.items() if item in item_at}
    counts_RKL = _fit(rater_N, item_N, said_N, fixed, shape=(len(raters), len(items), classes))
    judged_R = np.bincount(rater_N, minlength=len(raters))
    columns = (figures.tolist() for figures in (*_read(counts_RKL), judged_R))
    return {rater: Reliability(*figures) for rater, *figures in zip(raters, *columns, strict=True)}


def unknown() -> Reliability:
    """What is believed of a rater who never judged what others judged: the prior alone."""
    mean_R, low_R, high_R = _read(_prior(2)[None])
    return Reliability(float(mean_R[0]), float(low_R[0]), float(high_R[0]), 0)


def weight_of(reliability: float) -> float:
    """What a rater's judgements are worth, where an unknown rater's are worth 1: max(0, 2r - 1) / (2 PRIOR - 1).

    With labels wrong at the rate 1 - r, the expected gradient of a symmetric loss is 2r - 1 times that of clean labels
    (Natarajan et al. 2013, "Learning with noisy labels"): at a half there is nothing to learn. Below a half the
    estimate says "take the opposite"; that is more than such an estimate can carry, so it weighs nothing.
    """
    return max(0.0, 2 * reliability - 1) / (2 * PRIOR - 1)


def _informative(opinions: Iterable[Opinion], truths: Mapping[str, int]) -> list[Opinion]:
    once = {(o.item, o.rater): o for o in sorted(opinions, key=lambda o: (o.item, o.rater, o.said))}
    per_item: dict[str, int] = {}
    for item, _ in once:
        per_item[item] = per_item.get(item, 0) + 1
    return [o for (item, _), o in sorted(once.items()) if per_item[item] > 1 or item in truths]


def _fit(
    rater_N: NDArray[np.int64],
    item_N: NDArray[np.int64],
    said_N: NDArray[np.int64],
    fixed: Mapping[int, int],
    *,
    shape: tuple[int, int, int],
) -> Floats:
    """The expected counts behind each rater's confusion matrix at the mode, prior included: counts_RKL."""
    raters, items, classes = shape
    prior_KL = _prior(classes)
    truth_IK = np.zeros((items, classes))
    np.add.at(truth_IK, (item_N, said_N), 1.0)
    truth_IK /= truth_IK.sum(1, keepdims=True)
    _clamp(truth_IK, fixed)
    counts_RKL = np.zeros((raters, classes, classes))
    for _ in range(MAX_ITERATIONS):
        counts_RKL = _counted(truth_IK, rater_N, item_N, said_N, shape) + prior_KL
        log_confusion_RKL = np.log(counts_RKL / counts_RKL.sum(2, keepdims=True))
        share_K = truth_IK.sum(0) + CLASS_PRIOR
        log_IK = np.tile(np.log(share_K / share_K.sum()), (items, 1))
        np.add.at(log_IK, item_N, log_confusion_RKL[rater_N, :, said_N])
        renewed_IK = np.exp(log_IK - log_IK.max(1, keepdims=True))
        renewed_IK /= renewed_IK.sum(1, keepdims=True)
        _clamp(renewed_IK, fixed)
        moved = float(np.abs(renewed_IK - truth_IK).max())
        truth_IK = renewed_IK
        if moved < TOLERANCE:
            break
    return counts_RKL


def _prior(classes: int) -> Floats:
    wrong = PRIOR_STRENGTH * (1 - PRIOR) / (classes - 1)
    prior_KL = np.full((classes, classes), wrong)
    np.fill_diagonal(prior_KL, PRIOR_STRENGTH * PRIOR)
    return prior_KL


def _counted(
    truth_IK: Floats,
    rater_N: NDArray[np.int64],
    item_N: NDArray[np.int64],
    said_N: NDArray[np.int64],
    shape: tuple[int, int, int],
) -> Floats:
    """How often, in expectation, each rater said l of an item of class k."""
    raters, _, classes = shape
    counts_RLK = np.zeros((raters, classes, classes))
    np.add.at(counts_RLK, (rater_N, said_N), truth_IK[item_N])
    return counts_RLK.transpose(0, 2, 1)


def _clamp(truth_IK: Floats, fixed: Mapping[int, int]) -> None:
    for item, truth in fixed.items():
        truth_IK[item] = 0.0
        truth_IK[item, truth] = 1.0


def _read(counts_RKL: Floats) -> tuple[Floats, Floats, Floats]:
    """Means and 95 % intervals: the mean of the diagonal over the decisive classes, by the delta method on the logit.

    Each row of counts is read as a Beta distribution of being right; their variances add. The interval stays within
    (0, 1) and is wide where there is little evidence. It takes the items' classes as estimated, so with few raters on
    each item it is somewhat too narrow.
    """
    right_RK = np.diagonal(counts_RKL, axis1=1, axis2=2)[:, :DECISIVE]
    total_RK = counts_RKL.sum(2)[:, :DECISIVE]
    mean_RK = right_RK / total_RK
    mean_R = mean_RK.mean(1)
    deviation_R = np.sqrt((mean_RK * (1 - mean_RK) / (total_RK + 1)).sum(1)) / DECISIVE
    middle_R, spread_R = np.log(mean_R / (1 - mean_R)), Z_95 * deviation_R / (mean_R * (1 - mean_R))
    return mean_R, 1 / (1 + np.exp(spread_R - middle_R)), 1 / (1 + np.exp(-spread_R - middle_R))
