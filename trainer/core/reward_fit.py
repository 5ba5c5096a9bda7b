"""Fitting the reward model's heads: a convex loss, minimized in full batches.

Implemented: features standardized on the training rows; label-smoothed Bradley-Terry on pairs and binary cross-entropy
on thumbs, on one head; a Bayesian bootstrap of the prompts (exponential weights) for each head; L2 chosen by
cross-validation over prompts. What is no property of the answer is fitted beside the heads and thrown away: an offset
for each rater (a Gaussian prior, as a random effect) and the effect of length (log words and its square).

Left out: an effect of the side that a labeler saw an answer on. Sides are drawn at random for each task and the gold
rows don't hold them, so it is noise in the labels and no bias.

Shapes: N answers, F features, H heads, P pairs, R ratings, U raters, G prompts, L = 2 length covariates.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trainer.core.domains import By
from trainer.core.losses import bradley_terry, thumbs_loss
from trainer.core.reward_data import RewardData, of_answers

Trunk = Literal["frozen", "lora", "full"]
TRUNK_RATES = {"lora": 1e-3, "full": 1e-4}
"""Of the first optimizer step; they fall to nothing in a straight line."""
TINY_RIDGE = 1e-4
"""Keeps what is hardly penalized (biases, length) from running away where the data don't decide."""


@dataclass(frozen=True)
class RewardConfig:
    """How the ensemble is fitted, and how its scores become rewards."""

    heads: int = 16
    smoothing: float = 0.05
    pair_share: float = 0.5
    """Share of the pairs in the loss when there are thumbs too (both are self-normalized)."""
    l2_grid: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    folds: int = 4
    max_steps: int = 60
    spread_discount: float = 0.5
    """k in reward = mean - k * spread."""
    clip: float = 3.0
    """Largest absolute reward, in standard deviations of the reference answers' scores."""
    remove_length: bool = True
    """Fit the effect of length beside the heads and leave it out of the scores."""
    rater_spread: float = 1.0
    """Standard deviation of the raters' offsets in logits; 0 is no offsets. At 1 a strict and a lenient rater, one
    deviation to each side, give a middling answer a thumb up in 27 and 73 of 100 cases."""
    one_sided_raters: int = 8
    """From so many thumbs on, all the same way, a rater's are left out. By chance they are alike in 1 of 128 where
    up and down are equally frequent."""
    trunk: Trunk = "frozen"
    """What the heads read: the frozen base, the base with an adapter of the reward model's own, or a copy of it."""
    trunk_epochs: int = 1
    """A second one learns the labels by heart: one epoch was best for reward models of every size tried."""
    trunk_labels: int = 8
    """Labels behind an optimizer step."""
    trunk_rate: float | None = None
    """Learning rate at the first step; None takes `TRUNK_RATES`."""
    trunk_rank: int = 8
    trunk_folds: int = 2
    """Trunks trained beside the one that is kept, each without a share of the prompts, to judge what it has not seen.
    Two cost as much as the whole once more."""
    refit_share: float = 0.5
    """From so many new labels on, as a share of those that the parent's trunk learned from, a new one is trained."""
    by: By = "none"
    """Which domains may have weights of their own beside the common ones (`reward_domains`)."""
    domain_labels: int = 50
    """A domain has none with fewer labels than that: heads fitted on 50 labels alone are right little above chance."""
    domain_users: int = 8
    """Nor with fewer people. Of eight, each of whom holds twice a fair share at most, nobody holds more than a quarter
    of what the domain learns."""

    def __post_init__(self) -> None:
        if self.domain_labels < 1 or self.domain_users < 2:
            raise ValueError("domain_labels must be above 0, and domain_users above 1")
        if self.trunk_epochs < 1 or self.trunk_labels < 1 or self.trunk_rank < 1 or self.trunk_folds < 2:
            raise ValueError("trunk_epochs, trunk_labels and trunk_rank must be above 0, and trunk_folds above 1")


@dataclass(frozen=True)
class CrossFitted:
    """What trunks make of the same answers that were trained without a fold of the prompts.

    A trunk's features of the answers that it learned from tell their labels better than those of any other answer. So
    whatever is chosen by folds (L2, temperature, accuracy) takes each fold's features from the trunk that never saw it.
    """

    fold_N: Tensor
    features_KNF: Sequence[Tensor]

    def of_rows(self, rows_M: Tensor) -> "CrossFitted":
        """The same of these rows of the answers."""
        if len(rows_M) == len(self.fold_N):
            return self  # `one_domain_each` only adds some
        return CrossFitted(self.fold_N[rows_M], tuple(features_NF[rows_M] for features_NF in self.features_KNF))

    def view(self, data: RewardData, fold: int) -> RewardData:
        """The data as the trunk sees them that was trained without this fold."""
        return replace(data, features_NF=self.features_KNF[fold])


def seen_without(data: RewardData, fold: int, cross: CrossFitted | None) -> RewardData:
    """The data as whoever has not seen this fold sees them; a frozen trunk has seen none."""
    return data if cross is None else cross.view(data, fold)


@dataclass(frozen=True)
class Standardizer:
    """x = (features - mean) * scale."""

    mean_F: Tensor
    scale_F: Tensor

    @classmethod
    def of(cls, data: RewardData) -> "Standardizer":
        """On the rows that a label speaks of."""
        return cls.of_rows(data.features_NF[torch.cat([data.pairs_P2.flatten(), data.rated_R]).unique()])

    @classmethod
    def of_rows(cls, features_NF: Tensor) -> "Standardizer":
        """Divided by sqrt(F), so that one L2 grid serves every width of model."""
        used = features_NF.float()
        scale_F = 1.0 / (used.std(0, correction=0).clamp(min=1e-4) * used.shape[1] ** 0.5)
        return cls(used.mean(0), scale_F)

    def __call__(self, features_NF: Tensor) -> Tensor:
        return (features_NF.float().cpu() - self.mean_F) * self.scale_F


@dataclass(frozen=True)
class LengthEffect:
    """What length in words adds to a score of each head: removed before anybody sees the score."""

    center: float
    scale: float
    weight_LH: Tensor

    def __call__(self, lengths_N: Tensor) -> Tensor:
        """N,H."""
        return length_terms(lengths_N, self.center, self.scale) @ self.weight_LH


def length_terms(lengths_N: Tensor, center: float, scale: float) -> Tensor:
    """Covariates N,2: z and (z^2 - 1) / 2 of z = (log(1 + words) - center) / scale."""
    z_N = (torch.log1p(lengths_N.float()) - center) / scale
    return torch.stack([z_N, (z_N.square() - 1) / 2], 1)


@dataclass(frozen=True)
class Fit:
    """H fitted heads and what was fitted beside them."""

    standardizer: Standardizer
    weight_FH: Tensor
    bias_H: Tensor
    length: LengthEffect | None

    def score(self, features_NF: Tensor) -> Tensor:
        """Scores N,H without the effects of length and rater."""
        return self.standardizer(features_NF) @ self.weight_FH + self.bias_H


def fit(data: RewardData, config: RewardConfig, l2: float, weights_GH: Tensor) -> Fit:
    """Full-batch L-BFGS: the loss is convex, so the fit depends on the data and the bootstrap weights only."""
    standardizer = Standardizer.of(data)
    x_NF, heads = standardizer(data.features_NF), weights_GH.shape[1]
    center, scale = log_words(data)
    terms_NL = length_terms(data.lengths_N, center, scale)
    raters_R = data.raters()
    n_raters = int(raters_R.max()) + 1 if len(raters_R) and config.rater_spread > 0 else 0
    shapes = ((x_NF.shape[1], heads), (1, heads), (terms_NL.shape[1], heads), (n_raters, heads))
    weight_FH, bias_1H, length_LH, offset_UH = parameters = [torch.zeros(s, requires_grad=True) for s in shapes]
    fitted = [p for p in (weight_FH, bias_1H) if p.numel()]
    fitted += [length_LH] if config.remove_length else []
    fitted += [offset_UH] if n_raters else []
    optimizer = torch.optim.LBFGS(fitted, max_iter=config.max_steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores_NH = x_NF @ weight_FH + bias_1H
        if config.remove_length:
            scores_NH = scores_NH + terms_NL @ length_LH
        penalty = 0.5 * l2 * weight_FH.square().sum()
        penalty = penalty + TINY_RIDGE * (bias_1H.square().sum() + length_LH.square().sum())
        value = loss(data, config, scores_NH, weights_GH, offset_UH if n_raters else None) + penalty
        value.backward()
        return value

    optimizer.step(closure)
    found = [p.detach() for p in parameters]
    effect = LengthEffect(center, scale, found[2]) if config.remove_length else None
    return Fit(standardizer, found[0], found[1][0], effect)


def log_words(data: RewardData) -> tuple[float, float]:
    """Mean and standard deviation of log(1 + words) over the answers that a label speaks of."""
    rows = torch.cat([data.pairs_P2.flatten(), data.rated_R]).unique()
    logs = torch.log1p(data.lengths_N[rows].float())
    spread = float(logs.std(correction=0))
    return float(logs.mean()), spread if spread > 1e-6 else 1.0


def loss(
    data: RewardData, config: RewardConfig, scores_NH: Tensor, weights_GH: Tensor, offset_UH: Tensor | None = None
) -> Tensor:
    """Mean pair loss and mean thumb loss, mixed by `pair_share`; summed over heads.

    With offsets, the thumbs' part holds their prior too: u^2 / (2 spread^2), in units of one average thumb.
    """
    parts: list[tuple[float, Tensor]] = []
    if len(data.pairs_P2):
        chosen, rejected = data.pairs_P2.unbind(1)
        weights = normalized(data.pair_weights_P[:, None] * weights_GH[data.groups_N[chosen]])
        margins = scores_NH[chosen] - scores_NH[rejected]
        parts.append((config.pair_share, bradley_terry(margins, weights, smoothing=config.smoothing)))
    if len(data.rated_R):
        weights = normalized(data.rating_weights_R[:, None] * weights_GH[data.groups_N[data.rated_R]])
        logits, prior = scores_NH[data.rated_R], torch.zeros(())
        if offset_UH is not None:
            raters_R = data.raters()
            logits = logits + offset_UH[raters_R.clamp(min=0)] * (raters_R >= 0)[:, None]
            prior = 0.5 * offset_UH.square().sum() / (config.rater_spread**2 * effective(data.rating_weights_R))
        rated = thumbs_loss(logits, data.labels_R, weights, smoothing=config.smoothing)
        parts.append((1 - config.pair_share, rated + prior))
    total = sum(share for share, _ in parts)
    return torch.stack([part * (share / total) for share, part in parts]).sum()


def label_weights(data: RewardData, config: RewardConfig, weights_GH: Tensor) -> tuple[Tensor, Tensor, float]:
    """What each label weighs in `loss`, by head (P,H and R,H), and the factor of the squared offsets."""
    pair_share, rated_share = kind_shares(data, config)
    pair_PH = normalized(data.pair_weights_P[:, None] * weights_GH[data.groups_N[data.pairs_P2[:, 0]]])
    rated_RH = normalized(data.rating_weights_R[:, None] * weights_GH[data.groups_N[data.rated_R]])
    spread = config.rater_spread**2 * effective(data.rating_weights_R)
    prior = rated_share * 0.5 / spread if spread > 0 else 0.0
    return pair_share * pair_PH, rated_share * rated_RH, prior


def kind_shares(data: RewardData, config: RewardConfig) -> tuple[float, float]:
    """The shares of pairs and of thumbs in `loss`."""
    shares = (config.pair_share * bool(len(data.pairs_P2)), (1 - config.pair_share) * bool(len(data.rated_R)))
    return shares[0] / sum(shares), shares[1] / sum(shares)


def normalized(weights_KH: Tensor) -> Tensor:
    """Each head's weights as shares."""
    return weights_KH / weights_KH.sum(0, keepdim=True).clamp(min=1e-12)


def effective(weights_K: Tensor) -> float:
    """Kish's effective number of cases."""
    return float(weights_K.sum().square() / weights_K.square().sum().clamp(min=1e-12))


def bootstrap(n_groups: int, heads: int, generator: torch.Generator) -> Tensor:
    """Bayesian bootstrap: exponential weights of mean 1 for each prompt and head."""
    return -torch.log1p(-torch.rand(n_groups, heads, generator=generator))


def choose_l2(data: RewardData, config: RewardConfig, fold_N: Tensor, cross: CrossFitted | None = None) -> float:
    """The L2 weight with the least held-out loss over folds of prompts; the strongest if there is too little data.

    Labels are explained with the length effect, as in training, or L2 would be chosen by how well features imitate it.
    """
    ones = torch.ones(int(data.groups_N.max()) + 1, 1)
    losses = dict.fromkeys(config.l2_grid, 0.0)
    for fold in sorted(set(fold_N.tolist()) - {-1}):
        seen = seen_without(data, fold, cross)
        train, test = of_answers(seen, fold_N != fold), of_answers(seen, fold_N == fold)
        if min(len(train), len(test)) == 0:
            continue
        for l2 in config.l2_grid:
            head = fit(train, config, l2, ones)
            losses[l2] += float(loss(test, config, _with_length(head, test), ones))
    return min(sorted(losses, reverse=True), key=losses.__getitem__)


def _with_length(head: Fit, data: RewardData) -> Tensor:
    """The scores that the labels are explained by: with the length effect, if there is one."""
    scores_NH = head.score(data.features_NF)
    return scores_NH if head.length is None else scores_NH + head.length(data.lengths_N)
