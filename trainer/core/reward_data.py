"""What the reward model learns from, as tensors: features of answers, and who said what of them.

Shapes: N answers, F features, P pairs, R ratings.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

UNKNOWN_RATER = -1
LARGEST_FEATURE = 1e15
"""Beyond it squares overflow in fp32: such a feature is as broken as an infinite one."""


def _no_rows() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class LabelDomains:
    """The domain (`trainer.core.domains`) of each label by name, "" for none."""

    names_P: tuple[str, ...]
    names_R: tuple[str, ...]
    others_P: Tensor
    """The second person behind a pair, numbered like the raters; `UNKNOWN_RATER` where there is none."""


@dataclass(frozen=True)
class OwnLabels:
    """What the domains that get weights of their own learn from: made by `reward_domains.prepared`."""

    names: tuple[str, ...]
    domains_N: Tensor
    """Number of each answer's domain in `names`, -1 for the others. All labels on an answer are of its domain."""
    weights_P: Tensor
    """The labels' weights with nobody above twice a fair share of their domain."""
    weights_R: Tensor


@dataclass(frozen=True)
class RewardData:
    """Features of N answers and what people said of them. Row numbers point into `features_NF`.

    `groups_N` numbers the prompts: answers to one prompt share a group and are bootstrapped and held out together.
    `lengths_N` is the number of words. All tensors are on the CPU.
    """

    features_NF: Tensor
    lengths_N: Tensor
    groups_N: Tensor
    pairs_P2: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    """Rows of the chosen and of the rejected answer."""
    pair_weights_P: Tensor = field(default_factory=lambda: torch.zeros(0))
    rated_R: Tensor = field(default_factory=_no_rows)
    """Rows of the rated answers; an answer may be rated by several people."""
    labels_R: Tensor = field(default_factory=lambda: torch.zeros(0))
    """1 for a thumb up, 0 for a thumb down."""
    rating_weights_R: Tensor = field(default_factory=lambda: torch.zeros(0))
    raters_R: Tensor = field(default_factory=_no_rows)
    """Number of the person behind each rating, `UNKNOWN_RATER` where nobody knows; empty: nobody is known."""
    raters_P: Tensor = field(default_factory=_no_rows)
    """The same of each pair, by the same numbers."""
    sources_P: tuple[str, ...] = ()
    """Where each pair comes from (labelers, corrections, ...), for the report; empty: not told."""
    segments_P: tuple[str, ...] = ()
    """The segment that each pair's answers were served in, for the report; empty: not told."""
    segments_R: tuple[str, ...] = ()
    domains: LabelDomains | None = None
    """None where domains are not told apart."""
    own: OwnLabels | None = None
    """None before `reward_domains.prepared`, and where no domain gets weights of its own."""

    def __len__(self) -> int:
        return len(self.pairs_P2) + len(self.rated_R)

    def raters(self) -> Tensor:
        """`raters_R` with everybody unknown where it was not given."""
        return _known(self.raters_R, len(self.rated_R))

    def pair_raters(self) -> Tensor:
        """The same of `raters_P`."""
        return _known(self.raters_P, len(self.pairs_P2))


def _known(raters_K: Tensor, n: int) -> Tensor:
    return raters_K if len(raters_K) else torch.full((n,), UNKNOWN_RATER)


def keep(data: RewardData, pairs_P: Tensor, rated_R: Tensor) -> RewardData:
    """The same answers with some of the labels (boolean masks)."""
    return replace(
        data,
        pairs_P2=data.pairs_P2[pairs_P],
        pair_weights_P=data.pair_weights_P[pairs_P],
        rated_R=data.rated_R[rated_R],
        labels_R=data.labels_R[rated_R],
        rating_weights_R=data.rating_weights_R[rated_R],
        raters_R=data.raters()[rated_R],
        raters_P=data.pair_raters()[pairs_P],
        sources_P=_some(data.sources_P, pairs_P),
        segments_P=_some(data.segments_P, pairs_P),
        segments_R=_some(data.segments_R, rated_R),
        domains=None if data.domains is None else _domains(data.domains, pairs_P, rated_R),
        own=None if data.own is None else _own(data.own, pairs_P, rated_R),
    )


def _domains(domains: LabelDomains, pairs_P: Tensor, rated_R: Tensor) -> LabelDomains:
    names = _some(domains.names_P, pairs_P), _some(domains.names_R, rated_R)
    return LabelDomains(*names, domains.others_P[pairs_P])


def _own(own: OwnLabels, pairs_P: Tensor, rated_R: Tensor) -> OwnLabels:
    return replace(own, weights_P=own.weights_P[pairs_P], weights_R=own.weights_R[rated_R])


def _some(names: tuple[str, ...], mask: Tensor) -> tuple[str, ...]:
    return tuple(name for name, kept in zip(names, mask.tolist(), strict=True) if kept) if names else ()


def of_answers(data: RewardData, keep_N: Tensor) -> RewardData:
    """The labels on these answers alone."""
    return keep(data, keep_N[data.pairs_P2].all(1), keep_N[data.rated_R])


def finite(data: RewardData) -> tuple[RewardData, int]:
    """The labels whose features and weights are finite numbers (weights not below 0), and how many are not.

    A single NaN would make every head NaN. Of the answers that no label is left on, the features become 0.
    """
    sound_N = (data.features_NF.isfinite() & (data.features_NF.abs() < LARGEST_FEATURE)).all(1)
    pairs_P = sound_N[data.pairs_P2].all(1) & _sound(data.pair_weights_P)
    rated_R = sound_N[data.rated_R] & _sound(data.rating_weights_R) & data.labels_R.isfinite()
    dropped = int((~pairs_P).sum() + (~rated_R).sum())
    if not dropped and bool(sound_N.all()):
        return data, 0
    features_NF = torch.where(sound_N[:, None], data.features_NF, torch.zeros(()))
    return keep(replace(data, features_NF=features_NF), pairs_P, rated_R), dropped


def _sound(weights: Tensor) -> Tensor:
    return weights.isfinite() & (weights >= 0)


def without_one_sided(data: RewardData, fewest: int) -> tuple[RewardData, int]:
    """Leave out the thumbs of people who gave `fewest` or more and never once the other one; how many thumbs.

    Somebody who thumbs everything up tells about themselves and nothing about answers: with an offset of their own,
    freely fitted, the gradient of each of their thumbs is zero. A shrunk offset comes near to that, this is exact.
    """
    raters_R = data.raters()
    if not len(raters_R) or int(raters_R.max()) < 0:
        return data, 0
    n = int(raters_R.max()) + 1
    known = raters_R >= 0
    ups = torch.zeros(n).index_add_(0, raters_R[known], (data.labels_R[known] > 0.5).float())
    all_ = torch.zeros(n).index_add_(0, raters_R[known], torch.ones(int(known.sum())))
    one_sided = (all_ >= fewest) & ((ups == 0) | (ups == all_))
    dropped_R = known & one_sided[raters_R.clamp(min=0)]
    return keep(data, torch.ones(len(data.pairs_P2), dtype=torch.bool), ~dropped_R), int(dropped_R.sum())


def folds_of(groups_N: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """The fold N of each answer: whole groups, dealt out at random to folds of like size."""
    present = groups_N.unique()
    fold_of_group = torch.zeros(int(groups_N.max()) + 1, dtype=torch.long)
    fold_of_group[present[torch.randperm(len(present), generator=generator)]] = torch.arange(len(present)) % folds
    return fold_of_group[groups_N]
