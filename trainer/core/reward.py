"""The reward model: an ensemble of linear heads on what a trunk makes of an answer.

The trunk is the frozen base, or one of the reward model's own (`reward_trunk`). How the heads are fitted is in
`reward_fit`, from what in `reward_data`, and what they are worth in `reward_report`; what parts of the traffic have
weights of their own, in `reward_domains`. Here: the ensemble itself, its
temperature, and the reward that PPO sees, which is normalized on reference answers, discounted by the heads' spread and
clipped. One ensemble has one objective: whether answers are safe is another head's question (`safety`), and the two
never share labels or weights. A frozen trunk is the default: reference and reward are one forward pass then, and a few
hundred ratings don't pay for more.

Shapes: N answers, F features, H heads, Q quantiles.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import NotEnoughData
from trainer.core.calibration import fit_temperature
from trainer.core.domains import Shares, alone
from trainer.core.estimates import Estimate, accuracy, wilson
from trainer.core.models import LanguageModel, Message
from trainer.core.reward_data import RewardData, finite, folds_of, of_answers, without_one_sided
from trainer.core.reward_domain_report import Unseen, domain_reports, gain
from trainer.core.reward_domains import Own, fit_own, numbers_of, one_domain_each, prepared
from trainer.core.reward_fit import CrossFitted, Fit, RewardConfig, bootstrap, fit
from trainer.core.reward_folds import OutOfFold, choose, out_of_fold
from trainer.core.reward_report import (
    CrossValidated,
    RewardReport,
    Scored,
    as_metrics,
    compare_with_length,
    margins,
    pair_length_margins,
    rating_length_margins,
    report,
)
from trainer.core.rollout import look

__all__ = [
    "CrossValidated",
    "Estimate",
    "Example",
    "OwnHeads",
    "RewardConfig",
    "RewardData",
    "RewardEnsemble",
    "RewardReport",
    "RewardSignal",
    "as_metrics",
    "cross_validate",
    "evaluate",
    "features",
    "fit_ensemble",
    "scores_of",
    "signal",
    "wilson",
]

QUANTILES = 11
"""Of the training answers' scores, kept with the ensemble: ten equal shares to compare production with."""


@dataclass(frozen=True)
class Example:
    """An answer to be judged: the chat up to it and its text."""

    messages: tuple[Message, ...]
    completion: str


@dataclass(frozen=True)
class OwnHeads:
    """What the heads of each domain that has weights of its own add to the common ones, by row."""

    names: tuple[str, ...]
    weight_DFH: Tensor
    bias_DH: Tensor


class RewardEnsemble:
    """H linear heads on standardized features, common to all domains or with differences of some domains' own.

    `temperature` is what their scores have been divided by already, so that probabilities made of them are calibrated;
    `quantiles_Q` are those of the mean scores of the training answers, out of fold (None in files from before).
    """

    def __init__(
        self,
        mean_F: Tensor,
        scale_F: Tensor,
        weight_FH: Tensor,
        bias_H: Tensor,
        *,
        temperature: float = 1.0,
        quantiles_Q: Tensor | None = None,
        own: OwnHeads | None = None,
    ) -> None:
        self.mean_F, self.scale_F, self.weight_FH, self.bias_H = mean_F, scale_F, weight_FH, bias_H
        self.temperature, self.quantiles_Q, self.own = temperature, quantiles_Q, own

    def score(self, features_NF: Tensor, asked: Sequence[Shares] | None = None) -> Tensor:
        """Scores N,H, the calibrated logits of a thumb up; differences are logits of a preference.

        `asked` are the domains of each answer's prompt: of several the mean is taken, and those without weights of
        their own (unknown ones too) have the common ones. None: all are rated by the common weights.
        """
        x_NF = (features_NF.float().cpu() - self.mean_F) * self.scale_F
        scores_NH = x_NF @ self.weight_FH + self.bias_H
        if self.own is None or asked is None:
            return scores_NH
        for domain, (rows, shares) in _by_number(asked, self.own.names).items():
            added_KH = x_NF[rows] @ self.own.weight_DFH[domain] + self.own.bias_DH[domain]
            scores_NH[rows] += torch.tensor(shares)[:, None] * added_KH
        return scores_NH

    def score_in(self, features_NF: Tensor, domains: Sequence[str]) -> Tensor:
        """Scores N,H of answers each in one domain."""
        return self.score(features_NF, [alone(name) for name in domains])

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        state = {"mean": self.mean_F, "scale": self.scale_F, "weight": self.weight_FH, "bias": self.bias_H}
        state["temperature"] = torch.tensor(self.temperature, dtype=torch.float64)
        if self.quantiles_Q is not None:
            state["quantiles"] = self.quantiles_Q
        metadata = None
        if self.own is not None:
            state |= {"own_weight": self.own.weight_DFH, "own_bias": self.own.bias_DH}
            metadata = {"domains": json.dumps(self.own.names)}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata)

    @classmethod
    def load(cls, file: Path) -> "RewardEnsemble":
        """Read what `save` wrote, in this release or an earlier one."""
        state = load_file(file)
        temperature = float(state["temperature"]) if "temperature" in state else 1.0
        parts = (state["mean"], state["scale"], state["weight"], state["bias"])
        own = None
        if "own_weight" in state:
            with safe_open(file, framework="pt") as held:
                names = tuple(json.loads(held.metadata()["domains"]))
            own = OwnHeads(names, state["own_weight"], state["own_bias"])
        return cls(*parts, temperature=temperature, quantiles_Q=state.get("quantiles"), own=own)


def _by_number(asked: Sequence[Shares], names: Sequence[str]) -> dict[int, tuple[list[int], list[float]]]:
    """Rows of each domain that is among the names, by its number there, with the domain's share in each."""
    number = {name: n for n, name in enumerate(names)}
    found: dict[int, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for row, shares in enumerate(asked):
        for name, share in shares:
            if name in number:
                found[number[name]][0].append(row)
                found[number[name]][1].append(share)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class RewardSignal:
    """Rewards for PPO: `clip((mean - k * spread - center) / scale)`, normalized on reference answers.

    With weights of domains' own each has a center of its own, on the same reference answers: a domain whose people are
    easily pleased would else push its prompts towards the clip, where all answers are alike. The scale is common, for
    calibrated scores have a unit: a domain whose people agree more, pulls more.
    """

    ensemble: RewardEnsemble
    center: float
    scale: float
    spread_discount: float
    clip: float
    centers: tuple[tuple[str, float], ...] = ()
    """By domain, added to the common center."""

    def __call__(self, features_NF: Tensor, asked: Sequence[Shares] | None = None) -> Tensor:
        scores_NH = self.ensemble.score(features_NF, asked)
        discounted_N = scores_NH.mean(1) - self.spread_discount * scores_NH.std(1)
        if asked is not None and self.centers:
            level = dict(self.centers)
            discounted_N = discounted_N - torch.tensor([sum(level.get(d, 0.0) * w for d, w in some) for some in asked])
        return ((discounted_N - self.center) / self.scale).clamp(-self.clip, self.clip)


def signal(
    ensemble: RewardEnsemble, reference_NF: Tensor, config: RewardConfig, asked: Sequence[Shares] | None = None
) -> RewardSignal:
    """Normalize on `reference_NF`, features of answers of the frozen base (some dozens at least).

    `asked` are the domains of their prompts, where some have weights of their own.
    """
    raw = RewardSignal(ensemble, 0.0, 1.0, config.spread_discount, float("inf"))
    plain = raw(reference_NF)
    if ensemble.own is None or asked is None:
        scale = max(float(plain.std()), 1e-6)
        return replace(raw, center=float(plain.mean()), scale=scale, clip=config.clip)
    center, n = float(plain.mean()), len(reference_NF)
    centers = tuple((d, float(raw(reference_NF, [alone(d)] * n).mean()) - center) for d in ensemble.own.names)
    scale = max(float(replace(raw, centers=centers)(reference_NF, asked).std()), 1e-6)
    return replace(raw, center=center, scale=scale, clip=config.clip, centers=centers)


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
    cross: CrossFitted | None = None,
) -> tuple[RewardEnsemble, RewardReport]:
    """Fit the heads on `data`; report on `held_out`, or without it on `data` itself by cross-validation.

    `cross` is needed where the features are of a trunk that learned from these labels: all that is chosen or reported
    by folds then rests on trunks that did not (see `CrossFitted`). `held_out` are prompts that no trunk learned from.

    Labels on features that are no finite numbers and those of one-sided raters are left out. Raises `NotEnoughData`
    if there are no usable labels.
    """
    usable, dropped = usable_labels(data, config)
    usable, rows_M, crowds = prepared(usable, config)
    cross = cross and cross.of_rows(rows_M)
    fold_N = folds_of(usable.groups_N, config.folds, generator) if cross is None else cross.fold_N
    chosen = choose(usable, config, fold_N, cross)
    weights_GH = bootstrap(int(usable.groups_N.max()) + 1, config.heads, generator)
    whole = fit(usable, config, chosen.common, weights_GH)
    own = fit_own(usable, config, whole, torch.full((config.heads,), chosen.own), weights_GH)
    unseen = out_of_fold(usable, config, weights_GH, fold_N, chosen, cross)
    temperature = _temperature(usable, unseen.scores_N, config)
    ensemble = _calibrated(whole, own, temperature, unseen.scores_N[_labelled(usable)])
    seen = [Unseen(unseen.scores_N, unseen.common_N, usable)]
    if held_out is None:
        scored, judged, also = _cross_fitted(usable, unseen, config), usable, ()
    else:
        judged, _, names = one_domain_each(finite(held_out)[0])
        scored, also = _scored(whole, own, judged, names, temperature), ((unseen.scores_N / temperature, usable),)
        seen.append(Unseen(scored.uncalibrated_N, whole.score(judged.features_NF).mean(1), judged))
    crowds = tuple(replace(c, own=c.own and own is not None) for c in crowds)
    made = report(
        scored,
        judged,
        l2=chosen.common,
        temperature=temperature,
        trained_on=usable,
        dropped=dropped,
        cross_validated=_accuracy_of(usable, unseen.scores_N),
        also=also,
    )
    if crowds:
        every = gain(seen, [c.name for c in crowds if c.own])
        made = replace(made, domains=domain_reports(crowds, seen), domains_gain=every, own_l2=chosen.own)
    return ensemble, made


def usable_labels(data: RewardData, config: RewardConfig) -> tuple[RewardData, int]:
    """The labels to learn from, and how many are left out; raises `NotEnoughData` where none is left."""
    sound, broken = finite(data)
    usable, one_sided = without_one_sided(sound, config.one_sided_raters)
    weight = float(usable.pair_weights_P.sum() + usable.rating_weights_R.sum())
    if not len(usable) or not weight > 0:
        lost = f" ({broken} had features or weights that are no finite numbers, {one_sided} are of one-sided raters)"
        raise NotEnoughData(
            "no pairs and no ratings to fit a reward model on: collect some feedback first"
            + (lost if broken + one_sided else "")
        )
    return usable, broken + one_sided


def _calibrated(whole: Fit, own: Own | None, temperature: float, unseen_K: Tensor) -> RewardEnsemble:
    """The temperature goes into the weights, so that whoever takes a sigmoid of a score gets a calibrated one."""
    ranks_Q = torch.linspace(0, 1, QUANTILES)
    return RewardEnsemble(
        whole.standardizer.mean_F,
        whole.standardizer.scale_F,
        whole.weight_FH / temperature,
        whole.bias_H / temperature,
        temperature=temperature,
        quantiles_Q=torch.quantile(unseen_K / temperature, ranks_Q),
        own=None if own is None else OwnHeads(own.names, own.weight_DFH / temperature, own.bias_DH / temperature),
    )


def _labelled(data: RewardData) -> Tensor:
    """Rows of the answers that a label speaks of."""
    return torch.cat([data.pairs_P2.flatten(), data.rated_R]).unique()


def _temperature(data: RewardData, scores_N: Tensor, config: RewardConfig) -> float:
    """One for pairs and thumbs together, mixed as the loss mixes them."""
    logits, labels, weights = list[Tensor](), list[Tensor](), list[Tensor]()
    if len(data.pairs_P2):
        logits.append(margins(scores_N, data))
        labels.append(torch.ones(len(data.pairs_P2)))
        weights.append(config.pair_share * data.pair_weights_P / data.pair_weights_P.sum().clamp(min=1e-12))
    if len(data.rated_R):
        logits.append(scores_N[data.rated_R])
        labels.append(data.labels_R)
        share = data.rating_weights_R / data.rating_weights_R.sum().clamp(min=1e-12)
        weights.append((1 - config.pair_share) * share)
    if not logits:
        return 1.0
    return fit_temperature(torch.cat(logits), torch.cat(labels), torch.cat(weights))


def _scored(whole: Fit, own: Own | None, judged: RewardData, names_N: Sequence[str], temperature: float) -> Scored:
    plain_N = whole.score(judged.features_NF).mean(1)
    effect_N = torch.zeros(()) if whole.length is None else whole.length(judged.lengths_N).mean(1)
    if own is not None:
        domains_N = numbers_of(names_N, own.names)
        plain_N = plain_N + own.added(whole.standardizer(judged.features_NF), domains_N).mean(1)
        effect_N = effect_N + own.effect(whole, judged.lengths_N, domains_N).mean(1)
    return Scored(plain_N / temperature, plain_N, plain_N + effect_N)


def _cross_fitted(data: RewardData, unseen: OutOfFold, config: RewardConfig) -> Scored:
    """Each fold with the temperature of the others, or the calibration error would be judged where it was fitted."""
    scores_N = unseen.scores_N.clone()
    for fold in unseen.fold_N.unique().tolist():
        others = of_answers(data, unseen.fold_N != fold)
        scores_N[unseen.fold_N == fold] /= _temperature(others, unseen.scores_N, config)
    return Scored(scores_N, unseen.scores_N, unseen.with_length_N)


def _accuracy_of(data: RewardData, scores_N: Tensor) -> Estimate | None:
    if len(data.pairs_P2):
        return accuracy(margins(scores_N, data), torch.ones(len(data.pairs_P2)))
    return accuracy(scores_N[data.rated_R], data.labels_R)


def cross_validate(
    data: RewardData, config: RewardConfig, generator: torch.Generator, cross: CrossFitted | None = None
) -> CrossValidated | None:
    """The procedure's accuracy over all labels by `config.folds` folds of prompts, beside that of length.

    Nested: L2 and the sign of the length baseline are chosen in each training part by itself, so nothing of a fold
    decides what is said of it.
    """
    usable, rows_M, _ = prepared(usable_labels(data, config)[0], config)
    cross = cross and cross.of_rows(rows_M)
    fold_N = folds_of(usable.groups_N, config.folds, generator) if cross is None else cross.fold_N
    weights_GH = bootstrap(int(usable.groups_N.max()) + 1, config.heads, generator)
    unseen = out_of_fold(usable, config, weights_GH, fold_N, None, cross)
    return compare_with_length(unseen.scores_N, unseen.with_length_N, _length_margins(usable, fold_N), usable)


def _length_margins(data: RewardData, fold_N: Tensor) -> Tensor:
    """The baseline's margins with the sign chosen on the other folds; of pairs, or of ratings without pairs."""
    pairs = len(data.pairs_P2) > 0
    cases_K = data.pairs_P2[:, 0] if pairs else data.rated_R
    made_K = torch.zeros(len(cases_K))
    for fold in fold_N.unique().tolist():
        others, here_K = of_answers(data, fold_N != fold), fold_N[cases_K] == fold
        both = pair_length_margins(data, others) if pairs else rating_length_margins(data, others)
        made_K[here_K] = both[here_K]
    return made_K


def evaluate(ensemble: RewardEnsemble, held_out: RewardData, *, l2: float, trained_on: RewardData) -> RewardReport:
    """Accuracy, calibration and length baseline of the ensemble's mean score on held-out labels."""
    scores_N, held_out = scores_of(ensemble, held_out)
    scored = Scored(scores_N, scores_N * ensemble.temperature, scores_N)
    return report(scored, held_out, l2=l2, temperature=ensemble.temperature, trained_on=trained_on)


def scores_of(ensemble: RewardEnsemble, data: RewardData) -> tuple[Tensor, RewardData]:
    """Mean scores N by the weights of each answer's domain, and the data, with an answer of two domains twice."""
    data, _, names_N = one_domain_each(data)
    return ensemble.score_in(data.features_NF, names_N).mean(1), data
