"""A month's budget."""

from datetime import UTC, datetime

import pytest

from schemas.errors import BudgetSpent
from trainer.core.budget import Budget, Spent, check, early_stop
from trainer.core.cost import Month, MonthLimits, of_month

LIMITS = MonthLimits(max_seconds=1000.0, max_tokens=5000, max_cost=2.0, price_per_hour=3.6)
"""3.60 an hour is 0.001 a second, so 1,000 s are 1.00."""


def test_only_cycles_that_ended_this_month_count() -> None:
    ends = [
        (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), Spent(100.0, 1, 1)),
        (datetime(2026, 11, 1, tzinfo=UTC), Spent(10.0, 2, 3)),
        (datetime(2025, 11, 5, tzinfo=UTC), Spent(7.0, 7, 7)),
        (datetime(2026, 11, 20, tzinfo=UTC), Spent(5.0, 1, 0)),
    ]
    assert of_month(ends, datetime(2026, 11, 21, tzinfo=UTC)) == Spent(15.0, 3, 3)


def test_the_shares_of_a_month_are_of_its_limits_and_count_the_running_cycle() -> None:
    month = Month(LIMITS, Spent(300.0, 1000, 500))
    assert month.shares(Spent(200.0, 500, 500)) == pytest.approx({"seconds": 0.5, "tokens": 0.5, "cost": 0.25})


def test_a_used_up_month_lets_no_cycle_begin_and_names_the_setting() -> None:
    assert Month(LIMITS, Spent(999.0)).spent_up() is None
    why = Month(LIMITS, Spent(1000.0)).spent_up()
    assert why is not None and "1000 s of the 1000.0 s" in why and "THUMBWHEEL_MAX_MONTH_SECONDS" in why
    assert Month(MonthLimits(), Spent(1e9, 10**12, 0)).spent_up() is None


def test_a_running_cycle_that_passes_a_limit_of_the_month_is_ended() -> None:
    month = Month(LIMITS, Spent(0.0, 4000, 0))
    month.check(Spent(10.0, 500, 500))
    with pytest.raises(BudgetSpent, match=r"5001 tokens of the 5000 .* THUMBWHEEL_MAX_MONTH_TOKENS"):
        month.check(Spent(10.0, 501, 500))


def test_training_ends_at_its_share_of_what_the_month_has_left() -> None:
    """800 of 1,000 s are left; three quarters of these are 600."""
    month = Month(LIMITS, Spent(200.0))
    assert month.early_stop(Spent(599.0), 0.75) is None
    assert month.early_stop(Spent(600.0), 0.75) == "month_seconds_budget"


def test_money_ends_training_and_then_the_cycle() -> None:
    budget = Budget(max_cost=1.0, price_per_hour=3.6)
    assert early_stop(budget, Spent(749.0)) is None and early_stop(budget, Spent(750.0)) == "cost_budget"
    check(budget, Spent(1000.0))
    with pytest.raises(BudgetSpent, match=r"cost 1\.00 of the 1\.00 .*THUMBWHEEL_MAX_CYCLE_COST"):
        check(budget, Spent(1001.0))


def test_a_limit_of_money_without_a_price_is_refused() -> None:
    with pytest.raises(ValueError, match="THUMBWHEEL_PRICE_PER_HOUR"):
        Budget(max_cost=1.0)
    with pytest.raises(ValueError, match="THUMBWHEEL_PRICE_PER_HOUR"):
        MonthLimits(max_cost=1.0)


def test_the_peak_of_memory_is_no_sum() -> None:
    assert Spent(1.0, 0, 0, 2.0, 70).plus(Spent(1.0, 0, 0, 3.0, 50)) == Spent(2.0, 0, 0, 5.0, 70)
