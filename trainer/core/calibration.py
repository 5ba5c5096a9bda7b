"""Calibration: probabilities that come true as often as they say.

One temperature for the ensemble's mean logit (Guo et al. 2017, 1706.04599, section 4.2), fitted on logits of cases that
the heads have not seen; and the expected calibration error in ten bins of confidence.

Shapes: K cases.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from torch import Tensor

COLDEST, HOTTEST = 0.05, 20.0
PRIOR_CASES = 1.0
"""How many cases the pull of the inverse temperature to 1 weighs: it decides only where there are next to none."""


def fit_temperature(logits_K: Tensor, labels_K: Tensor, weights_K: Tensor) -> float:
    """T that makes `sigmoid(logits / T)` likeliest: the loss is convex in a = 1 / T, so its slope is bisected.

    `labels_K` are 0, 1 or between. 1.0 without cases; held within `COLDEST` and `HOTTEST`, which logits that tell
    nothing (a falls to 0) or that separate the labels (a grows without end) run into.
    """
    if not len(logits_K) or not float(weights_K.sum()) > 0:
        return 1.0
    logits, labels = logits_K.double(), labels_K.double()
    weights = weights_K.double() * (len(logits) / float(weights_K.sum()))

    def slope(a: float) -> float:
        return float((weights * logits * ((a * logits).sigmoid() - labels)).sum()) + PRIOR_CASES * (a - 1.0)

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1.0 / (low * high) ** 0.5


def calibration_error(probs_K: Tensor, truth_K: Tensor) -> float | None:
    """Mean gap of confidence and accuracy over ten bins of confidence, by number of cases; None without cases."""
    if not len(probs_K):
        return None
    confidence = torch.maximum(probs_K, 1 - probs_K)
    right = ((probs_K > 0.5).float() == truth_K).float()
    return _gap(confidence, right, ((confidence - 0.5) * 20).long())


def probability_error(probs_K: Tensor, truth_K: Tensor) -> float | None:
    """The same of a rare event: gap of stated and observed frequency over ten bins of probability."""
    if not len(probs_K):
        return None
    return _gap(probs_K, truth_K.float(), (probs_K * 10).long())


def _gap(stated_K: Tensor, observed_K: Tensor, bins_K: Tensor) -> float:
    gap, bins = 0.0, bins_K.clamp(0, 9)
    for b in range(10):
        here = bins == b
        if bool(here.any()):
            gap += float((stated_K[here].mean() - observed_K[here].mean()).abs() * here.float().mean())
    return gap
