"""Win rates and the answers they compare."""

import pytest

from tests.unit.trainer.core.language import policy
from trainer.core.judge import sample_answers, win_rate
from trainer.core.rollout import SamplingConfig


def test_ties_count_half_and_the_interval_encloses_the_mean() -> None:
    found = win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 1.0, 1.0])
    assert found.mean == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found.low <= found.mean <= found.high
    assert found.n == 4


def test_sure_wins_have_an_interval_of_one_point() -> None:
    found = win_rate([1.0] * 9, [0.0] * 9)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_interval_of_a_hundred_even_prompts_is_about_a_tenth_each_way() -> None:
    found = win_rate([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert found.low == pytest.approx(0.5 - 0.098, abs=0.02)
    assert found.high == pytest.approx(0.5 + 0.098, abs=0.02)


def test_scores_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="as many new scores"):
        win_rate([1.0], [1.0, 2.0])


def test_an_untrained_adapter_answers_as_the_base_does_at_no_kl() -> None:
    made, prompts = policy(), [[5, 6], [7, 8, 9], [10]]
    config = SamplingConfig(max_new_tokens=6)
    new = sample_answers(made, prompts, config, seed=1, batch=2)
    base = sample_answers(made, prompts, config, seed=1, batch=2, reference=True)
    assert new.texts == base.texts
    assert new.kl == pytest.approx(0.0, abs=1e-4)
    assert sample_answers(policy(trained=True), prompts, config, seed=1).kl > 0
