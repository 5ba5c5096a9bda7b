"""What a student loses against its teacher, token by token over the whole vocabulary.

- `distillation_loss`: a weighted sum of -log q(token) (sequence-level distillation, Kim & Rush 2016, 1606.07947; with a
  reward's advantage as weight it is REINFORCE) and of a divergence between the teacher's distribution p and the
  student's q at each token (Hinton et al. 2015, 1503.02531; Agarwal et al. 2024, 2306.13649). `beta` is theirs: 0 is
  KL(p || q), 1 is KL(q || p), between them beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.
- Logits are made in chunks of tokens, and with them, in the same pass, the gradients of states and output matrix: never
  a tokens x vocabulary matrix for the backward pass. With z the student's logits at temperature t, and
  <f> = sum_v q_v f_v, the gradients are
      -log q(token):    (q - onehot) / t
      KL(p || q):       (q - p) / t
      KL(q || p):       q (r - <r>) / t,                 r = log q - log p
      between:          (1 - beta) q (s - <s>) / t,      s = log q - log m
- `token_divergences`: both KLs at each token, for a look.

Shapes: K tokens, C tokens of a chunk, V vocabulary, D width of the student, E width of the teacher.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.core.losses import CHUNK_TOKENS, at_least_float, log_softmax


@dataclass(frozen=True)
class Head:
    """Final hidden states K,D and the output matrix V,D that makes logits of them."""

    states_KD: Tensor
    weight_VD: Tensor

    def log_probs(self, part: slice, temperature: float) -> Tensor:
        """Log-probabilities C,V of some of the tokens."""
        return log_softmax(self.states_KD[part] @ self.weight_VD.T, temperature)


@dataclass(frozen=True)
class Distillation:
    """`loss` is a weighted sum over tokens; the others are each token's own, without weights and gradient."""

    loss: Tensor
    nll_K: Tensor
    divergence_K: Tensor
    """0 where there was no teacher."""


def distillation_loss(
    student: Head,
    tokens_K: Tensor,
    teacher: Head | None,
    *,
    nll_K: Tensor,
    divergence: float,
    beta: float,
    temperature: float,
) -> Distillation:
    """sum_k nll_k (-log q(token_k)) + divergence D(p_k, q_k); the gradient goes to the student's states and matrix.

    `nll_K` weighs each token and may be negative; without a teacher the second term is left out.
    """
    loss, nll, found = _Distillation.apply(
        student.states_KD, student.weight_VD, tokens_K, teacher, nll_K, divergence, beta, temperature
    )  # type: ignore[misc]
    return Distillation(loss, nll, found)


def divergence_of(log_p_CV: Tensor, log_q_CV: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The divergence C, and its gradient C,V by the student's logits (of which q is the softmax)."""
    if beta == 0:
        p_CV = log_p_CV.exp()
        return (p_CV * (log_p_CV - log_q_CV)).sum(1), log_q_CV.exp() - p_CV
    q_CV = log_q_CV.exp()
    if beta == 1:
        found_C, gradient_CV = _centred(q_CV, log_q_CV - log_p_CV)
        return found_C, gradient_CV
    log_m_CV = torch.logaddexp(log_p_CV + math.log(beta), log_q_CV + math.log1p(-beta))
    to_student_C, gradient_CV = _centred(q_CV, log_q_CV - log_m_CV)
    to_teacher_C = (log_p_CV.exp() * (log_p_CV - log_m_CV)).sum(1)
    return beta * to_teacher_C + (1 - beta) * to_student_C, gradient_CV * (1 - beta)


def _centred(q_CV: Tensor, ratio_CV: Tensor) -> tuple[Tensor, Tensor]:
    """<ratio> under q, and q (ratio - <ratio>)."""
    mean_C = (q_CV * ratio_CV).sum(1)
    return mean_C, q_CV * (ratio_CV - mean_C[:, None])


class _Distillation(torch.autograd.Function):
    """The gradients are made in the forward pass, while a chunk's logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        states_KD: Tensor,
        weight_VD: Tensor,
        tokens_K: Tensor,
        teacher: Head | None,
        nll_K: Tensor,
        divergence: float,
        beta: float,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        student = Head(states_KD, weight_VD)
        d_states_KD = torch.zeros_like(states_KD)
        d_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        wide = at_least_float(states_KD[:0])
        said_K, apart_K = (wide.new_zeros(len(tokens_K)) for _ in range(2))
        for start in range(0, len(tokens_K), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            log_q_CV = student.log_probs(part, temperature)
            tokens_C1, weights_C1 = tokens_K[part, None], nll_K[part, None].to(log_q_CV.dtype)
            said_K[part] = -log_q_CV.gather(1, tokens_C1).squeeze(1)
            gradient_CV = log_q_CV.exp() * weights_C1
            gradient_CV.scatter_add_(1, tokens_C1, -weights_C1)
            if teacher is not None and divergence:
                log_p_CV = teacher.log_probs(part, temperature).to(log_q_CV.dtype)
                apart_K[part], further_CV = divergence_of(log_p_CV, log_q_CV, beta)
                gradient_CV.add_(further_CV, alpha=divergence)
            gradient_CV = gradient_CV.div_(temperature).to(states_KD.dtype)
            d_states_KD[part] = gradient_CV @ weight_VD
            if d_weight_VD is not None:
                d_weight_VD.addmm_(gradient_CV.T, states_KD[part])
        ctx.save_for_backward(d_states_KD, *([] if d_weight_VD is None else [d_weight_VD]))
        ctx.mark_non_differentiable(said_K, apart_K)
        return (nll_K.to(said_K.dtype) * said_K).sum() + divergence * apart_K.sum(), said_K, apart_K

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_states_KD, *d_weight = ctx.saved_tensors
        scale = grads[0].to(d_states_KD.dtype)
        return (scale * d_states_KD, scale * d_weight[0] if d_weight else None, *[None] * 6)


@torch.no_grad()
def token_divergences(student: Head, teacher: Head, *, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(p || q) and KL(q || p) at each token, K each, in nats."""
    forward, reverse = [], []
    for start in range(0, len(student.states_KD), CHUNK_TOKENS):
        part = slice(start, start + CHUNK_TOKENS)
        log_q_CV, log_p_CV = student.log_probs(part, temperature), teacher.log_probs(part, temperature)
        forward.append(divergence_of(log_p_CV, log_q_CV, 0.0)[0])
        reverse.append(divergence_of(log_p_CV, log_q_CV, 1.0)[0])
    return torch.cat(forward), torch.cat(reverse)
