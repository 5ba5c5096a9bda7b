"""Whether a version answers better than another: win rates with intervals, and the answers to compare.

The interval is a percentile bootstrap over prompts, with ties counted half: answers to one prompt share its difficulty,
so prompts, not answers, are drawn again.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.models import Policy
from trainer.core.rollout import SamplingConfig, look, sample


@dataclass(frozen=True)
class WinRate:
    """Share of prompts on which the new version wins (ties half), with a 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    """Prompts compared."""


@dataclass(frozen=True)
class Answers:
    """One answer to each prompt, with what the frozen base says of them."""

    texts: tuple[str, ...]
    features_NF: Tensor
    """On the CPU; give them to a judge's reward ensemble."""
    kl: float
    """Mean nats an answer against the base; 0 for the base itself."""
    finished: float
    """Share that ended with EOS."""
    tokens: float
    """Mean length in tokens."""


def win_rate(new_N: Sequence[float], old_N: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> WinRate:
    """Compare scores of two versions, aligned by prompt. Give a mean score a prompt if there are several answers."""
    if len(new_N) != len(old_N) or not len(new_N):
        raise ValueError(f"need as many new scores as old ones, and one at least: got {len(new_N)} and {len(old_N)}")
    difference = torch.tensor(list(new_N), dtype=torch.float64) - torch.tensor(list(old_N), dtype=torch.float64)
    wins = (difference > 0).double() + 0.5 * (difference == 0).double()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(wins), (resamples, len(wins)), generator=generator)
    low, high = torch.quantile(wins[drawn].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return WinRate(float(wins.mean()), low, high, len(wins))


def sample_answers(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    seed: int,
    batch: int = 64,
    reference: bool = False,
) -> Answers:
    """Draw one answer to each prompt (token ids); `reference` samples the base with the adapter off.

    With the same seed two versions see the same uniform numbers, which takes chance out of the comparison.
    """
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = []
    features: list[Tensor] = []
    kl = finished = tokens = 0.0
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        if reference:
            with policy.reference():
                rollouts = sample(policy, part, 1, config, generator)
        else:
            rollouts = sample(policy, part, 1, config, generator)
        answers = rollouts.answers()
        looked = look(policy.lm, rollouts.prompts, answers, temperature=config.temperature)
        width = looked.log_probs_NT.shape[1]
        ratio_NT = (rollouts.log_probs_NT[:, :width] - looked.log_probs_NT) * rollouts.mask_NT[:, :width]
        kl += float(ratio_NT.sum())
        finished += float(rollouts.finished_N.sum())
        tokens += float(rollouts.mask_NT.sum())
        texts += [policy.lm.decode(answer) for answer in answers]
        features.append(looked.features_NF.cpu())
    n = len(prompts)
    return Answers(tuple(texts), torch.cat(features), 0.0 if reference else kl / n, finished / n, tokens / n)
