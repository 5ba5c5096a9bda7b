"""The formulas of PPO and of the reward model, each a function of tensors.

Shapes: N answers, T tokens, K real tokens of a batch laid end to end, P pairs, H heads, D width, V vocabulary.

- `token_rewards`, `gae`, `whiten`, `policy_loss`, `value_loss`: Schulman et al. 2017 (1707.06347), 2015 (1506.02438),
  with the details of lm-human-preferences (1909.08593): KL in the reward, whitening under the mask, value clipping.
- `dual clip` (1912.09729, eq. 5): a bad action that became far likelier can't blow the loss up.
- `rloo`: REINFORCE with the other answers to the prompt as baseline (Ahmadian et al. 2024, 2402.14740).
- `bradley_terry`: label-smoothed -log sigma(chosen - rejected).
- `selected_log_probs`: log-softmax at the chosen tokens without keeping an N x V matrix for the backward pass.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOG_RATIO_LIMIT = 20.0
CHUNK_TOKENS = 128
"""Rows of logits in memory at once: fewer read the output matrix too often, more no longer fit the caches."""


class _SelectedLogProbs(torch.autograd.Function):
    """Log-probs of chosen tokens; d/d state = (W[token] - p @ W) / temperature is made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, states_KD: Tensor, weight_VD: Tensor, tokens_K: Tensor, temperature: float) -> Tensor:
        chosen, gradients = [], []
        needs_gradient = ctx.needs_input_grad[0]
        buffer = states_KD.new_empty(min(CHUNK_TOKENS, len(states_KD)), len(weight_VD))
        for states, tokens in zip(states_KD.split(CHUNK_TOKENS), tokens_K.split(CHUNK_TOKENS), strict=True):
            logits_KV = at_least_float(torch.mm(states, weight_VD.T, out=buffer[: len(states)]))
            if temperature != 1:
                logits_KV.div_(temperature)
            logits_KV.sub_(logits_KV.amax(-1, keepdim=True))
            shifted_K = logits_KV.gather(1, tokens[:, None]).squeeze(1)
            total_K = logits_KV.exp_().sum(-1)
            chosen.append(shifted_K - total_K.log())
            if needs_gradient:
                mean_KD = (logits_KV.to(weight_VD.dtype) @ weight_VD) / total_K[:, None]
                gradients.append((at_least_float(weight_VD[tokens]) - mean_KD) / temperature)
        if needs_gradient:
            ctx.save_for_backward(torch.cat(gradients))
            ctx.dtype = states_KD.dtype
        return torch.cat(chosen)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients_KD,) = ctx.saved_tensors
        return (grads[0][:, None] * gradients_KD).to(ctx.dtype), None, None, None


def at_least_float(tensor: Tensor) -> Tensor:
    """In single precision, unless it is in double."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def log_softmax(logits_NV: Tensor, temperature: float) -> Tensor:
    """Log-probabilities N,V at a temperature, in single precision at least. `logits_NV` may be overwritten."""
    wide_NV = at_least_float(logits_NV)
    return torch.log_softmax(wide_NV if temperature == 1 else wide_NV.div_(temperature), dim=-1)


def selected_log_probs(states_KD: Tensor, weight_VD: Tensor, tokens_K: Tensor, temperature: float) -> Tensor:
    """Log-probabilities K of `tokens_K` under softmax(states @ W.T / temperature); the gradient goes to the states."""
    return _SelectedLogProbs.apply(states_KD, weight_VD, tokens_K, temperature)  # type: ignore[return-value]


def token_rewards(log_ratio_NT: Tensor, scores_N: Tensor, mask_NT: Tensor, *, beta: float) -> Tensor:
    """Rewards N,T: -beta (log pi - log pi_ref) at every token, and the score at the last real one."""
    rewards_NT = -beta * log_ratio_NT * mask_NT
    last_N = mask_NT.sum(1) - 1
    rewards_NT[torch.arange(len(scores_N), device=last_N.device), last_N] += scores_N
    return rewards_NT


def leave_one_out(scores_N: Tensor, group: int) -> Tensor:
    """Scores minus the mean of the other answers to the same prompt (`group` answers stand together).

    With one answer to a prompt there is nothing to compare it with, and the score stays as it is.
    """
    if group == 1:
        return scores_N
    scores_PG = scores_N.view(-1, group)
    others_PG = (scores_PG.sum(1, keepdim=True) - scores_PG) / (group - 1)
    return (scores_PG - others_PG).flatten()


def rloo(log_ratio_NT: Tensor, scores_N: Tensor, mask_NT: Tensor, *, beta: float, group: int) -> Tensor:
    """Advantages N,T without a critic (2402.14740, eq. 6): an answer is one action, and its tokens share its advantage.

    That is the score minus beta times the answer's log-ratio to the reference, against the mean of the other answers'.
    """
    penalized_N = scores_N - beta * (log_ratio_NT * mask_NT).sum(1)
    return leave_one_out(penalized_N, group)[:, None] * mask_NT


def gae(
    rewards_NT: Tensor, values_NT: Tensor, mask_NT: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates N,T and returns N,T (advantage + value), zero beyond the mask.

    The value after the last real token is 0: an answer that ran into the token limit counts as ended.
    """
    mask = mask_NT.to(values_NT.dtype)
    advantages_NT = torch.zeros_like(values_NT)
    running = torch.zeros_like(values_NT[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(values_NT.shape[1])):
        delta = rewards_NT[:, t] + gamma * following - values_NT[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        following = values_NT[:, t] * mask[:, t]
        advantages_NT[:, t] = running
    return advantages_NT, (advantages_NT + values_NT) * mask


def whiten(values: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """Scale what is under the mask to mean 0 (unless `keep_mean`) and variance 1; 0 elsewhere.

    In double: values that hardly differ would otherwise be scaled around a mean of their rounding errors.
    """
    wide = values.double()
    real = wide[mask]
    mean = real.mean()
    scaled = (wide - mean) * torch.rsqrt(real.var(correction=0) + 1e-8)
    return torch.where(mask, scaled + mean if keep_mean else scaled, 0.0).to(values.dtype)


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` is a sum over tokens: the caller divides by the tokens of the whole optimizer step."""

    loss: Tensor
    clipped: Tensor
    """Number of tokens at which the clip took the gradient away."""
    kl_sum: Tensor
    """Sum of ratio - 1 - log ratio, the k3 estimate of KL(old || new)."""


def policy_loss(
    new_K: Tensor, old_K: Tensor, advantages_K: Tensor, *, clip: float = 0.2, dual_clip: float = 3.0
) -> PolicyLoss:
    """Clipped surrogate (eq. 7 of PPO), summed over tokens, with the dual clip for negative advantages."""
    log_ratio = (new_K - old_K).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    plain = -advantages_K * ratio
    clipped = -advantages_K * ratio.clamp(1 - clip, 1 + clip)
    pessimistic = torch.maximum(plain, clipped)
    bounded = torch.where(advantages_K < 0, torch.minimum(pessimistic, -advantages_K * dual_clip), pessimistic)
    with torch.no_grad():
        n_clipped = (clipped > plain).sum()
        kl_sum = (ratio - 1 - log_ratio).sum()
    return PolicyLoss(bounded.sum(), n_clipped, kl_sum)


def value_loss(new_K: Tensor, old_K: Tensor, returns_K: Tensor, *, clip: float = 0.2) -> Tensor:
    """Half the squared error, the worse of plain and clipped to `clip` around the old value; summed over tokens."""
    clipped = old_K + (new_K - old_K).clamp(-clip, clip)
    return 0.5 * torch.maximum((new_K - returns_K).square(), (clipped - returns_K).square()).sum()


@dataclass(frozen=True)
class AdaptiveKL:
    """The KL coefficient, steered towards `target` nats an answer (1909.08593, section 2.2)."""

    beta: float
    target: float
    horizon: float
    """Answers after which a persistent error of 20 % has changed beta by about 20 %."""

    def after(self, kl: float, n_answers: int) -> "AdaptiveKL":
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return AdaptiveKL(self.beta * (1.0 + error * n_answers / self.horizon), self.target, self.horizon)


def bradley_terry(margins_PH: Tensor, weights_PH: Tensor, *, smoothing: float) -> Tensor:
    """Weighted sum of -(1 - s) log sigma(m) - s log sigma(-m), m = score of chosen - score of rejected."""
    losses = -(1 - smoothing) * functional.logsigmoid(margins_PH) - smoothing * functional.logsigmoid(-margins_PH)
    return (losses * weights_PH).sum()


def thumbs_loss(logits_RH: Tensor, labels_R: Tensor, weights_RH: Tensor, *, smoothing: float) -> Tensor:
    """Weighted sum of binary cross-entropies; labels 0 or 1 are drawn in by `smoothing`."""
    targets = (labels_R * (1 - 2 * smoothing) + smoothing)[:, None].expand_as(logits_RH)
    losses = functional.binary_cross_entropy_with_logits(logits_RH, targets, reduction="none")
    return (losses * weights_RH).sum()
