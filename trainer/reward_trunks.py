"""The reward model's own trunk in a cycle: trained anew or taken over from the parent, and what it reads.

    labels ─► frozen features ─► heads ─┬─► trunk trained with them on all prompts ─► features of every answer ─► heads
                                        └─► trunks without a fold of the prompts ──► what is chosen by folds

A parent's trunk is taken over, with those of its folds, while few labels are new (`REFIT_SHARE`): then the heads alone
are fitted again. A new one begins at the base and not at the old one, so that what it learned can be traced to labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from trainer.adapters.policies import LanguageModel, LoraSettings
from trainer.adapters.registry import Registry
from trainer.adapters.trunks import RewardTrunk, Weights, load_trunks, make_trunk, save_trunks
from trainer.core.dataset import Labels, SplitConfig, share_of
from trainer.core.labels import prompt_key
from trainer.core.models import Tokens
from trainer.core.reward_data import of_answers
from trainer.core.reward_fit import CrossFitted, RewardConfig
from trainer.core.reward_looks import Read
from trainer.core.reward_trunk import Texts, train_trunk
from trainer.core.rollout import look
from trainer.features import (
    AnswerKey,
    FeatureTable,
    Progress,
    answers_of,
    encode_answer,
    encode_prompt,
    featurize,
    reward_data,
)
from trainer.records import RewardTrunkInfo, VersionRecord
from trainer.settings import CycleConfig, Limits, LoraOptions

TRUNK_FILE = "reward_trunk.safetensors"
WHOLE = "whole"


def _silent(share: float) -> None:
    """Told nothing."""


@dataclass(frozen=True)
class ParentTrunk:
    """The trunk that the parent's rewards came from, and the labels (ids) that it learned from."""

    file: Path
    info: RewardTrunkInfo
    learned_from: frozenset[str]
    judged_by: str
    """Whose labels were kept from it: see `trainer.core.dataset`, rule 5."""


@dataclass(frozen=True)
class TrunkWeights:
    """A trunk and those of its folds. `trained_in` is the version whose cycle trained it; None: this cycle's."""

    parts: Mapping[str, Weights]
    labels: int
    """That it learned from."""
    new_labels: int = 0
    """That the heads learn from and the trunk did not."""
    trained_in: str | None = None

    @property
    def whole(self) -> Weights:
        return self.parts[WHOLE]


@dataclass(frozen=True)
class Seen:
    """What the reward model's heads are fitted on."""

    table: FeatureTable
    cross: CrossFitted | None = None
    weights: TrunkWeights | None = None


@dataclass
class Trunks:
    """The trunk of one reward model, on a base. With the kind `frozen` it is the base, and nothing is done."""

    lm: LanguageModel
    reward: RewardConfig
    lora: LoraOptions
    limits: Limits
    seed: int
    progress: Progress = _silent
    parent: ParentTrunk | None = None
    tokens: Callable[[int], None] = lambda n: None
    """Told of tokens that a trunk was trained on."""
    _model: RewardTrunk | None = field(default=None, repr=False)

    @classmethod
    def of(cls, lm: LanguageModel, config: CycleConfig, **given: object) -> "Trunks":
        """By a cycle's configuration."""
        return cls(lm, config.reward, config.lora, config.limits, config.seed, **given)  # type: ignore[arg-type]

    def look(
        self, train: Labels, others: Sequence[Labels], table: FeatureTable, *, judged_by: str | None = None
    ) -> Seen:
        """The features to fit the heads on, of the labels to train on and of `others`, by a trunk that saw `train`.

        `table` are those of the frozen base. Raises `CorruptAdapter` where the parent's trunk can't be taken over.
        """
        if self.reward.trunk == "frozen":
            return Seen(table)
        weights = self._taken_over(train, judged_by) or self._trained(train, table)
        every = [a for labels in (train, *others) for a in answers_of(labels)]
        return Seen(self._table(weights.whole, every, self._heard), self._cross(train, weights.parts), weights)

    def cross(self, train: Labels, table: FeatureTable) -> CrossFitted | None:
        """Each fold as a trunk sees it that learned from the other folds; no trunk for all of them is trained."""
        if self.reward.trunk == "frozen":
            return None
        return self._cross(train, self._trained(train, table, whole=False).parts)

    def _cross(self, train: Labels, parts: Mapping[str, Weights]) -> CrossFitted:
        answers = answers_of(train)
        tables = [self._table(parts[f"fold{n}"], answers, self._heard) for n in range(self.reward.trunk_folds)]
        return CrossFitted(self.folds(train), tuple(reward_data(train, seen).features_NF for seen in tables))

    def _heard(self, share: float) -> None:
        """A request to stop is heard; how far the reading is, is not told."""
        self.progress(1.0)

    def folds(self, train: Labels) -> Tensor:
        """The fold N of each answer, by a hash of its prompt: the same in every cycle, as a trunk is taken over."""
        prompts = [prompt for prompt, _ in dict.fromkeys(answers_of(train))]
        shares = {p: share_of("trunk", prompt_key(p), 0) for p in dict.fromkeys(prompts)}
        return torch.tensor([int(shares[p] * self.reward.trunk_folds) for p in prompts], dtype=torch.long)

    def _taken_over(self, train: Labels, judged_by: str | None) -> TrunkWeights | None:
        """The parent's, where it has learned from enough of the labels."""
        if self.parent is None or self.parent.judged_by != judged_by:
            return None
        known = self.parent.learned_from
        new = sum(row.id not in known for row in train.rows())
        if new >= self.reward.refit_share * max(1, len(known)):
            return None
        parts = load_trunks(self.parent.file, self.lm, self.parent.info.kind, sha256=self.parent.info.sha256)
        return TrunkWeights(parts, len(known), new, self.parent.info.trained_in)

    def _trained(self, train: Labels, table: FeatureTable, *, whole: bool = True) -> TrunkWeights:
        folds_N = self.folds(train)
        data, texts = reward_data(train, table), texts_of(self.lm, train, self.limits)
        model = self.model()
        begun = model.weights()
        parts: dict[str, Weights] = {}
        n = self.reward.trunk_folds
        for fold in range(n + whole):
            part = data if fold == n else of_answers(data, folds_N != fold)
            model.become(begun)
            if len(part):
                generator = torch.Generator().manual_seed(1000 * self.seed + fold)
                progress = _stretch(self.progress, fold, n + whole)
                self.tokens(train_trunk(model, part, texts, self.reward, generator, progress=progress).tokens)
            parts[WHOLE if fold == n else f"fold{fold}"] = model.weights()
        return TrunkWeights(parts, len(data))

    def table(self, labels: Labels, weights: TrunkWeights | None, frozen: FeatureTable) -> FeatureTable:
        """Features of other labels' answers by a trunk; those of the frozen base where there is none."""
        return frozen if weights is None else self._table(weights.whole, answers_of(labels), _silent)

    def _table(self, weights: Weights, answers: Sequence[AnswerKey], progress: Progress) -> FeatureTable:
        return featurize(self.with_weights(weights), answers, self.limits, progress)

    def model(self) -> RewardTrunk:
        """The trunk's model, made at its first use."""
        if self._model is None:
            assert self.reward.trunk != "frozen"
            settings = LoraSettings(
                rank=self.reward.trunk_rank,
                alpha=2 * self.reward.trunk_rank,
                target_modules=self.lora.target_modules,
                top_share=self.lora.top_share or 1.0,
            )
            self._model = make_trunk(self.lm, self.reward.trunk, settings, seed=self.seed)
        return self._model

    def with_weights(self, weights: Weights) -> RewardTrunk:
        """The trunk with these weights."""
        model = self.model()
        model.become(weights)
        return model

    def reader(self, weights: TrunkWeights | None) -> Read | None:
        """How the answers to come are looked at; None where the frozen base does that anyway."""
        if weights is None:
            return None
        self.with_weights(weights.whole)
        return self.read

    def read(self, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Features N,F of answers by the trunk as it is now, on the CPU."""
        model = self.model()
        answers = [encode_answer(model, text, self.limits) for text in texts]
        return look(model, prompts, answers, log_probs_too=False).features_NF.cpu()


def _stretch(progress: Progress, part: int, parts: int) -> Callable[[int, int], None]:
    return lambda done, total: progress((part + done / total) / parts)


def texts_of(lm: LanguageModel, labels: Labels, limits: Limits) -> Texts:
    """Token ids of the answers that labels speak of, in the order of `reward_data`."""
    keys = list(dict.fromkeys(answers_of(labels)))
    prompts = {p: tuple(encode_prompt(lm, p, limits)) for p in dict.fromkeys(prompt for prompt, _ in keys)}
    answers = tuple(tuple(encode_answer(lm, text, limits)) for _, text in keys)
    return Texts(tuple(prompts[prompt] for prompt, _ in keys), answers)


def save(
    weights: TrunkWeights, directory: Path, version: str, lm: LanguageModel, config: CycleConfig
) -> RewardTrunkInfo:
    """Write the trunk into a version's folder."""
    kind = config.reward.trunk
    assert kind != "frozen"
    return RewardTrunkInfo(
        kind=kind,
        file=TRUNK_FILE,
        sha256=save_trunks(directory / TRUNK_FILE, lm, kind, weights.parts),
        trained_in=weights.trained_in or version,
        labels=weights.labels,
        new_labels=weights.new_labels,
    )


def load(folder: Path, record: VersionRecord, lm: LanguageModel) -> LanguageModel:
    """The model that a version's reward model reads answers with; raises `CorruptAdapter`."""
    info, config = record.reward_model.trunk, record.config
    if info is None:
        return lm
    parts = load_trunks(folder / info.file, lm, info.kind, sha256=info.sha256)
    return Trunks.of(lm, config).with_weights(parts[WHOLE])


def parent_trunk(registry: Registry, version: str, config: CycleConfig) -> ParentTrunk | None:
    """The trunk of a version, where a cycle of this configuration may go on with it; None where it may not.

    It may where trunk, splits and limits were set as they are now: with other splits it might have learned from what is
    held out today.
    """
    record = registry.record(version)
    info = record.reward_model.trunk
    if info is None or _made_by(record.config) != _made_by(config):
        return None
    evidence = registry.evidence(info.trained_in)
    if evidence is None:
        return None
    ids = frozenset(e.id for e in evidence if e.set == "train" and e.kind in ("pair", "rating"))
    return ParentTrunk(registry.folder(version) / info.file, info, ids, record.evaluation.judged_by)


def _made_by(config: CycleConfig) -> tuple[object, ...]:
    """What decides a trunk, and what it may have learned from."""
    reward, split = config.reward, config.split
    trunk = (reward.trunk, reward.trunk_epochs, reward.trunk_labels, reward.trunk_rate, reward.trunk_rank)
    return (*trunk, reward.trunk_folds, config.lora, config.limits, config.dtype, _sides(split))


def _sides(split: SplitConfig) -> tuple[object, ...]:
    return (split.seed, split.holdout_share, split.judge_share, split.judge_only_share, split.min_raters)


def figures(weights: TrunkWeights | None) -> dict[str, float]:
    """Of the trunk, for the record: 1 where it was trained in this cycle, and on how many labels."""
    if weights is None:
        return {}
    return {
        "reward_trunk_trained": float(weights.trained_in is None),
        "reward_trunk_labels": float(weights.labels),
        "reward_trunk_new_labels": float(weights.new_labels),
    }
