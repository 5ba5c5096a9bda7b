"""Answers that a server has drawn from the policy, and how well its numbers agree with the trainer's own.

A server computes with other kernels, and often other types of numbers, than the trainer: what it draws comes from a
slightly other policy. So log-probs, values and entropies are made anew by the trainer's own pass (the ratio of PPO
starts at exactly 1), and each token's advantage is weighted by pi_trainer / pi_server, truncated at a cap: truncated
importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").

Shapes: N answers, T tokens.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from schemas.errors import GenerationFailed
from trainer.core.models import Policy, Tokens
from trainer.core.rollout import Rollouts, SamplingConfig

NOISE = 0.01
"""Nats a token: less than this is no sign of a wrong adapter, since rounding alone makes about as much."""


@dataclass(frozen=True)
class Drawn:
    """Answers as token ids with EOS where it was drawn, and the server's own log-probability of each token."""

    answers: tuple[Tokens, ...]
    log_probs: tuple[tuple[float, ...], ...]


class Drawing(Protocol):
    """A server that draws answers from the policy as it is now; raises `GenerationFailed`."""

    def __call__(
        self,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        answers_per_prompt: int,
        config: SamplingConfig,
        seeds: Sequence[int],
        /,
    ) -> Drawn:
        """`answers_per_prompt` answers to each prompt, together; a seed for each prompt."""
        ...


@dataclass(frozen=True)
class Agreement:
    """How a server's log-probs compare with the trainer's own of the same tokens."""

    mismatch: float
    """Mean |log p_server - log p_trainer| a token, in nats."""
    from_base: float
    """The same against the frozen base."""
    weights_NT: Tensor
    """min(cap, p_trainer / p_server) under the mask, else 0."""
    weight: float
    """Their mean under the mask."""


def seeds_for(prompts: Sequence[Sequence[int]], generator: torch.Generator) -> list[int]:
    """A seed for each prompt's request."""
    return torch.randint(2**31 - 1, (len(prompts),), generator=generator).tolist()


def as_rollouts(
    policy: Policy, prompts: Sequence[Sequence[int]], answers_per_prompt: int, drawn: Drawn
) -> tuple[Rollouts, Tensor]:
    """Rollouts without any numbers of the policy yet, and the server's log-probs N,T."""
    lm = policy.lm
    width = max(len(answer) for answer in drawn.answers)
    lengths_N = torch.tensor([len(answer) for answer in drawn.answers], device=lm.device)
    mask_NT = torch.arange(width, device=lm.device)[None, :] < lengths_N[:, None]
    padded = [[*answer, *[lm.pad_id] * (width - len(answer))] for answer in drawn.answers]
    theirs = [[*row, *[0.0] * (width - len(row))] for row in drawn.log_probs]
    tokens_NT = torch.tensor(padded, device=lm.device)
    zeros = torch.zeros(mask_NT.shape, device=lm.device)
    finished_N = ((tokens_NT == lm.eos_id) & mask_NT).any(1)
    repeated = tuple(tuple(p) for p in prompts for _ in range(answers_per_prompt))
    rollouts = Rollouts(repeated, tokens_NT, mask_NT, zeros, zeros.clone(), zeros.clone(), finished_N)
    return rollouts, torch.tensor(theirs, device=lm.device)


def agreement(server_NT: Tensor, trainer_NT: Tensor, base_NT: Tensor, mask_NT: Tensor, *, cap: float) -> Agreement:
    """Compare log-probs N,T of tokens that a server has drawn."""
    difference_K = (trainer_NT - server_NT)[mask_NT]
    weights_NT = torch.zeros_like(trainer_NT)
    weights_NT[mask_NT] = difference_K.exp().clamp(max=cap)
    return Agreement(
        mismatch=float(difference_K.abs().mean()),
        from_base=float((base_NT - server_NT)[mask_NT].abs().mean()),
        weights_NT=weights_NT,
        weight=float(weights_NT[mask_NT].mean()),
    )


def require_agreement(found: Agreement, limit: float) -> None:
    """Raise `GenerationFailed` where a server can't have drawn from this policy."""
    if found.mismatch > max(NOISE, 2 * found.from_base):
        raise GenerationFailed(
            f"the generation server answers as the base model and not as the adapter: its log-probs are "
            f"{found.from_base:.3f} nats a token from the base's and {found.mismatch:.3f} from the policy's. See that "
            "it runs with --enable-lora and reads THUMBWHEEL_VLLM_ADAPTERS under the same path"
        )
    if not found.mismatch <= limit:
        raise GenerationFailed(
            f"the generation server's log-probs are {found.mismatch:.3f} nats a token from the trainer's and "
            f"{limit:g} are allowed: see that it serves this base model, with --logprobs-mode processed_logprobs, or "
            "raise THUMBWHEEL_PPO__MISMATCH_LIMIT"
        )
