"""The features that earlier readings left in the data folder."""

from trainer.adapters import environment
from trainer.adapters.feature_cache import FeatureCache, space_of
from trainer.adapters.policies import LanguageModel
from trainer.journal import BaseModelInfo
from trainer.settings import TrainerSettings


def kept_features(settings: TrainerSettings, base: BaseModelInfo, lm: LanguageModel) -> FeatureCache | None:
    """What was read on this base, code and machine before; None where it is off or the base has no hash."""
    if not settings.feature_cache_mb or base.sha256 is None:
        return None
    decides = {
        "base": base.sha256,
        "code": environment.code_version(),
        "environment": environment.environment().model_dump(),
        "numbers": [str(lm.dtype), str(lm.device)],
    }
    return FeatureCache(
        settings.features,
        space=space_of(decides),
        max_bytes=settings.feature_cache_mb * 1_000_000,
        seconds=settings.checkpoint_seconds,
    )
