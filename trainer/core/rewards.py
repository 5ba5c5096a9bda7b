"""Several rewards as one: the ensemble of what people said, and a reward of the user's own beside it or in its place.

Each is normalized on the answers of the frozen base and clipped, so that weights mean what they say whatever units a
reward has; their weighted mean is normalized once more, so that a nat of KL costs what it costs with one reward alone.
What people said has a ceiling on its share wherever there is another reward: optimized alone, thumbs bring flattery
(the rollback of GPT-4o in April 2025 was one reward from thumbs too strong beside the others).

Shapes: N answers, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from schemas.errors import RewardFailed
from trainer.core.models import LanguageModel, Tokens

LARGEST = 1e30
"""What is larger has no place in the arithmetic of 32 bits that follows."""
FlatReward = Callable[[Tensor], Tensor]
"""Features N,F to rewards N."""


@runtime_checkable
class TextReward(Protocol):
    """A reward that reads answers, and not their features alone."""

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N of answers; `prompts` are token ids, one for each answer. Raises `RewardFailed`."""
        ...


class RawReward(Protocol):
    """A reward of the user's own, in its own units."""

    def __call__(self, features_NF: Tensor, prompts: Sequence[str], texts: Sequence[str], /) -> Sequence[float]: ...


Reward = FlatReward | TextReward


def rewards_of(
    reward: Reward, lm: LanguageModel, features_NF: Tensor, prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> Tensor:
    """Rewards N by either kind of reward; texts are decoded only for one that reads them."""
    if isinstance(reward, TextReward):
        return reward.of(features_NF, prompts, [lm.decode(answer) for answer in answers])
    return reward(features_NF)


def usable(found: object, n: int, who: str) -> list[float]:
    """The rewards as floats; raises `RewardFailed` where they are not `n` finite numbers."""
    try:
        listed = found.detach().flatten() if isinstance(found, Tensor) else found
        values = [float(value) for value in listed]  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError) as error:
        raise RewardFailed(f"{who} must give a list of numbers: {error}") from error
    if len(values) != n:
        raise RewardFailed(f"{who} gave {len(values)} rewards for {n} answers: give one for each, in their order")
    if not all(abs(value) <= LARGEST for value in values):
        raise RewardFailed(f"{who} gave a reward that is NaN or infinite, or beyond {LARGEST:g}: give finite numbers")
    return values


def thumbs_share(ensemble: float, extra: float, ceiling: float) -> float:
    """The share of the ensemble in the reward: by the weights, and at most `ceiling`."""
    return min(ceiling, ensemble / (ensemble + extra))


@dataclass(frozen=True)
class Normalized:
    """clip((x - center) / scale)."""

    center: float
    scale: float
    clip: float

    @classmethod
    def on(cls, reference_N: Tensor, clip: float) -> "Normalized":
        """By the reference answers. Where these are all alike there is no unit to take, and it stays as it is."""
        spread = float(reference_N.std()) if len(reference_N) > 1 else 0.0
        return cls(float(reference_N.mean()), spread if spread > 1e-6 else 1.0, clip)

    def __call__(self, values_N: Tensor) -> Tensor:
        return ((values_N - self.center) / self.scale).clamp(-self.clip, self.clip)


@dataclass(frozen=True)
class CombinedReward:
    """share * ensemble + (1 - share) * the user's own reward; both normalized, and their sum as well."""

    ensemble: Reward
    raw: RawReward
    share: float
    own: Normalized
    total: Normalized
    prompt_texts: Mapping[Tokens, str] = field(repr=False)

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N; a prompt that is not known by its tokens is an error of the caller."""
        raw_N = _tensor(self.raw(features_NF, [self.prompt_texts[tuple(p)] for p in prompts], texts))
        said_N = _said(self.ensemble, features_NF, prompts, texts)
        return self.total(_mixed(self.share, said_N, self.own(raw_N)))

    @classmethod
    def normalized_on(
        cls,
        ensemble: Reward,
        raw: RawReward,
        *,
        share: float,
        clip: float,
        features_NF: Tensor,
        prompts: Sequence[str],
        texts: Sequence[str],
        prompt_texts: Mapping[Tokens, str],
        tokens: Sequence[Tokens] = (),
    ) -> "CombinedReward":
        """With both norms taken on reference answers (features, prompts and texts of the frozen base).

        `tokens` are those of the prompts, for an ensemble that reads answers itself.
        """
        raw_N = _tensor(raw(features_NF, prompts, texts))
        own = Normalized.on(raw_N, clip)
        said_N = _said(ensemble, features_NF, tokens, texts)
        total = Normalized.on(_mixed(share, said_N, own(raw_N)), clip)
        return cls(ensemble, raw, share, own, total, prompt_texts)


def _mixed(share: float, ensemble_N: Tensor, own_N: Tensor) -> Tensor:
    return share * ensemble_N.float().cpu() + (1 - share) * own_N


def _said(ensemble: Reward, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
    """What people said, by the features or by a look of the reward model's own."""
    if isinstance(ensemble, TextReward):
        return ensemble.of(features_NF, prompts, texts)
    return ensemble(features_NF)


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)
