"""Whether scores of production are those that the reward model was fitted on.

The population stability index over the ten equal shares of the training answers' scores:
PSI = sum (p - 0.1) ln (p / 0.1), p the share of production in each. By the custom of credit scoring below 0.1 is no
change to speak of, and above 0.25 a large one. Of n answers from the same distribution n * PSI is about chi-squared
with nine degrees of freedom (its 95 % point is 16.9), so that a few answers say little: below 16.9 / n it is noise.

Shapes: N answers, Q = 11 quantiles.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass

import torch
from torch import Tensor

SMALL, LARGE = 0.1, 0.25
CHI_SQUARED_95 = {1: 3.841, 2: 5.991, 3: 7.815, 4: 9.488, 5: 11.070, 6: 12.592, 7: 14.067, 8: 15.507, 9: 16.919}


@dataclass(frozen=True)
class Drift:
    """The index, and what it means in words."""

    psi: float
    meaning: str


def drift(scores_N: Tensor, quantiles_Q: Tensor) -> Drift | None:
    """Compare mean scores with the quantiles of the training answers'; None where there is nothing to compare."""
    edges = quantiles_Q[1:-1].unique()
    if not len(scores_N) or not bool(quantiles_Q.isfinite().all()) or float(quantiles_Q[0]) == float(quantiles_Q[-1]):
        return None
    bins = len(edges) + 1
    # Where training scores are tied, shares between equal quantiles fall into one bin.
    ends = torch.searchsorted(quantiles_Q[1:-1].contiguous(), edges.contiguous(), right=True).double()
    expected = torch.diff(torch.cat([torch.zeros(1), ends, torch.tensor([len(quantiles_Q) - 1.0])]).double())
    expected = expected / (len(quantiles_Q) - 1)
    counts = torch.bincount(torch.searchsorted(edges.contiguous(), scores_N.contiguous()), minlength=bins).double()
    found = (counts + 0.5) / (counts.sum() + 0.5 * bins)  # half an answer a bin: an empty one must not be infinite
    psi = float(((found - expected) * (found / expected).log()).sum())
    return Drift(psi, _meaning(psi, CHI_SQUARED_95[bins - 1] / len(scores_N)))


def _meaning(psi: float, noise: float) -> str:
    if psi <= noise:
        return "within chance"
    if psi < SMALL:
        return "a slight change"
    return "a moderate change" if psi < LARGE else "a large change: what production answers is not what was judged"
