"""Formulas against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.core.losses import (
    AdaptiveKL,
    bradley_terry,
    gae,
    policy_loss,
    rloo,
    selected_log_probs,
    thumbs_loss,
    token_rewards,
    value_loss,
    whiten,
)


def close(found: Tensor, expected: list[float] | list[list[float]] | float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_gae_of_two_answers_of_different_lengths_is_as_worked_out_by_hand() -> None:
    rewards = torch.tensor([[0.0, 1.0, 9.0], [0.0, 0.0, 2.0]])
    values = torch.tensor([[0.5, 0.25, 7.0], [0.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.5)
    # Answer 1: delta_1 = 1 - 0.25 = 0.75; delta_0 = 0 + 0.25 - 0.5 = -0.25, A_0 = -0.25 + 0.5 * 0.75 = 0.125.
    # Answer 2: delta_2 = 2 - 1 = 1; delta_1 = 1 - 1 = 0, A_1 = 0.5; delta_0 = 1 - 0 = 1, A_0 = 1 + 0.5 * 0.5 = 1.25.
    close(advantages, [[0.125, 0.75, 0.0], [1.25, 0.5, 1.0]])
    close(returns, [[0.625, 1.0, 0.0], [1.25, 1.5, 2.0]])


def test_the_score_comes_at_the_last_real_token_and_the_kl_penalty_at_each() -> None:
    log_ratio = torch.tensor([[0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = token_rewards(log_ratio, torch.tensor([2.0, -1.0]), mask, beta=0.1)
    close(rewards, [[-0.05, 2.1, 0.0], [-0.1, -0.1, -1.1]])


def test_whitening_uses_real_tokens_only() -> None:
    values = torch.tensor([[1.0, 3.0, 1000.0]])
    mask = torch.tensor([[True, True, False]])
    close(whiten(values, mask), [[-1.0, 1.0, 0.0]])
    close(whiten(values, mask, keep_mean=True), [[1.0, 3.0, 0.0]])


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
def test_whitened_values_have_mean_zero(numbers: list[float]) -> None:
    values = torch.tensor([numbers])
    found = whiten(values, torch.ones_like(values, dtype=torch.bool))
    assert abs(float(found.mean())) < 1e-2


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.5, 1.0, -1.2, 1),  # rewarded enough: clipped at 1 + 0.2
        (0.5, 1.0, -0.5, 0),
        (0.5, -1.0, 0.8, 1),  # punished enough: clipped at 1 - 0.2
        (1.5, -1.0, 1.5, 0),
        (9.0, -1.0, 3.0, 0),  # dual clip
    ],
)
def test_the_clipped_surrogate_is_the_papers(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    new, old = torch.tensor([math.log(ratio)]), torch.zeros(1)
    found = policy_loss(new, old, torch.tensor([advantage]), clip=0.2, dual_clip=3.0)
    close(found.loss, loss)
    assert int(found.clipped) == clipped
    close(found.kl_sum, ratio - 1 - math.log(ratio))


def test_value_loss_takes_the_worse_of_plain_and_clipped() -> None:
    new, old, returns = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    # Token 1 moved by 1 > 0.2: clipped to 0.2, (0.2 - 1)^2 = 0.64 > 0. Token 2: (0.1 - 1)^2 = 0.81 both ways.
    close(value_loss(new, old, returns, clip=0.2), 0.5 * (0.64 + 0.81))


def test_adaptive_kl_moves_beta_by_a_fifth_at_most() -> None:
    control = AdaptiveKL(beta=0.1, target=5.0, horizon=100.0)
    assert control.after(50.0, 50).beta == pytest.approx(0.1 * 1.1)
    assert control.after(0.0, 50).beta == pytest.approx(0.1 * 0.9)
    assert control.after(5.5, 50).beta == pytest.approx(0.1 * 1.05)


def test_bradley_terry_with_smoothing_is_as_worked_out_by_hand() -> None:
    margins, weights = torch.tensor([[math.log(3.0)]]), torch.tensor([[2.0]])
    # sigma(log 3) = 0.75: -(0.9 log 0.75 + 0.1 log 0.25) * 2.
    close(bradley_terry(margins, weights, smoothing=0.1), -2 * (0.9 * math.log(0.75) + 0.1 * math.log(0.25)))


def test_thumbs_loss_with_smoothing_is_as_worked_out_by_hand() -> None:
    logits, labels = torch.tensor([[math.log(3.0)], [0.0]]), torch.tensor([0.0, 1.0])
    found = thumbs_loss(logits, labels, torch.tensor([[1.0], [3.0]]), smoothing=0.1)
    # First: target 0.1 at probability 0.75; second: log 2 at any target.
    close(found, -(0.1 * math.log(0.75) + 0.9 * math.log(0.25)) + 3 * math.log(2))


def test_selected_log_probs_agree_with_autograd_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(600, 8, generator=generator, requires_grad=True)
    weight = torch.randn(30, 8, generator=generator)
    tokens = torch.randint(30, (600,), generator=generator)
    upstream = torch.randn(600, generator=generator)
    plain = torch.log_softmax(states @ weight.T / 0.7, -1)
    expected = torch.autograd.grad((plain.gather(1, tokens[:, None]).squeeze(1) * upstream).sum(), states)[0]
    found = selected_log_probs(states, weight, tokens, 0.7)
    torch.testing.assert_close(found, plain.gather(1, tokens[:, None]).squeeze(1))
    gradient = torch.autograd.grad((found * upstream).sum(), states)[0]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_selected_log_probs_pass_a_gradient_check_in_double() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    tokens = torch.tensor([0, 6, 3, 3, 1])
    assert torch.autograd.gradcheck(lambda s: selected_log_probs(s, weight, tokens, 0.7), (states,))


def test_the_kl_estimates_are_the_exact_kl_of_a_small_categorical_in_expectation() -> None:
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    exact = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)  # the middle token adds 0.3 log 1
    k3 = [policy_loss(n.log()[None], o.log()[None], torch.zeros(1)).kl_sum for o, n in zip(old, new, strict=True)]
    close((old * torch.stack(k3)).sum(), exact)
    every_token = torch.ones(3, 1, dtype=torch.bool)
    k1 = -token_rewards((old / new).log()[:, None], torch.zeros(3), every_token, beta=1.0)
    close((old * k1.squeeze(1)).sum(), exact)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 2.0, -2.0),  # d(-A r)/d log r = -A r
        (1.1, -1.0, 1.1),
        (1.5, 1.0, 0.0),  # clipped
        (0.5, -1.0, 0.0),
        (9.0, -1.0, 0.0),  # dual clip
        (0.5, 1.0, -0.5),  # a good token that became unlikely is pulled back in full
    ],
)
def test_the_surrogates_gradient_is_minus_advantage_times_ratio_and_none_where_clipped(
    ratio: float, advantage: float, slope: float
) -> None:
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = policy_loss(new, torch.zeros(1), torch.tensor([advantage]), clip=0.2, dual_clip=3.0).loss
    close(torch.autograd.grad(loss, new)[0], [slope])


def test_a_value_that_moved_too_far_towards_the_return_gets_no_gradient() -> None:
    new = torch.tensor([0.5, 0.1, -0.5], requires_grad=True)
    loss = value_loss(new, torch.zeros(3), torch.ones(3), clip=0.2)
    # 0.5: clipped 0.2, worse, constant. 0.1: inside, slope new - return = -0.9. -0.5: plain is the worse, slope -1.5.
    close(torch.autograd.grad(loss, new)[0], [0.0, -0.9, -1.5])


def test_rloo_gives_each_token_its_answers_score_less_kl_against_the_others() -> None:
    log_ratio = torch.tensor([[1.0, 1.0], [0.0, 9.0], [2.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    found = rloo(log_ratio, torch.tensor([3.0, 1.0, 0.2, 5.0]), mask, beta=0.1, group=2)
    # Penalized: 3 - 0.2 = 2.8 and 1 (what lies beyond the mask is no token); 0.2 - 0.2 = 0 and 5.
    close(found, [[1.8, 1.8], [-1.8, 0.0], [-5.0, -5.0], [5.0, 5.0]])
