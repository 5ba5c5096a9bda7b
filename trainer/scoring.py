"""What the reward model says of production answers: the selector queues those that its heads disagree on."""

from collections.abc import Callable, Sequence
from datetime import datetime

from torch import Tensor

from schemas.tables import ScoreRow
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.lake import Answer, TrainerLake
from trainer.adapters.policies import LanguageModel
from trainer.adapters.registry import REWARD_FILE, Registry
from trainer.core.reward import RewardEnsemble
from trainer.features import Progress, featurize
from trainer.settings import Limits


def latest_reward_model(registry: Registry) -> tuple[str, RewardEnsemble] | None:
    """The newest reward model that passed its own gate, with its id; None before there is one.

    The version that it trained may have been rejected all the same.
    """
    for version in reversed(registry.versions()):
        record = registry.record(version)
        if all(gate.passed for gate in record.gates if gate.name in ("reward_model", "finite")):
            return record.reward_model.id, RewardEnsemble.load(registry.folder(version) / REWARD_FILE)
    return None


def score(
    lm: LanguageModel,
    ensemble: RewardEnsemble,
    reward_model: str,
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
    oldest_first = sorted(answers, key=lambda a: a.response_id)  # the order in which cycles read those with labels
    table = featurize(lm, [(a.prompt, a.completion) for a in oldest_first], limits, progress, cache)
    rows = [table.rows[a.prompt, a.completion] for a in answers]
    return rows_of(answers, ensemble.score(table.features_NF)[rows], reward_model, now)


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
    reward_model, ensemble = found
    answers = lake.unscored(reward_model, limit=limit)
    if not answers:
        return 0
    rows = score(lm(), ensemble, reward_model, answers, limits=limits, now=now, progress=progress, cache=cache)
    lake.append_scores(rows)
    return len(rows)
