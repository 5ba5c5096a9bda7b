"""What a cycle may use, and what it has used."""

from dataclasses import dataclass

from schemas.errors import BudgetSpent


@dataclass(frozen=True)
class Budget:
    """Limits of one cycle. Training ends at `policy_share` of the time, so that what it made can still be evaluated."""

    max_seconds: float = 3600.0
    max_tokens: int = 20_000_000
    policy_share: float = 0.75

    def __post_init__(self) -> None:
        if self.max_seconds <= 0 or self.max_tokens <= 0 or not 0 < self.policy_share <= 1:
            raise ValueError("max_seconds and max_tokens must be above 0, policy_share above 0 and at most 1")


@dataclass(frozen=True)
class Spent:
    """Seconds, and tokens generated and trained on."""

    seconds: float = 0.0
    generated_tokens: int = 0
    trained_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.generated_tokens + self.trained_tokens

    def plus(self, other: "Spent") -> "Spent":
        return Spent(
            self.seconds + other.seconds,
            self.generated_tokens + other.generated_tokens,
            self.trained_tokens + other.trained_tokens,
        )


def early_stop(budget: Budget, spent: Spent) -> str | None:
    """Why training should end in order now, or None."""
    if spent.seconds >= budget.policy_share * budget.max_seconds:
        return "seconds_budget"
    if spent.tokens >= budget.policy_share * budget.max_tokens:
        return "tokens_budget"
    return None


def check(budget: Budget, spent: Spent) -> None:
    """Raise `BudgetSpent` where a limit is passed."""
    if spent.seconds > budget.max_seconds:
        raise BudgetSpent(
            f"the cycle used {spent.seconds:.0f} s of the {budget.max_seconds:.0f} s it may take: "
            f"raise THUMBWHEEL_MAX_CYCLE_SECONDS, or give it a smaller model or fewer PPO iterations"
        )
    if spent.tokens > budget.max_tokens:
        raise BudgetSpent(
            f"the cycle used {spent.tokens} tokens of the {budget.max_tokens} it may use: "
            f"raise THUMBWHEEL_MAX_CYCLE_TOKENS"
        )
