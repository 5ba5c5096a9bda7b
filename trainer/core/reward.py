"""The reward model: an ensemble of linear heads on what the frozen base makes of an answer.

Implemented: features standardized on the training rows; label-smoothed Bradley-Terry on pairs and binary cross-entropy
on thumbs with weights of their own, on one head; a Bayesian bootstrap of the prompts (exponential weights) for each
head, so that their spread tells where data are thin; L2 chosen by cross-validation over prompts; scores normalized on
reference answers, discounted by the spread and clipped before PPO sees them.
Left out on purpose: training the trunk. A few hundred ratings don't pay for it, and a shared frozen trunk makes
reference and reward one forward pass.

Shapes: N answers, F features, H heads, P pairs, R rated answers.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import NotEnoughData
from trainer.core.losses import bradley_terry, thumbs_loss
from trainer.core.models import LanguageModel, Message
from trainer.core.rollout import look


@dataclass(frozen=True)
class Example:
    """An answer to be judged: the chat up to it and its text."""

    messages: tuple[Message, ...]
    completion: str


@dataclass(frozen=True)
class RewardData:
    """Features of N answers and what people said of them. Row numbers point into `features_NF`.

    `groups_N` numbers the prompts: answers to one prompt share a group and are bootstrapped and held out together.
    `lengths_N` is the number of words, for the baseline "the longer one wins". All tensors are on the CPU.
    """

    features_NF: Tensor
    lengths_N: Tensor
    groups_N: Tensor
    pairs_P2: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    """Rows of the chosen and of the rejected answer."""
    pair_weights_P: Tensor = field(default_factory=lambda: torch.zeros(0))
    rated_R: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """Rows of the rated answers; an answer may be rated by several people."""
    labels_R: Tensor = field(default_factory=lambda: torch.zeros(0))
    """1 for a thumb up, 0 for a thumb down."""
    rating_weights_R: Tensor = field(default_factory=lambda: torch.zeros(0))


@dataclass(frozen=True)
class RewardConfig:
    """How the ensemble is fitted, and how its scores become rewards."""

    heads: int = 12
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


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval (Wilson) and the effective number of cases behind it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class RewardReport:
    """What the ensemble is worth on prompts it has not seen; None where there were no such cases."""

    n_pairs: int
    n_ratings: int
    l2: float
    pair_accuracy: Estimate | None
    pair_length_baseline: Estimate | None
    rating_accuracy: Estimate | None
    rating_length_baseline: Estimate | None
    ece: float | None
    """Expected calibration error of the pair (or, without pairs, thumb) probabilities, ten bins."""
    length_correlation: float
    """Pearson correlation of score and length in words."""


class RewardEnsemble:
    """H linear heads on standardized features."""

    def __init__(self, mean_F: Tensor, scale_F: Tensor, weight_FH: Tensor, bias_H: Tensor) -> None:
        self.mean_F, self.scale_F, self.weight_FH, self.bias_H = mean_F, scale_F, weight_FH, bias_H

    def score(self, features_NF: Tensor) -> Tensor:
        """Scores N,H, the logits of a thumb up; differences are logits of a preference."""
        x_NF = (features_NF.float().cpu() - self.mean_F) * self.scale_F
        return x_NF @ self.weight_FH + self.bias_H

    def save(self, file: Path) -> None:
        state = {"mean": self.mean_F, "scale": self.scale_F, "weight": self.weight_FH, "bias": self.bias_H}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)

    @classmethod
    def load(cls, file: Path) -> "RewardEnsemble":
        state = load_file(file)
        return cls(state["mean"], state["scale"], state["weight"], state["bias"])


@dataclass(frozen=True)
class RewardSignal:
    """Rewards for PPO: `clip((mean - k * spread - center) / scale)`, normalized on reference answers."""

    ensemble: RewardEnsemble
    center: float
    scale: float
    spread_discount: float
    clip: float

    def __call__(self, features_NF: Tensor) -> Tensor:
        scores_NH = self.ensemble.score(features_NF)
        discounted_N = scores_NH.mean(1) - self.spread_discount * scores_NH.std(1)
        return ((discounted_N - self.center) / self.scale).clamp(-self.clip, self.clip)


def signal(ensemble: RewardEnsemble, reference_NF: Tensor, config: RewardConfig) -> RewardSignal:
    """Normalize on `reference_NF`, features of answers of the frozen base (some dozens at least)."""
    plain = RewardSignal(ensemble, 0.0, 1.0, config.spread_discount, float("inf"))(reference_NF)
    scale = max(float(plain.std()), 1e-6)
    return RewardSignal(ensemble, float(plain.mean()), scale, config.spread_discount, config.clip)


def features(
    lm: LanguageModel, examples: Sequence[Example], *, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Features N,F of answers on the frozen base (any adapter is switched off meanwhile), on the CPU, fp32.

    `progress` is called with (answers done, answers in all).
    """
    encoded = [lm.encode_prompt(e.messages) for e in examples]
    answers = [lm.encode_completion(e.completion) for e in examples]
    return look(lm, encoded, answers, log_probs_too=False, progress=progress).features_NF.cpu()


def fit_ensemble(
    data: RewardData,
    config: RewardConfig,
    generator: torch.Generator,
    *,
    held_out: RewardData | None = None,
) -> tuple[RewardEnsemble, RewardReport]:
    """Fit the heads on `data`; report on `held_out`, or without it on `data` itself by cross-validation.

    Raises NotEnoughData if there are no usable labels.
    """
    if len(data.pairs_P2) + len(data.rated_R) == 0:
        raise NotEnoughData("no pairs and no ratings to fit a reward model on: collect some feedback first")
    fold_N = _folds(data.groups_N, config.folds, generator)
    l2 = _choose_l2(data, config, fold_N)
    weights_GH = _bootstrap(int(data.groups_N.max()) + 1, config.heads, generator)
    ensemble = _fit(data, config, l2, weights_GH)
    if held_out is not None:
        return ensemble, evaluate(ensemble, held_out, l2=l2, trained_on=data)
    scores_N = _out_of_fold(data, config, l2, weights_GH, fold_N)
    return ensemble, _report(scores_N, data, l2=l2, trained_on=data)


def _out_of_fold(data: RewardData, config: RewardConfig, l2: float, weights_GH: Tensor, fold_N: Tensor) -> Tensor:
    """The score N of each answer by an ensemble that has seen nothing of its prompt."""
    scores_N = torch.zeros(len(data.features_NF))
    for fold in range(config.folds):
        others, here_N = _subset(data, fold_N != fold), fold_N == fold
        if len(others.pairs_P2) + len(others.rated_R) and bool(here_N.any()):
            scores_N[here_N] = _fit(others, config, l2, weights_GH).score(data.features_NF[here_N]).mean(1)
    return scores_N


def _folds(groups_N: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    n_groups = int(groups_N.max()) + 1
    present = groups_N.unique()
    fold_of_group = torch.zeros(n_groups, dtype=torch.long)
    fold_of_group[present[torch.randperm(len(present), generator=generator)]] = torch.arange(len(present)) % folds
    return fold_of_group[groups_N]


def _bootstrap(n_groups: int, heads: int, generator: torch.Generator) -> Tensor:
    """Bayesian bootstrap: exponential weights of mean 1 for each prompt and head."""
    return -torch.log1p(-torch.rand(n_groups, heads, generator=generator))


def _subset(data: RewardData, keep_N: Tensor) -> RewardData:
    pairs = keep_N[data.pairs_P2].all(1)
    rated = keep_N[data.rated_R]
    return RewardData(
        features_NF=data.features_NF,
        lengths_N=data.lengths_N,
        groups_N=data.groups_N,
        pairs_P2=data.pairs_P2[pairs],
        pair_weights_P=data.pair_weights_P[pairs],
        rated_R=data.rated_R[rated],
        labels_R=data.labels_R[rated],
        rating_weights_R=data.rating_weights_R[rated],
    )


def _choose_l2(data: RewardData, config: RewardConfig, fold_N: Tensor) -> float:
    """The L2 weight with the least held-out loss over folds of prompts; the strongest if there is too little data."""
    ones = torch.ones(int(data.groups_N.max()) + 1, 1)
    losses = dict.fromkeys(config.l2_grid, 0.0)
    for fold in range(config.folds):
        train, test = _subset(data, fold_N != fold), _subset(data, fold_N == fold)
        if min(len(s.pairs_P2) + len(s.rated_R) for s in (train, test)) == 0:
            continue
        for l2 in config.l2_grid:
            head = _fit(train, config, l2, ones)
            losses[l2] += float(_loss(test, config, head.score(test.features_NF), ones))
    return min(sorted(losses, reverse=True), key=losses.__getitem__)


def _fit(data: RewardData, config: RewardConfig, l2: float, weights_GH: Tensor) -> RewardEnsemble:
    """Full-batch L-BFGS: the loss is convex, so the fit depends on the data and the bootstrap weights only."""
    rows = torch.cat([data.pairs_P2.flatten(), data.rated_R]).unique()
    used = data.features_NF[rows].float()
    mean_F = used.mean(0)
    # Divided by sqrt(F) so that one L2 grid serves every width of model.
    scale_F = 1.0 / (used.std(0, correction=0).clamp(min=1e-4) * used.shape[1] ** 0.5)
    x_NF = (data.features_NF.float() - mean_F) * scale_F
    weight_FH = torch.zeros(x_NF.shape[1], weights_GH.shape[1], requires_grad=True)
    bias_H = torch.zeros(weights_GH.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_FH, bias_H], max_iter=config.max_steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = 0.5 * l2 * weight_FH.square().sum() + 1e-4 * bias_H.square().sum()
        loss = _loss(data, config, x_NF @ weight_FH + bias_H, weights_GH) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return RewardEnsemble(mean_F, scale_F, weight_FH.detach(), bias_H.detach())


def _loss(data: RewardData, config: RewardConfig, scores_NH: Tensor, weights_GH: Tensor) -> Tensor:
    """Mean pair loss and mean thumb loss, mixed by `pair_share`; summed over heads."""
    parts: list[tuple[float, Tensor]] = []
    if len(data.pairs_P2):
        chosen, rejected = data.pairs_P2.unbind(1)
        weights = _normalized(data.pair_weights_P[:, None] * weights_GH[data.groups_N[chosen]])
        margins = scores_NH[chosen] - scores_NH[rejected]
        parts.append((config.pair_share, bradley_terry(margins, weights, smoothing=config.smoothing)))
    if len(data.rated_R):
        weights = _normalized(data.rating_weights_R[:, None] * weights_GH[data.groups_N[data.rated_R]])
        loss = thumbs_loss(scores_NH[data.rated_R], data.labels_R, weights, smoothing=config.smoothing)
        parts.append((1 - config.pair_share, loss))
    total = sum(share for share, _ in parts)
    return torch.stack([loss * (share / total) for share, loss in parts]).sum()


def _normalized(weights_KH: Tensor) -> Tensor:
    return weights_KH / weights_KH.sum(0, keepdim=True).clamp(min=1e-12)


def evaluate(ensemble: RewardEnsemble, held_out: RewardData, *, l2: float, trained_on: RewardData) -> RewardReport:
    """Accuracy, calibration and length baseline of the ensemble's mean score on held-out labels."""
    return _report(ensemble.score(held_out.features_NF).mean(1), held_out, l2=l2, trained_on=trained_on)


def _report(scores_N: Tensor, held_out: RewardData, *, l2: float, trained_on: RewardData) -> RewardReport:
    chosen, rejected = held_out.pairs_P2.unbind(1)
    margins_P = scores_N[chosen] - scores_N[rejected]
    longer_P = held_out.lengths_N[chosen] - held_out.lengths_N[rejected]
    labels_R = held_out.labels_R
    rated_N = scores_N[held_out.rated_R]
    length_R = held_out.lengths_N[held_out.rated_R]
    middle = float(trained_on.lengths_N.float().median())
    ones_P = torch.ones(len(margins_P))
    probs, truth = (margins_P.sigmoid(), ones_P) if len(margins_P) else (rated_N.sigmoid(), labels_R)
    return RewardReport(
        n_pairs=len(trained_on.pairs_P2),
        n_ratings=len(trained_on.rated_R),
        l2=l2,
        pair_accuracy=_accuracy(margins_P, ones_P),
        pair_length_baseline=_accuracy(longer_P.float(), ones_P),
        rating_accuracy=_accuracy(rated_N, labels_R),
        rating_length_baseline=_best_side(length_R.float() - middle, labels_R),
        ece=_calibration_error(probs, truth),
        length_correlation=_correlation(scores_N, held_out.lengths_N.float()),
    )


def _accuracy(margins: Tensor, labels: Tensor) -> Estimate | None:
    """Share of margins on the label's side; a margin of exactly zero counts half."""
    if not len(margins):
        return None
    right = torch.where(labels > 0.5, margins > 0, margins < 0).float() + 0.5 * (margins == 0).float()
    return wilson(float(right.sum()), len(margins))


def _best_side(margins: Tensor, labels: Tensor) -> Estimate | None:
    """A baseline may choose its sign: longer is better, or shorter is."""
    options = [e for e in (_accuracy(margins, labels), _accuracy(-margins, labels)) if e is not None]
    return max(options, key=lambda e: e.mean, default=None)


def wilson(successes: float, n: int) -> Estimate:
    """Wilson score interval at 95 %; `successes` may hold halves for ties."""
    if n < 1:
        raise ValueError("an interval needs one case at least")
    z = 1.959964
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return Estimate(p, max(0.0, center - half), min(1.0, center + half), n)


def _calibration_error(probs: Tensor, truth: Tensor) -> float | None:
    """Mean gap of confidence and accuracy over ten bins of confidence, by number of cases."""
    if not len(probs):
        return None
    confidence = torch.maximum(probs, 1 - probs)
    right = ((probs > 0.5).float() == truth).float()
    bins = ((confidence - 0.5) * 20).long().clamp(0, 9)
    gap = 0.0
    for b in range(10):
        here = bins == b
        if bool(here.any()):
            gap += float((confidence[here].mean() - right[here].mean()).abs() * here.float().mean())
    return gap


def _correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2 or float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def as_metrics(report: RewardReport) -> Mapping[str, float | None]:
    """The report as flat numbers for events and files."""
    flat: dict[str, float | None] = {
        "n_pairs": float(report.n_pairs),
        "n_ratings": float(report.n_ratings),
        "l2": report.l2,
        "ece": report.ece,
        "length_correlation": report.length_correlation,
    }
    for name in ("pair_accuracy", "pair_length_baseline", "rating_accuracy", "rating_length_baseline"):
        estimate: Estimate | None = getattr(report, name)
        for part in ("mean", "low", "high"):
            flat[f"{name}_{part}"] = None if estimate is None else getattr(estimate, part)
    return flat
