"""The reward model's reward where it reads answers with a trunk of its own.

Shapes: N answers, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.core.reward import RewardConfig, RewardEnsemble, RewardSignal, signal
from trainer.core.rewards import Tokens

Read = Callable[[Sequence[Tokens], Sequence[str]], Tensor]
"""Prompts (token ids) and answers (texts), one of each for each answer, to features N,F."""


@dataclass(frozen=True)
class LookedReward:
    """A look of its own at each answer, beside the frozen base's, whose features it leaves to judge and safety head.

    It reads answers as texts, as they were read when the heads were fitted, and not the tokens that were drawn.
    """

    signal: RewardSignal
    read: Read

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N."""
        return self.signal(self.read(prompts, texts))


def looked_reward(
    ensemble: RewardEnsemble,
    config: RewardConfig,
    reference_NF: Tensor,
    *,
    prompts: Sequence[Tokens],
    texts: Sequence[str],
    read: Read | None = None,
) -> RewardSignal | LookedReward:
    """The reward normalized on reference answers of the frozen base.

    `reference_NF` are the base's features of these answers; with `read` they are looked at anew.
    """
    if read is None:
        return signal(ensemble, reference_NF, config)
    return LookedReward(signal(ensemble, read(prompts, texts), config), read)
