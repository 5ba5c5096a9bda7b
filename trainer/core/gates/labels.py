"""The reward model on labels that it has not seen, label by label: calibration, and order against length.

Shapes: N answers, K labels, B bins, R resamples, G prompts.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.ordering import thumb_values
from trainer.core.reward import RewardData

RESAMPLES = 2000
BINS = 10


@dataclass(frozen=True)
class Share:
    """A share of cases with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, and how far it is beyond that of a model that is calibrated on as many labels."""

    error: float
    excess: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class LabelOutcomes:
    """Of each held-out label: was the reward model right, how sure was it, does it order answers better than length."""

    right_K: Tensor
    """1 right, 0 wrong, 0.5 undecided."""
    ordered_K: Tensor
    length_ordered_K: Tensor
    """The model's order and that of the length rule: of pairs 1, 0 or 0.5; of thumbs see `trainer.core.ordering`."""
    confidence_K: Tensor
    """Probability that the model gave to the side it chose: 0.5 to 1."""
    groups_K: Tensor

    def beyond_length(self, seed: int) -> Share | None:
        """How much more often the model has people's order than the length rule, with an interval over prompts."""
        if not len(self.right_K):
            return None
        difference_K = (self.ordered_K - self.length_ordered_K).double()
        _, index_K = self.groups_K.unique(return_inverse=True)
        sums_G = torch.zeros(int(index_K.max()) + 1, dtype=torch.float64).index_add_(0, index_K, difference_K)
        counts_G = index_K.bincount().double()
        generator = torch.Generator().manual_seed(seed)
        drawn_RG = torch.randint(len(sums_G), (RESAMPLES, len(sums_G)), generator=generator)
        low, high = _ends(sums_G[drawn_RG].sum(1) / counts_G[drawn_RG].sum(1))
        return Share(float(difference_K.mean()), low, high, len(difference_K))

    def calibration(self, seed: int) -> Calibration | None:
        """The calibration error beyond chance's share of it: labels drawn anew from the model's own confidence show
        what a calibrated model would have on these very labels."""
        if not len(self.right_K):
            return None
        generator = torch.Generator().manual_seed(seed)
        confidence_K = self.confidence_K.double()
        drawn_RK = torch.rand(RESAMPLES, len(confidence_K), generator=generator, dtype=torch.float64) < confidence_K
        error = float(_gap(confidence_K, self.right_K.double()[None])[0])
        by_chance_R = _gap(confidence_K, drawn_RK.double())
        low, high = _ends(by_chance_R)
        return Calibration(error, error - float(by_chance_R.mean()), error - high, error - low, len(confidence_K))


def outcomes(scores_N: Tensor, held_out: RewardData, train: RewardData) -> LabelOutcomes:
    """Pairs or thumbs of `held_out`, whichever are more. `train` decides whether longer or shorter is taken for better,
    so that the length rule too is judged on labels it has not seen."""
    if len(held_out.pairs_P2) >= len(held_out.rated_R):
        chosen_P, rejected_P = held_out.pairs_P2.unbind(1)
        margins_K, truth_K = scores_N[chosen_P] - scores_N[rejected_P], torch.ones(len(chosen_P))
        length_K = _longer(held_out) * _sign(_longer(train), torch.ones(len(train.pairs_P2)))
        groups_K = held_out.groups_N[chosen_P]
    else:
        margins_K, truth_K = scores_N[held_out.rated_R], held_out.labels_R
        middle = float(train.lengths_N.float().median()) if len(train.lengths_N) else 0.0
        sign = _sign(train.lengths_N[train.rated_R].float() - middle, train.labels_R)
        length_K = (held_out.lengths_N[held_out.rated_R].float() - middle) * sign
        groups_K = held_out.groups_N[held_out.rated_R]
    probability_K = margins_K.sigmoid()
    confidence_K = torch.maximum(probability_K, 1 - probability_K)
    pairs = len(held_out.pairs_P2) >= len(held_out.rated_R)
    ordered_K, length_ordered_K = (_ordered(m, truth_K, pairs=pairs) for m in (margins_K, length_K))
    return LabelOutcomes(_right(margins_K, truth_K), ordered_K, length_ordered_K, confidence_K, groups_K)


def effective(weights: Iterable[tuple[Hashable, float]]) -> float:
    """Kish's effective number of clusters: (sum w)^2 / sum w^2, where w is a cluster's weight (Kish 1965, 11.7).

    `weights` gives each case's cluster (a prompt, a person) and its weight. 0 where there is no weight.
    """
    sums: dict[Hashable, float] = defaultdict(float)
    for cluster, weight in weights:
        sums[cluster] += weight
    squares = sum(w * w for w in sums.values())
    return sum(sums.values()) ** 2 / squares if squares > 0 else 0.0


def _ordered(margins_K: Tensor, truth_K: Tensor, *, pairs: bool) -> Tensor:
    """Thumbs of one kind only have no order among themselves: of these, whether each is right."""
    values_K = truth_K[:0] if pairs else thumb_values(margins_K, truth_K, torch.ones(len(truth_K)))
    return values_K if len(values_K) else _right(margins_K, truth_K)


def _longer(data: RewardData) -> Tensor:
    chosen_P, rejected_P = data.pairs_P2.unbind(1)
    return (data.lengths_N[chosen_P] - data.lengths_N[rejected_P]).float()


def _sign(margins_K: Tensor, truth_K: Tensor) -> float:
    """1 where longer is right at least as often as not, else -1."""
    return 1.0 if not len(margins_K) or float(_right(margins_K, truth_K).mean()) >= 0.5 else -1.0


def _right(margins_K: Tensor, truth_K: Tensor) -> Tensor:
    sided_K = torch.where(truth_K > 0.5, margins_K, -margins_K)
    return (sided_K > 0).float() + 0.5 * (sided_K == 0).float()


def _gap(confidence_K: Tensor, right_RK: Tensor) -> Tensor:
    """Mean gap R of confidence and accuracy over ten bins of confidence, by number of cases."""
    bins_K = ((confidence_K - 0.5) * 2 * BINS).long().clamp(0, BINS - 1)
    gaps_RB = torch.zeros(len(right_RK), BINS, dtype=torch.float64)
    gaps_RB.index_add_(1, bins_K, right_RK - confidence_K)
    return gaps_RB.abs().sum(1) / len(confidence_K)


def _ends(values_R: Tensor) -> tuple[float, float]:
    ends = torch.quantile(values_R, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(ends[0]), float(ends[1])
