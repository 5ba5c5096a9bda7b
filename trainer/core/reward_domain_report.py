"""What domains' own weights bring: own against common weights, on the same labels that neither has seen.

Shapes: N answers, K labels (pairs, then ratings).
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.estimates import Estimate, hits, mean_over_groups
from trainer.core.reward_data import RewardData
from trainer.core.reward_domains import Crowd


@dataclass(frozen=True)
class Gain:
    """How often scores are right about a domain's labels, by its own weights, by the common ones, and the difference.

    Intervals are bootstraps over prompts; the difference is label by label.
    """

    own: Estimate
    common: Estimate
    difference: Estimate


@dataclass(frozen=True)
class DomainReport:
    """A domain, and what its own weights bring; None where it has none, or no label that they haven't seen."""

    crowd: Crowd
    gain: Gain | None


@dataclass(frozen=True)
class Unseen:
    """Scores N of answers whose prompts the weights have not seen, by own and by common weights, with their labels."""

    own_N: Tensor
    common_N: Tensor
    data: RewardData


def domain_reports(crowds: Sequence[Crowd], parts: Sequence[Unseen]) -> tuple[DomainReport, ...]:
    """Of each domain by name; `parts` have no prompt in common."""
    return tuple(DomainReport(c, gain(parts, (c.name,)) if c.own else None) for c in crowds)


def gain(parts: Sequence[Unseen], names: Sequence[str]) -> Gain | None:
    """Over the labels of these domains together; None without any."""
    cases: list[tuple[Tensor, Tensor, Tensor]] = []
    first = 0
    for part in parts:
        own_K, common_K = (_right(scores_N, part.data) for scores_N in (part.own_N, part.common_N))
        at_K, data = _of(part.data, names), part.data
        prompts_K = data.groups_N[torch.cat([data.pairs_P2[:, 0], data.rated_R])] + first
        cases.append((own_K[at_K], common_K[at_K], prompts_K[at_K]))
        first += int(data.groups_N.max()) + 1 if len(data.groups_N) else 0
    own_K, common_K, prompts_K = (torch.cat(each) for each in zip(*cases, strict=True))
    own, common = mean_over_groups(own_K, prompts_K), mean_over_groups(common_K, prompts_K)
    difference = mean_over_groups(own_K - common_K, prompts_K)
    if own is None or common is None or difference is None:
        return None
    return Gain(own, common, difference)


def _right(scores_N: Tensor, data: RewardData) -> Tensor:
    margins_P = scores_N[data.pairs_P2[:, 0]] - scores_N[data.pairs_P2[:, 1]]
    return torch.cat([hits(margins_P, torch.ones(len(margins_P))), hits(scores_N[data.rated_R], data.labels_R)])


def _of(data: RewardData, names: Sequence[str]) -> Tensor:
    """Whether each label is of these domains."""
    if data.domains is None:
        return torch.zeros(len(data), dtype=torch.bool)
    return torch.tensor([n in names for n in (*data.domains.names_P, *data.domains.names_R)], dtype=torch.bool)
