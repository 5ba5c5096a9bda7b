"""Rewards that need more than the features of the frozen base: a look by a trunk of their own, or the prompt's segment.

Shapes: N answers, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from trainer.core.reward import RewardConfig, RewardEnsemble, RewardSignal, signal
from trainer.core.rewards import Tokens

Read = Callable[[Sequence[Tokens], Sequence[str]], Tensor]
"""Prompts (token ids) and answers (texts), one of each for each answer, to features N,F."""


@dataclass(frozen=True)
class LookedReward:
    """The reward model's reward where features of the frozen base don't decide it alone.

    It reads answers as texts, as they were read when the heads were fitted. A prompt of no segment, or of one without
    heads of its own, has the common heads.
    """

    common: RewardSignal
    read: Read | None = None
    """A trunk's own look; None takes the features of the frozen base as they come."""
    by_segment: Mapping[str, RewardSignal] = field(default_factory=dict[str, RewardSignal])
    segments: Mapping[Tokens, str] = field(default_factory=dict[Tokens, str], repr=False)
    """The segment of a prompt."""

    def of(self, features_NF: Tensor, prompts: Sequence[Tokens], texts: Sequence[str]) -> Tensor:
        """Rewards N, each by the heads of its prompt's segment."""
        own_NF = features_NF if self.read is None else self.read(prompts, texts)
        rewards_N = self.common(own_NF)
        names = [self.segments.get(tuple(prompt), "") for prompt in prompts]
        for name in sorted(set(names) & set(self.by_segment)):
            rows = [n for n, found in enumerate(names) if found == name]
            rewards_N[rows] = self.by_segment[name](own_NF[rows])
        return rewards_N


def looked_reward(
    ensemble: RewardEnsemble,
    config: RewardConfig,
    reference_NF: Tensor,
    *,
    prompts: Sequence[Tokens],
    texts: Sequence[str],
    read: Read | None = None,
    segments: Mapping[Tokens, str],
) -> RewardSignal | LookedReward:
    """The reward normalized on reference answers of the frozen base, which all heads of all segments are given.

    `reference_NF` are the base's features of these answers; with `read` they are looked at anew.
    """
    seen_NF = reference_NF if read is None else read(prompts, texts)
    common = signal(ensemble, seen_NF, config)
    own = {name: signal(heads, seen_NF, config) for name, heads in ensemble.segments.items()}
    if read is None and not own:
        return common
    return LookedReward(common, read, own, segments if own else {})
