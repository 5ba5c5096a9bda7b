"""Win rates and the answers they compare."""

import random

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.core.judge import certainty, sample_answers, win_rate
from trainer.core.rollout import SamplingConfig


def test_ties_count_half_and_the_interval_encloses_the_mean() -> None:
    found = win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 1.0, 1.0])
    assert found.mean == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found.low <= found.mean <= found.high
    assert found.n == 4


def test_nine_wins_in_nine_are_not_taken_for_certainty_and_neither_are_nine_ties() -> None:
    won = win_rate([1.0] * 9, [0.0] * 9)
    # With a win and a loss added, draws of eleven miss the loss in 35 % of cases and hold it four times in 1 %.
    assert (won.mean, won.high) == (1.0, 1.0) and 0.6 < won.low < 0.85
    tied = win_rate([1.0] * 9, [1.0] * 9)
    assert tied.mean == 0.5 and tied.low < 0.45 and tied.high > 0.55


@pytest.mark.parametrize(("n", "share"), [(6, 0.5), (10, 0.9), (40, 0.5), (40, 0.95)])
def test_the_interval_holds_the_true_win_rate_in_most_draws_however_few_and_uneven(n: int, share: float) -> None:
    rng = random.Random(n)
    found = [
        win_rate([float(rng.random() < share) for _ in range(n)], [0.5] * n, seed=s, resamples=400) for s in range(200)
    ]
    assert sum(w.low <= share <= w.high for w in found) >= 186  # 95 % of 200 are 190; chance takes a few


def test_the_interval_of_a_hundred_even_prompts_is_about_a_tenth_each_way() -> None:
    found = win_rate([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert found.low == pytest.approx(0.5 - 0.098, abs=0.02)
    assert found.high == pytest.approx(0.5 + 0.098, abs=0.02)


def test_scores_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="as many new scores"):
        win_rate([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("won_by_head", "expected"),
    [
        ([1.0, 1.0, 1.0, 0.0], 0.75),  # a head each in four would say the opposite, whatever the prompts
        ([1.0, 0.0], 0.5),
        # Draws of 102 with 61 wins among them: a mean of 0.598 with a deviation of 0.0486, 2.02 above one half.
        ([0.6] * 3, 0.978),
        ([0.4] * 3, 1 - 0.978),
    ],
)
def test_the_certainty_of_a_win_counts_heads_that_disagree_as_well_as_prompts(
    won_by_head: list[float], expected: float
) -> None:
    won_NH = torch.stack([(torch.arange(100) < 100 * won).float() for won in won_by_head], dim=1)
    assert certainty(won_NH, torch.full_like(won_NH, 0.5), resamples=4000) == pytest.approx(expected, abs=0.02)


def test_equal_scores_make_a_certainty_of_one_half_and_unlike_shapes_are_refused() -> None:
    assert certainty(torch.zeros(30, 4), torch.zeros(30, 4)) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="as many new scores"):
        certainty(torch.zeros(3, 2), torch.zeros(3, 4))


def test_an_untrained_adapter_answers_as_the_base_does_at_no_kl() -> None:
    made, prompts = policy(), [[5, 6], [7, 8, 9], [10]]
    config = SamplingConfig(max_new_tokens=6)
    new = sample_answers(made, prompts, config, seed=1, batch=2)
    base = sample_answers(made, prompts, config, seed=1, batch=2, reference=True)
    assert new.texts == base.texts
    assert new.kl == pytest.approx(0.0, abs=1e-4)
    assert sample_answers(policy(trained=True), prompts, config, seed=1).kl > 0
