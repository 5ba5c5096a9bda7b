"""What the reward model says of production answers: the selector queues those that its heads disagree on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from torch import Tensor

from schemas.tables import ScoreRow
from trainer import reward_trunks
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.lake import Answer, TrainerLake
from trainer.adapters.policies import LanguageModel
from trainer.adapters.registry import REWARD_FILE, Registry
from trainer.core.reward import RewardEnsemble
from trainer.features import Progress, featurize
from trainer.records import VersionRecord
from trainer.settings import Limits


@dataclass(frozen=True)
class RewardModel:
    """A version's reward model: its heads, and where the trunk is that they read."""

    folder: Path
    record: VersionRecord
    ensemble: RewardEnsemble

    @property
    def id(self) -> str:
        return self.record.reward_model.id

    def scores(self, features_NF: Tensor, answers: Sequence[Answer]) -> Tensor:
        """Scores N,H of answers, each by the weights of the domain in which it was served."""
        by = self.record.config.reward.by
        return self.ensemble.score_in(features_NF, [answer.domain(by) for answer in answers])

    def reads(self, lm: LanguageModel) -> LanguageModel:
        """What it reads answers with: the base, or a trunk of its own on it; raises `CorruptAdapter`."""
        return reward_trunks.load(self.folder, self.record, lm)

    @classmethod
    def of(cls, registry: Registry, version: str) -> "RewardModel":
        """A version's; raises `UnknownVersion` or `CorruptAdapter`."""
        folder = registry.folder(version)
        return cls(folder, registry.record(version), RewardEnsemble.load(folder / REWARD_FILE))


def latest_reward_model(registry: Registry) -> RewardModel | None:
    """The newest reward model that passed its own gate; None before there is one.

    The version that it trained may have been rejected all the same.
    """
    for version in reversed(registry.versions()):
        record = registry.record(version)
        if all(gate.passed for gate in record.gates if gate.name in ("reward_model", "finite")):
            return RewardModel.of(registry, version)
    return None


def score(
    lm: LanguageModel,
    model: RewardModel,
    answers: Sequence[Answer],
    *,
    limits: Limits,
    now: Callable[[], datetime],
    progress: Progress = lambda share: None,
    cache: FeatureCache | None = None,
) -> list[ScoreRow]:
    """One row an answer, with one score a head."""
    if not answers:
        return []
    reads = model.reads(lm)
    kept = cache if reads is lm else None  # what is kept are features of the base
    features_NF = features_of(reads, answers, limits=limits, progress=progress, cache=kept)
    return rows_of(answers, model.scores(features_NF, answers), model.id, now)


def features_of(
    lm: LanguageModel,
    answers: Sequence[Answer],
    *,
    limits: Limits,
    progress: Progress = lambda share: None,
    cache: FeatureCache | None = None,
) -> Tensor:
    """Features N,F of answers on a model, read in the order in which cycles read those with labels: oldest first."""
    oldest_first = sorted(answers, key=lambda a: a.response_id)
    table = featurize(lm, [(a.prompt, a.completion) for a in oldest_first], limits, progress, cache)
    return table.features_NF[[table.rows[a.prompt, a.completion] for a in answers]]


def rows_of(
    answers: Sequence[Answer], scores_NH: Tensor, reward_model: str, now: Callable[[], datetime]
) -> list[ScoreRow]:
    """Rows of gold.scores for answers and their heads' scores."""
    return [
        ScoreRow(
            response_id=a.response_id,
            prompt_id=a.prompt_id,
            version=a.version,
            reward_model=reward_model,
            head_scores=tuple(scores),
            scored_at=now(),
        )
        for a, scores in zip(answers, scores_NH.tolist(), strict=True)
    ]


def score_newest(
    lm: Callable[[], LanguageModel],
    lake: TrainerLake,
    registry: Registry,
    *,
    limit: int,
    limits: Limits,
    now: Callable[[], datetime],
    progress: Progress = lambda share: None,
    cache: FeatureCache | None = None,
) -> int:
    """Score the newest answers that the newest reward model hasn't seen; how many. `lm` is loaded only for some."""
    found = latest_reward_model(registry)
    if found is None:
        return 0
    answers = lake.unscored(found.id, limit=limit)
    if not answers:
        return 0
    rows = score(lm(), found, answers, limits=limits, now=now, progress=progress, cache=cache)
    lake.append_scores(rows)
    return len(rows)
