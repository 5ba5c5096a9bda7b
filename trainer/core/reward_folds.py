"""Scores of answers by heads that have seen nothing of their prompts: what temperature and report rest on.

Shapes: N answers, H heads, G prompts.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.reward_data import RewardData, folds_of, of_answers
from trainer.core.reward_domains import choose_own, fit_own
from trainer.core.reward_fit import CrossFitted, RewardConfig, choose_l2, fit, seen_without


@dataclass(frozen=True)
class OutOfFold:
    """Mean scores of answers by heads that have seen nothing of their prompts, and the same with the length effect."""

    scores_N: Tensor
    with_length_N: Tensor
    fold_N: Tensor
    common_N: Tensor
    """The scores by the common weights alone."""


@dataclass(frozen=True)
class Strengths:
    """L2 of the common weights, and of what domains add to them."""

    common: float
    own: float


def choose(data: RewardData, config: RewardConfig, fold_N: Tensor, cross: CrossFitted | None = None) -> Strengths:
    """Both by the least held-out loss over folds of prompts."""
    l2 = choose_l2(data, config, fold_N, cross)
    return Strengths(l2, choose_own(data, config, l2, fold_N, cross))


def out_of_fold(
    data: RewardData,
    config: RewardConfig,
    weights_GH: Tensor,
    fold_N: Tensor,
    strengths: Strengths | None,
    cross: CrossFitted | None = None,
) -> OutOfFold:
    """Fit on the other folds, score each. No `strengths`: chosen in each training set anew, by folds within it.

    With a trained trunk the folds within have been seen by it: what is chosen there is too weak rather than too strong.
    """
    scores_N, with_length_N, common_N = (torch.zeros(len(data.features_NF)) for _ in range(3))
    for fold in fold_N.unique().tolist():
        seen = seen_without(data, fold, cross)
        others, here_N = of_answers(seen, fold_N != fold), fold_N == fold
        if not len(others):
            continue
        chosen = strengths or choose(others, config, _inner_folds(others, fold_N, fold, config))
        heads = fit(others, config, chosen.common, weights_GH)
        plain_KH = heads.score(seen.features_NF[here_N])
        effect_KH = torch.zeros(()) if heads.length is None else heads.length(data.lengths_N[here_N])
        common_N[here_N] = plain_KH.mean(1)
        own = fit_own(others, config, heads, torch.full((weights_GH.shape[1],), chosen.own), weights_GH)
        if own is not None and data.own is not None:
            domains_K, x_KF = data.own.domains_N[here_N], heads.standardizer(seen.features_NF[here_N])
            plain_KH = plain_KH + own.added(x_KF, domains_K)
            effect_KH = effect_KH + own.effect(heads, data.lengths_N[here_N], domains_K)
        scores_N[here_N], with_length_N[here_N] = plain_KH.mean(1), (plain_KH + effect_KH).mean(1)
    return OutOfFold(scores_N, with_length_N, fold_N, common_N)


def _inner_folds(others: RewardData, fold_N: Tensor, fold: int, config: RewardConfig) -> Tensor:
    """Folds over the groups outside an outer fold; answers of that fold are in none."""
    inner_N = folds_of(others.groups_N, config.folds, torch.Generator().manual_seed(fold))
    return torch.where(fold_N == fold, -1, inner_N)
