"""How often scores put two answers in the order that people do, whatever share of their thumbs is up.

Accuracy of thumbs says little: where seven of ten are up, who calls every answer good is right in seven of ten. So a
thumb is compared with the thumbs of the other kind: the share of them that its answer's score lies on the right side
of. The mean over either kind is the area under the curve (Mann & Whitney 1947), for which chance is one half, as it is
for pairs. Around it each label's value is spread by what it adds to the area's variance (DeLong et al. 1988), so that
the mean over labels drawn anew in whole groups has the right interval.

Shapes: N answers, P pairs, R ratings, K labels (pairs, then ratings).
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.core.estimates import Estimate, hits, mean_over_groups
from trainer.core.reward_data import RewardData


def ordering(parts: Sequence[tuple[Tensor, RewardData]]) -> Estimate | None:
    """Share of labels whose order the scores have, pairs and thumbs together, at the labels' weights.

    `parts` are scores N with the labels on their answers: they have no prompt in common, and the same number in two of
    them is the same person. Thumbs are compared within their part. The interval is the wider one of two bootstraps:
    over prompts, whose labels share a difficulty, and over people, of whom a few that agree are no crowd. None without
    pairs and without thumbs of both kinds.
    """
    made = [_cases(scores_N, data) for scores_N, data in parts]
    values_K, weights_K, people_K = (torch.cat(each) for each in zip(*(case[:3] for case in made), strict=True))
    prompts_K = _numbered_on([case.prompts_K for case in made])
    by_prompt = mean_over_groups(values_K, prompts_K, weights_K=weights_K)
    by_person = mean_over_groups(values_K, _apart(people_K), weights_K=weights_K)
    if by_prompt is None or by_person is None:
        return None
    low, high = min(by_prompt.low, by_person.low), max(by_prompt.high, by_person.high)
    return Estimate(by_prompt.mean, max(0.0, low), min(1.0, high), len(values_K))


class _Cases(NamedTuple):
    values_K: Tensor
    weights_K: Tensor
    people_K: Tensor
    prompts_K: Tensor


def _cases(scores_N: Tensor, data: RewardData) -> _Cases:
    """Pairs, then thumbs, if there are both kinds of them. Pairs and thumbs count by their numbers, however each are
    weighed among themselves."""
    margins_P = scores_N[data.pairs_P2[:, 0]] - scores_N[data.pairs_P2[:, 1]]
    values_R = thumb_values(scores_N[data.rated_R], data.labels_R, data.rating_weights_R)
    n = len(values_R)
    return _Cases(
        values_K=torch.cat([hits(margins_P, torch.ones(len(margins_P))).double(), values_R]),
        weights_K=torch.cat([_normed(data.pair_weights_P), _normed(data.rating_weights_R)[:n]]),
        people_K=torch.cat([data.pair_raters(), data.raters()[:n]]),
        prompts_K=data.groups_N[torch.cat([data.pairs_P2[:, 0], data.rated_R[:n]])],
    )


def _numbered_on(prompts: Sequence[Tensor]) -> Tensor:
    """The prompts of all parts, each part's numbers beyond those of the one before."""
    shifted, first = list[Tensor](), 0
    for prompts_K in prompts:
        shifted.append(prompts_K + first)
        first += int(prompts_K.max()) + 1 if len(prompts_K) else 0
    return torch.cat(shifted)


def thumb_values(scores_R: Tensor, labels_R: Tensor, weights_R: Tensor) -> Tensor:
    """What each thumb adds to the area under the curve, R; their weighted mean is the area. Empty without both."""
    up_R, weights_R = labels_R > 0.5, weights_R.double()
    total_up, total_down = float(weights_R[up_R].sum()), float(weights_R[~up_R].sum())
    if not total_up > 0 or not total_down > 0:
        return torch.zeros(0, dtype=torch.float64)
    shares_R = torch.zeros(len(scores_R), dtype=torch.float64)
    shares_R[up_R] = _below(scores_R[up_R], scores_R[~up_R], weights_R[~up_R]) / total_down
    shares_R[~up_R] = _below(-scores_R[~up_R], -scores_R[up_R], weights_R[up_R]) / total_up
    area = float((shares_R * weights_R)[up_R].sum()) / total_up
    scale_R = torch.where(up_R, (total_up + total_down) / total_up, (total_up + total_down) / total_down)
    return area + scale_R * (shares_R - area)


def _below(scores_A: Tensor, others_B: Tensor, weights_B: Tensor) -> Tensor:
    """The weight A of the others below each score; of those at it, half."""
    order = others_B.argsort()
    sorted_B = others_B[order].contiguous()
    heavier = torch.cat([weights_B.new_zeros(1), weights_B[order].cumsum(0)])
    under = torch.searchsorted(sorted_B, scores_A.contiguous(), right=False)
    up_to = torch.searchsorted(sorted_B, scores_A.contiguous(), right=True)
    return (heavier[under] + heavier[up_to]) / 2


def _normed(weights_K: Tensor) -> Tensor:
    """Weights of mean 1."""
    return weights_K.double() / weights_K.double().mean().clamp(min=1e-12)


def _apart(people_K: Tensor) -> Tensor:
    """The same with a number of their own for everybody who is not known."""
    highest = int(people_K.max()) + 1 if len(people_K) else 0
    return torch.where(people_K >= 0, people_K, highest + torch.arange(len(people_K)))
