"""The divergences of a distillation, against numbers worked out by hand and against autograd."""

import math

import pytest
import torch
from torch import Tensor

from trainer.core.distill_losses import Head, distillation_loss, divergence_of, token_divergences
from trainer.core.losses import CHUNK_TOKENS

P, Q = torch.tensor([[0.75, 0.25]]).double().log(), torch.tensor([[0.5, 0.5]]).double().log()


def heads(k: int, *, vocabulary: int = 7) -> tuple[Head, Head]:
    """Random student (width 4) and teacher (width 6)."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    return Head(drawn(k, 4), drawn(vocabulary, 4)), Head(drawn(k, 6), drawn(vocabulary, 6))


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        # 0.75 ln 1.5 + 0.25 ln 0.5
        (0.0, 0.1308120),
        # 0.5 ln (2/3) + 0.5 ln 2
        (1.0, 0.1438410),
        # m = (5/8, 3/8): 0.5 (0.75 ln 1.2 + 0.25 ln (2/3)) + 0.5 (0.5 ln 0.8 + 0.5 ln (4/3))
        (0.5, 0.0338221),
    ],
)
def test_a_divergence_of_two_coins_is_the_one_worked_out_by_hand(beta: float, expected: float) -> None:
    assert float(divergence_of(P, Q, beta)[0]) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_two_coins_is_the_one_worked_out_by_hand() -> None:
    # q - p
    assert divergence_of(P, Q, 0.0)[1].tolist() == [pytest.approx([-0.25, 0.25])]
    # r = (ln 2/3, ln 2) has the mean 0.143841 under q; 0.5 (r - mean)
    assert divergence_of(P, Q, 1.0)[1].tolist() == [pytest.approx([-0.2746531, 0.2746531], abs=1e-6)]


def test_equal_distributions_diverge_by_nothing_in_any_direction() -> None:
    for beta in (0.0, 0.3, 1.0):
        found, gradient = divergence_of(P, P, beta)
        assert float(found) == pytest.approx(0.0, abs=1e-12) and float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_gradients_of_states_and_matrix_are_those_of_autograd(beta: float) -> None:
    student, teacher = heads(5)
    tokens_K = torch.tensor([0, 3, 3, 6, 1])
    weights_K = torch.tensor([1.0, -0.5, 0.0, 2.0, 0.25]).double()

    def loss(states_KD: Tensor, weight_VD: Tensor) -> Tensor:
        found = distillation_loss(
            Head(states_KD, weight_VD), tokens_K, teacher, nll_K=weights_K, divergence=0.7, beta=beta, temperature=0.8
        )
        return found.loss

    given = (student.states_KD.requires_grad_(), student.weight_VD.requires_grad_())
    assert torch.autograd.gradcheck(loss, given)


def test_over_several_chunks_the_loss_is_that_of_plain_logits() -> None:
    n = CHUNK_TOKENS + 3
    student, teacher = heads(n)
    tokens_K = torch.arange(n) % 7
    weights_K = torch.linspace(-1, 1, n).double()
    found = distillation_loss(student, tokens_K, teacher, nll_K=weights_K, divergence=2.0, beta=1.0, temperature=0.5)
    log_q_KV = torch.log_softmax(student.states_KD @ student.weight_VD.T / 0.5, -1)
    log_p_KV = torch.log_softmax(teacher.states_KD @ teacher.weight_VD.T / 0.5, -1)
    nll_K = -log_q_KV[torch.arange(n), tokens_K]
    kl_K = (log_q_KV.exp() * (log_q_KV - log_p_KV)).sum(-1)
    assert float(found.loss) == pytest.approx(float((weights_K * nll_K).sum() + 2 * kl_K.sum()))
    assert torch.allclose(found.nll_K, nll_K) and torch.allclose(found.divergence_K, kl_K)
    forward_K, reverse_K = token_divergences(student, teacher, temperature=0.5)
    assert torch.allclose(reverse_K, kl_K)
    assert torch.allclose(forward_K, (log_p_KV.exp() * (log_p_KV - log_q_KV)).sum(-1))


def test_without_a_teacher_the_loss_is_cross_entropy_alone() -> None:
    student, _ = heads(2, vocabulary=4)
    even = Head(student.states_KD * 0, student.weight_VD)
    ones_K = torch.ones(2).double()
    found = distillation_loss(even, torch.tensor([0, 3]), None, nll_K=ones_K, divergence=1.0, beta=0.5, temperature=1.0)
    assert float(found.loss) == pytest.approx(2 * math.log(4)) and found.divergence_K.tolist() == [0.0, 0.0]


def test_the_gradient_scales_with_what_the_loss_is_multiplied_by() -> None:
    student, teacher = heads(3)
    states_KD = student.states_KD.requires_grad_()
    loss = distillation_loss(
        Head(states_KD, student.weight_VD),
        torch.tensor([0, 1, 2]),
        teacher,
        nll_K=torch.ones(3).double(),
        divergence=1.0,
        beta=0.5,
        temperature=1.0,
    ).loss
    (once,) = torch.autograd.grad(loss, states_KD, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, states_KD)
    assert torch.allclose(thrice, 3 * once)
