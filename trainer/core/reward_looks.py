"""The reward model's reward where it looks at more than an answer's features: with a trunk of its own, or by domain.

Shapes: N answers, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from trainer.core.domains import Shares
from trainer.core.models import Tokens
from trainer.core.reward import RewardConfig, RewardEnsemble, RewardSignal, signal

Read = Callable[[Sequence[Tokens], Sequence[str]], Tensor]
"""Prompts (token ids) and answers (texts), one of each for each answer, to features N,F."""


@dataclass(frozen=True)
class DomainReward:
    """Answers by the weights of the domains in which their prompt is asked; by the common ones if nobody knows."""

    signal: RewardSignal
    asked: Mapping[Tokens, Shares] = field(repr=False)

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N."""
        return self.signal(features_NF, [self.asked.get(tuple(prompt), ()) for prompt in prompts])


@dataclass(frozen=True)
class LookedReward:
    """A look of its own at each answer, beside the frozen base's, whose features it leaves to judge and safety head.

    It reads answers as texts, as they were read when the heads were fitted, and not the tokens that were drawn.
    """

    signal: RewardSignal | DomainReward
    read: Read

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N."""
        return rated(self.signal, self.read(prompts, texts), prompts)


ModelReward = RewardSignal | DomainReward | LookedReward


def rated(signal: RewardSignal | DomainReward, features_NF: Tensor, prompts: Sequence[Tokens]) -> Tensor:
    """Rewards N of answers that have been read."""
    return signal.of(features_NF, prompts, ()) if isinstance(signal, DomainReward) else signal(features_NF)


def normalized_signal(
    ensemble: RewardEnsemble,
    config: RewardConfig,
    reference_NF: Tensor,
    prompts: Sequence[Tokens],
    asked: Mapping[Tokens, Shares],
) -> RewardSignal | DomainReward:
    """Normalized on reference answers to `prompts`; by domain where some have weights of their own."""
    if ensemble.own is None:
        return signal(ensemble, reference_NF, config)
    shares = [asked.get(tuple(prompt), ()) for prompt in prompts]
    return DomainReward(signal(ensemble, reference_NF, config, shares), asked)


def looked_reward(
    ensemble: RewardEnsemble,
    config: RewardConfig,
    reference_NF: Tensor,
    *,
    prompts: Sequence[Tokens],
    texts: Sequence[str],
    read: Read | None = None,
    asked: Mapping[Tokens, Shares] | None = None,
) -> ModelReward:
    """The reward normalized on reference answers of the frozen base.

    `reference_NF` are the base's features of these answers; with `read` they are looked at anew. `asked` are the
    domains of prompts by their tokens.
    """
    if read is None:
        return normalized_signal(ensemble, config, reference_NF, prompts, asked or {})
    return LookedReward(normalized_signal(ensemble, config, read(prompts, texts), prompts, asked or {}), read)
