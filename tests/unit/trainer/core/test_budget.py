import pytest

from schemas.errors import BudgetSpent
from trainer.core.budget import Budget, Spent, check, early_stop


def test_training_ends_at_its_share_of_the_seconds() -> None:
    budget = Budget(max_seconds=100, policy_share=0.75)
    assert early_stop(budget, Spent(seconds=74.9)) is None
    assert early_stop(budget, Spent(seconds=75)) == "seconds_budget"


def test_generated_and_trained_tokens_count_together() -> None:
    budget = Budget(max_tokens=1000, policy_share=0.5)
    assert early_stop(budget, Spent(generated_tokens=250, trained_tokens=249)) is None
    assert early_stop(budget, Spent(generated_tokens=250, trained_tokens=250)) == "tokens_budget"


def test_a_cycle_beyond_its_seconds_is_told_which_setting_to_raise() -> None:
    with pytest.raises(BudgetSpent, match=r"used 11 s of the 10 s .* THUMBWHEEL_MAX_CYCLE_SECONDS"):
        check(Budget(max_seconds=10), Spent(seconds=11))


def test_what_was_spent_adds_up() -> None:
    assert Spent(1, 2, 3).plus(Spent(10, 20, 30)) == Spent(11, 22, 33)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Budget(max_seconds=0)
