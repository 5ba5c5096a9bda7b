"""Multipliers: hand-worked values, and how they behave on a toy conflict between reward and cost."""

import pytest

from trainer.core.constraints import Gains, Limit, Multiplier, broken, start, step, total, values

COST = Limit("safety", threshold=0.2, scale=0.1)
PLAIN = Gains(proportional=1.0, integral=0.5, derivative=2.0, smoothing=0.5, most=10.0)


def test_a_multiplier_is_the_sum_of_its_three_parts() -> None:
    # First cost 0.3: error (0.3 - 0.2) / 0.1 = 1. P 1 * 1, I 0.5 * 1, D 0 (nothing to compare with): 1.5.
    first = Multiplier(COST, PLAIN).after(0.3)
    assert first.value == pytest.approx(1.5)
    # Then 0.5: error 3, smoothed (1 + 3) / 2 = 2, integral 0.5 + 1.5 = 2, rise 1: 2 + 2 + 2 * 1 = 6.
    second = first.after(0.5)
    assert (second.smoothed, second.accumulated) == (pytest.approx(2.0), pytest.approx(2.0))
    assert second.value == pytest.approx(6.0)
    # Back to the limit: error 0, smoothed 1, integral stays 2, falling costs have no derivative: 3.
    assert second.after(0.2).value == pytest.approx(3.0)


def test_slack_takes_a_multiplier_back_to_zero_and_saves_up_no_credit() -> None:
    multiplier = Multiplier(COST, PLAIN)
    for _ in range(50):
        multiplier = multiplier.after(0.0)
    assert (multiplier.value, multiplier.accumulated) == (0.0, 0.0)
    # After any slack the first excess counts at once: smoothed (-2 + 4) / 2 = 1, I 0.5 * 4 = 2, D 2 * 3 = 6.
    assert multiplier.after(0.6).value == pytest.approx(9.0)


def test_a_multiplier_is_capped() -> None:
    multiplier = Multiplier(COST, PLAIN)
    for _ in range(50):
        multiplier = multiplier.after(1.0)
    assert (multiplier.value, multiplier.accumulated) == (10.0, 10.0)


def test_a_toy_conflict_ends_at_the_threshold() -> None:
    """x is chosen to maximize x - lambda * x / scale, a step at a time: without a limit it would run to 1."""
    multiplier, x = Multiplier(COST, Gains()), 0.0
    seen: list[float] = []
    for _ in range(400):
        multiplier = multiplier.after(x)
        x = min(max(x + 0.01 * (1 - multiplier.value), 0.0), 1.0)
        seen.append(x)
    assert sum(seen[-100:]) / 100 == pytest.approx(0.2, abs=0.01)
    assert max(seen) < 0.3
    assert multiplier.value == pytest.approx(1.0, abs=0.1)


def test_the_integral_alone_overshoots_further_than_all_three_parts() -> None:
    def worst(gains: Gains) -> float:
        multiplier, x, top = Multiplier(COST, gains), 0.0, 0.0
        for _ in range(400):
            multiplier = multiplier.after(x)
            x = min(max(x + 0.01 * (1 - multiplier.value), 0.0), 1.0)
            top = max(top, x)
        return top

    assert worst(Gains(proportional=0.0, derivative=0.0)) - 0.2 > 1.3 * (worst(Gains()) - 0.2)


def test_only_measured_costs_move_their_multipliers() -> None:
    pair = start([COST, Limit("length", 0.5, 0.5)], PLAIN)
    after = step(pair, {"safety": 0.3})
    assert values(after) == {"safety": pytest.approx(1.5), "length": 0.0}
    assert total(after) == pytest.approx(2.5)


def test_broken_limits_are_named_and_slack_is_counted_in_scales() -> None:
    limits = [COST, Limit("length", 0.5, 0.5)]
    assert broken(limits, {"safety": 0.25, "length": 0.4}) == ["safety"]
    assert broken(limits, {"safety": 0.25}, slack=0.5) == []
    assert broken(limits, {"safety": float("nan")}, slack=100.0) == ["safety"]


def test_two_limits_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        start([COST, COST], PLAIN)


@pytest.mark.parametrize("wrong", [{"integral": -1.0}, {"smoothing": 1.0}])
def test_gains_that_make_no_controller_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gains must not be negative"):
        Gains(**wrong)
