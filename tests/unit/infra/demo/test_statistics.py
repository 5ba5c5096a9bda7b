"""The intervals of the demo's figures."""

import pytest

from infra.demo.statistics import clustered_mean, wilson, wins


def test_the_wilson_interval_of_five_in_ten_is_the_textbook_one() -> None:
    estimate = wilson(5, 10)
    assert estimate is not None
    # (0.5 + 3.8415/20 ± 1.96 sqrt(0.025 + 3.8415/400)) / 1.38415
    assert (estimate.value, estimate.n) == (0.5, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_of_nothing_there_is_no_share() -> None:
    assert wilson(0, 0) is None


def test_a_tie_is_half_a_win() -> None:
    # 2 beats 1, ties with 2, and loses to 3; 1 ties with 1, and loses twice: (1 + 0.5 + 0.5) / 6
    assert wins([2, 1], [1, 2, 3]) == pytest.approx(2 / 6)


def test_the_mean_is_of_prompts_and_the_same_seed_gives_the_same_interval() -> None:
    estimate = clustered_mean([0.0, 1.0] * 40, seed=1)
    assert estimate.value == 0.5
    assert estimate.n == 80
    # A mean of 80 fair coins has a standard deviation of 0.056.
    assert (estimate.low, estimate.high) == pytest.approx((0.39, 0.61), abs=0.02)
    assert estimate == clustered_mean([0.0, 1.0] * 40, seed=1)


def test_without_prompts_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no prompt"):
        clustered_mean([], seed=0)
