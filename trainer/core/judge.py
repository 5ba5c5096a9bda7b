"""Whether a version answers better than another: win rates with intervals, and the answers to compare.

The interval is a percentile bootstrap over prompts, with ties counted half: answers to one prompt share its difficulty,
so prompts, not answers, are drawn again. A win and a loss are added first (in the way of Agresti and Coull 1998), so
that ten wins in ten, or ten ties, don't pass for certainty.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainer.core.models import Policy
from trainer.core.packing import group_answers
from trainer.core.parallel import ALONE, Peers, own_groups, sample_together
from trainer.core.rollout import SamplingConfig, look


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
    ids: tuple[tuple[int, ...], ...] = ()
    """Tokens of each answer, EOS included."""
    log_prob_N: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Log-probability of each answer under the version that gave it."""
    kl_N: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Log-ratio of each answer against the base; their mean is `kl`."""

    def first(self, n: int) -> "Answers":
        """The first `n` of them; the means stay those of all."""
        return replace(
            self,
            texts=self.texts[:n],
            features_NF=self.features_NF[:n],
            ids=self.ids[:n],
            log_prob_N=self.log_prob_N[:n],
            kl_N=self.kl_N[:n],
        )


def win_rate(new_N: Sequence[float], old_N: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> WinRate:
    """Compare scores of two versions, aligned by prompt. Give a mean score a prompt if there are several answers."""
    if len(new_N) != len(old_N) or not len(new_N):
        raise ValueError(f"need as many new scores as old ones, and one at least: got {len(new_N)} and {len(old_N)}")
    difference = torch.tensor(list(new_N), dtype=torch.float64) - torch.tensor(list(old_N), dtype=torch.float64)
    wins = (difference > 0).double() + 0.5 * (difference == 0).double()
    generator = torch.Generator().manual_seed(seed)
    mean, widened = float(wins.mean()), torch.cat([wins, torch.tensor([1.0, 0.0], dtype=torch.float64)])
    drawn = torch.randint(len(widened), (resamples, len(widened)), generator=generator)
    low, high = torch.quantile(widened[drawn].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return WinRate(mean, min(low, mean), max(high, mean), len(wins))


def certainty(new_NH: Tensor, old_NH: Tensor, *, seed: int = 0, resamples: int = 2000) -> float:
    """The chance that the new version wins more than half of the comparisons, by the judge and its doubts about itself.

    Scores N,H of both versions by prompt and head. Each head learned from a bootstrap sample of the judge's labels, so
    how much their win rates differ tells how far other labels would have changed the verdict; prompts are resampled as
    in `win_rate`. Raises ValueError for scores of unlike shape, or none.
    """
    if new_NH.shape != old_NH.shape or not new_NH.numel():
        raise ValueError(f"need as many new scores as old ones, and one at least: got {new_NH.shape}, {old_NH.shape}")
    difference_NH = (new_NH - old_NH).double()
    wins_NH = (difference_NH > 0).double() + 0.5 * (difference_NH == 0).double()
    (n, heads), generator = wins_NH.shape, torch.Generator().manual_seed(seed)
    widened_MH = torch.cat([wins_NH, wins_NH.new_ones(1, heads), wins_NH.new_zeros(1, heads)])
    head_R1 = torch.randint(heads, (resamples, 1), generator=generator)
    prompt_RM = torch.randint(n + 2, (resamples, n + 2), generator=generator)
    rate_R = widened_MH[prompt_RM, head_R1].mean(1)
    return float((rate_R > 0.5).double().mean() + 0.5 * (rate_R == 0.5).double().mean())


def sample_answers(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    seed: int,
    batch: int = 64,
    reference: bool = False,
    peers: Peers = ALONE,
) -> Answers:
    """Draw one answer to each prompt (token ids); `reference` samples the base with the adapter off.

    With the same seed two versions see the same uniform numbers, which takes chance out of the comparison. Of several
    processes each draws and reads its own rows, and all have the whole.
    """
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = []
    features: list[Tensor] = []
    ids: list[tuple[int, ...]] = []
    log_probs: list[Tensor] = []
    ratios: list[Tensor] = []
    finished = tokens = 0.0
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        with policy.reference() if reference else nullcontext():
            rollouts = sample_together(policy, part, 1, config, generator, peers)
        answers = rollouts.answers()
        looked = look(
            policy.lm,
            rollouts.prompts,
            answers,
            temperature=config.temperature,
            log_probs_too=not reference,
            groups=own_groups(peers, group_answers(rollouts.prompts, answers)),
            lower=rollouts.lower,
        )
        peers.sum(looked.log_probs_NT, looked.features_NF)
        width = looked.log_probs_NT.shape[1]
        ratio_NT = (rollouts.log_probs_NT[:, :width] - looked.log_probs_NT) * rollouts.mask_NT[:, :width]
        ratios.append(ratio_NT.sum(1).cpu())
        log_probs.append((rollouts.log_probs_NT * rollouts.mask_NT).sum(1).cpu())
        ids += answers
        finished += float(rollouts.finished_N.sum())
        tokens += float(rollouts.mask_NT.sum())
        texts += [policy.lm.decode(answer) for answer in answers]
        features.append(looked.features_NF.cpu())
    n = len(prompts)
    kl_N = torch.zeros(n) if reference else torch.cat(ratios)
    return Answers(
        texts=tuple(texts),
        features_NF=torch.cat(features),
        kl=float(kl_N.sum()) / n,
        finished=finished / n,
        tokens=tokens / n,
        ids=tuple(ids),
        log_prob_N=torch.cat(log_probs),
        kl_N=kl_N,
    )
