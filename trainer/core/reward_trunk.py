"""A trunk of the reward model's own: trained with the heads, then read like the frozen base.

Implemented:
- the terms of `reward_fit`: label-smoothed Bradley-Terry on pairs, cross-entropy on thumbs with an offset for each
  rater, the effect of length, a Bayesian bootstrap of the prompts for each head. The gradient of a step is an unbiased
  estimate of that of the whole loss; the trunk gets the mean of what the heads ask for;
- heads that begin where they were fitted on the frozen trunk: random ones would spoil its features first (2202.10054);
- the prompt is read once for its answers, prompts of like length stand in rows together, no logits are made, and the
  loss is one expression over the labels and heads of a micro-batch;
- Adam, linear decay, gradient clip; weights of bfloat16 learn as float32 copies;
- afterwards the trunk is frozen and the heads are fitted on its features as on the base's, exactly and from scratch.

A trunk tells the labels that it learned from better than others, so what is chosen by folds (L2, temperature) and
reported of them rests on further trunks, each trained without a fold of the prompts (`reward_fit.CrossFitted`). Setting
prompts aside would cost less and leave both the trunk and the temperature with fewer labels. These trunks learn from
fewer labels than the one that is kept, so the temperature is a little too high and scores a little too timid.

Left out: gradient checkpointing (a micro-batch is small), dropout, a gradient into the length effect's covariates.

Shapes: N answers, P pairs, R ratings, K answers of a micro-batch, F features, H heads, U raters, L length covariates.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.core.losses import bradley_terry, thumbs_loss
from trainer.core.models import LanguageModel, Tokens
from trainer.core.packing import Group, pack
from trainer.core.reward import usable_labels
from trainer.core.reward_data import RewardData, folds_of
from trainer.core.reward_fit import (
    TINY_RIDGE,
    TRUNK_RATES,
    RewardConfig,
    Standardizer,
    bootstrap,
    choose_l2,
    fit,
    label_weights,
    length_terms,
    log_words,
)
from trainer.core.rollout import feature_layer, features_of

HEAD_RATE = 3e-3
"""Learning rate of heads, offsets and length effect, which begin near where they belong."""
MAX_GRAD_NORM = 1.0
UNIT_LABELS = 4
"""Labels on one prompt that are read together at most, so that a prompt with a thousand thumbs fits into memory."""
MICRO_TOKENS = 300
"""Read at once on the CPU: a pair or two, so that rows are of one length. Larger batches were slower by a tenth."""
DEVICE_TOKENS = 8192
"""The same on a GPU."""


class Trunk(LanguageModel, Protocol):
    """A language model some of whose weights learn. Its `reference()` is itself, trained."""

    def trunk_parameters(self) -> list[nn.Parameter]: ...


@dataclass(frozen=True)
class Texts:
    """Token ids of N answers and of the prompt of each, in the order of the rows of a `RewardData`."""

    prompts: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]


@dataclass(frozen=True)
class Unit:
    """Some labels on one prompt, and the rows of the answers that they speak of."""

    rows: tuple[int, ...]
    pairs: tuple[int, ...]
    rated: tuple[int, ...]

    @property
    def labels(self) -> int:
        return len(self.pairs) + len(self.rated)


@dataclass(frozen=True)
class Learning:
    """What a training came to."""

    tokens: int
    """Read, over all epochs."""
    steps: int
    skipped: int
    """Steps whose gradient was no finite number."""


def train_trunk(
    trunk: Trunk,
    data: RewardData,
    texts: Texts,
    config: RewardConfig,
    generator: torch.Generator,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Learning:
    """Train `trunk` in place on the labels of `data`, whose features are those of the trunk as it is.

    `progress` is called with (steps done, steps in all). Deterministic on the CPU for a generator and a number of
    threads. Raises `NotEnoughData` without labels.
    """
    usable, _ = usable_labels(data, config)
    joint = Joint.start(usable, config, generator)
    joint.to(trunk.device)
    optimizer = _optimizer(trunk, joint, config)
    units = units_of(usable)
    n_steps = max(1, round(len(usable) / config.trunk_labels))
    total, done, tokens, skipped = config.trunk_epochs * n_steps, 0, 0, 0
    for _ in range(config.trunk_epochs):
        order = torch.randperm(len(units), generator=generator)
        for part in order.tensor_split(n_steps):
            chosen = [units[i] for i in part.tolist()]
            if chosen:
                optimizer.decay(1 - done / total)
                tokens += accumulate(trunk, joint, chosen, texts)
                skipped += not optimizer.step()
            done += 1
            progress(done, total)
    return Learning(tokens, total, skipped)


def units_of(data: RewardData) -> list[Unit]:
    """The labels by prompt, at most `UNIT_LABELS` together; pairs before thumbs, in the data's order."""
    by_group: dict[int, list[tuple[str, int]]] = {}
    for kind, rows in (("pair", data.pairs_P2[:, 0]), ("thumb", data.rated_R)):
        for n, group in enumerate(data.groups_N[rows].tolist()):
            by_group.setdefault(group, []).append((kind, n))
    units: list[Unit] = []
    for labels in by_group.values():
        for first in range(0, len(labels), UNIT_LABELS):
            part = labels[first : first + UNIT_LABELS]
            pairs = tuple(n for kind, n in part if kind == "pair")
            rated = tuple(n for kind, n in part if kind == "thumb")
            rows = [*data.pairs_P2[list(pairs)].flatten().tolist(), *data.rated_R[list(rated)].tolist()]
            units.append(Unit(tuple(dict.fromkeys(rows)), pairs, rated))
    return units


class Joint:
    """The heads and what is fitted beside them, with the weight of each label for each head."""

    def __init__(self, data: RewardData, config: RewardConfig, l2: float, weights_GH: Tensor) -> None:
        self.data, self.config, self.l2 = data, config, l2
        begun = fit(data, config, l2, weights_GH)
        self.standardizer: Standardizer = begun.standardizer
        self.terms_NL = length_terms(data.lengths_N, *log_words(data))
        self.raters_R = data.raters()
        n_raters = int(self.raters_R.max()) + 1 if len(self.raters_R) and config.rater_spread > 0 else 0
        heads = weights_GH.shape[1]
        length_LH = torch.zeros(2, heads) if begun.length is None else begun.length.weight_LH
        made = (begun.weight_FH, begun.bias_H, length_LH, torch.zeros(max(n_raters, 0), heads))
        self.weight_FH, self.bias_H, self.length_LH, self.offset_UH = (nn.Parameter(t.clone()) for t in made)
        self.length_LH.requires_grad_(config.remove_length)
        self.pair_PH, self.rated_RH, self.prior = label_weights(data, config, weights_GH)

    @classmethod
    def start(cls, data: RewardData, config: RewardConfig, generator: torch.Generator) -> "Joint":
        """Heads as they are fitted on the trunk before its training."""
        l2 = choose_l2(data, config, folds_of(data.groups_N, config.folds, generator))
        return cls(data, config, l2, bootstrap(int(data.groups_N.max()) + 1, config.heads, generator))

    def parameters(self) -> list[nn.Parameter]:
        """Those that learn."""
        every = (self.weight_FH, self.bias_H, self.length_LH, self.offset_UH)
        return [p for p in every if p.numel() and p.requires_grad]

    def to(self, device: torch.device) -> None:
        """Everything to a device."""
        for parameter in (self.weight_FH, self.bias_H, self.length_LH, self.offset_UH):
            parameter.data = parameter.data.to(device)
        self.standardizer = Standardizer(self.standardizer.mean_F.to(device), self.standardizer.scale_F.to(device))
        for name in ("terms_NL", "pair_PH", "rated_RH", "raters_R"):
            setattr(self, name, getattr(self, name).to(device))

    def scores(self, features_KF: Tensor, rows_K: Tensor) -> Tensor:
        """Scores K,H by which the labels are explained: the effect of length included."""
        x_KF = (features_KF - self.standardizer.mean_F) * self.standardizer.scale_F
        return x_KF @ self.weight_FH + self.bias_H + self.terms_NL[rows_K] @ self.length_LH

    def loss(self, scores_NH: Tensor, pairs: Sequence[int], rated: Sequence[int]) -> Tensor:
        """These labels' part of `reward_fit.loss`; the mean over the heads. Scores of other answers are not looked at.

        Without its prior and penalty, which are `regular`.
        """
        config, device = self.config, scores_NH.device
        total = scores_NH.new_zeros(())
        if pairs:
            chosen, rejected = self.data.pairs_P2[list(pairs)].to(device).unbind(1)
            margins = scores_NH[chosen] - scores_NH[rejected]
            total = total + bradley_terry(margins, self.pair_PH[list(pairs)], smoothing=config.smoothing)
        if rated:
            at = list(rated)
            logits_RH = scores_NH[self.data.rated_R[at].to(device)]
            if len(self.offset_UH):
                raters = self.raters_R[at]
                logits_RH = logits_RH + self.offset_UH[raters.clamp(min=0)] * (raters >= 0)[:, None]
            labels_R = self.data.labels_R[at].to(device)
            total = total + thumbs_loss(logits_RH, labels_R, self.rated_RH[at], smoothing=config.smoothing)
        return total / scores_NH.shape[1]

    def regular(self) -> Tensor:
        """The offsets' prior and the penalties, the mean over the heads."""
        penalty = 0.5 * self.l2 * self.weight_FH.square().sum() + self.prior * self.offset_UH.square().sum()
        small = self.bias_H.square().sum() + self.length_LH.square().sum()
        return (penalty + TINY_RIDGE * small) / self.bias_H.shape[0]


def accumulate(trunk: Trunk, joint: Joint, units: Sequence[Unit], texts: Texts) -> int:
    """Add the gradient of one step's labels, scaled up to all labels; how many tokens were read."""
    scale = len(joint.data) / sum(unit.labels for unit in units)
    tokens = 0
    room = MICRO_TOKENS if trunk.device.type == "cpu" else DEVICE_TOKENS
    for batch in micro_units(units, texts, room):
        groups = [group_of(unit, texts) for unit in batch]
        scores_NH, read = read_scores(trunk, joint, groups)
        pairs = [n for unit in batch for n in unit.pairs]
        rated = [n for unit in batch for n in unit.rated]
        (scale * joint.loss(scores_NH, pairs, rated)).backward()
        tokens += read
    joint.regular().backward()
    return tokens


def read_scores(trunk: Trunk, joint: Joint, groups: Sequence[Group]) -> tuple[Tensor, int]:
    """Scores N,H with a gradient, 0 for answers that are not in these groups; and how many tokens were read."""
    packed = pack(groups, pad_id=trunk.pad_id, device=trunk.device)
    with trunk.reference():
        states = trunk.states(
            packed.tokens_RL,
            positions_BT=packed.positions_RL,
            attend=packed.attend_RLL,
            layers=(feature_layer(trunk.n_layers),),
        )
    features_KF = features_of([s.flatten(0, 1) for s in states], packed, trunk.eos_id)
    scores_KH = joint.scores(features_KF, packed.indices_N)
    blank_NH = scores_KH.new_zeros(len(joint.terms_NL), scores_KH.shape[1])
    return blank_NH.index_put((packed.indices_N,), scores_KH), sum(g.n_tokens for g in groups)


def group_of(unit: Unit, texts: Texts) -> Group:
    """The answers of a unit behind their prompt."""
    return Group(texts.prompts[unit.rows[0]], tuple(texts.answers[r] for r in unit.rows), unit.rows)


def micro_units(units: Sequence[Unit], texts: Texts, max_tokens: int) -> list[list[Unit]]:
    """Units of like length together, each batch of at most `max_tokens` (one unit at least)."""
    sized = sorted(units, key=lambda unit: (-group_of(unit, texts).n_tokens, unit.rows))
    batches: list[list[Unit]] = []
    room = 0
    for unit in sized:
        size = group_of(unit, texts).n_tokens
        if not batches or size > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(unit)
        room -= size
    return batches


class _Optimizer:
    """Adam on two groups, of which the trunk's may be kept in float32 beside weights of another type."""

    def __init__(self, trunk: list[nn.Parameter], heads: list[nn.Parameter], rate: float) -> None:
        self._trunk, self._heads, self._rate = trunk, heads, rate
        self._masters = [p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in trunk]
        groups = [{"params": self._masters, "lr": rate}, {"params": heads, "lr": HEAD_RATE}]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)

    def decay(self, share: float) -> None:
        """Set the learning rates to a share of the first ones."""
        for group, rate in zip(self._adam.param_groups, (self._rate, HEAD_RATE), strict=True):
            group["lr"] = rate * share

    @torch.no_grad()
    def step(self) -> bool:
        """Clip and step, then forget the gradients; False where they are no finite numbers, and nothing changes."""
        for parameter, master in zip(self._trunk, self._masters, strict=True):
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
        every = [*self._masters, *self._heads]
        norm = nn.utils.clip_grad_norm_(every, MAX_GRAD_NORM)
        sound = bool(norm.isfinite())
        if sound:
            self._adam.step()
            for parameter, master in zip(self._trunk, self._masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        self._adam.zero_grad(set_to_none=True)
        return sound


def _optimizer(trunk: Trunk, joint: Joint, config: RewardConfig) -> _Optimizer:
    rate = config.trunk_rate or TRUNK_RATES[config.trunk]
    return _Optimizer(trunk.trunk_parameters(), joint.parameters(), rate)
