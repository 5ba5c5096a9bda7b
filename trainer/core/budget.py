"""What a cycle may use, and what it has used."""

from dataclasses import dataclass

from schemas.errors import BudgetSpent


@dataclass(frozen=True)
class Budget:
    """Limits of one cycle. Training ends at `policy_share` of them, so that what it made can still be evaluated.

    `price_per_hour` turns seconds into money; `max_cost` needs it.
    """

    max_seconds: float = 3600.0
    max_tokens: int = 20_000_000
    policy_share: float = 0.75
    max_cost: float | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.max_seconds <= 0 or self.max_tokens <= 0 or not 0 < self.policy_share <= 1:
            raise ValueError("max_seconds and max_tokens must be above 0, policy_share above 0 and at most 1")
        if self.max_cost is not None and (self.max_cost <= 0 or not self.price_per_hour):
            raise ValueError("a limit of cost must be above 0, and needs a price an hour (THUMBWHEEL_PRICE_PER_HOUR)")


@dataclass(frozen=True)
class Spent:
    """Seconds, and tokens generated and trained on. Of the memory of a GPU the peak counts, of the rest the sum."""

    seconds: float = 0.0
    generated_tokens: int = 0
    trained_tokens: int = 0
    cpu_seconds: float = 0.0
    device_peak_bytes: int = 0

    @property
    def tokens(self) -> int:
        return self.generated_tokens + self.trained_tokens

    def plus(self, other: "Spent") -> "Spent":
        return Spent(
            self.seconds + other.seconds,
            self.generated_tokens + other.generated_tokens,
            self.trained_tokens + other.trained_tokens,
            self.cpu_seconds + other.cpu_seconds,
            max(self.device_peak_bytes, other.device_peak_bytes),
        )

    def cost(self, price_per_hour: float | None) -> float | None:
        """The seconds in money; None without a price."""
        return None if price_per_hour is None else self.seconds * price_per_hour / 3600


def early_stop(budget: Budget, spent: Spent) -> str | None:
    """Why training should end in order now, or None."""
    if spent.seconds >= budget.policy_share * budget.max_seconds:
        return "seconds_budget"
    if spent.tokens >= budget.policy_share * budget.max_tokens:
        return "tokens_budget"
    cost = spent.cost(budget.price_per_hour)
    if cost is not None and budget.max_cost is not None and cost >= budget.policy_share * budget.max_cost:
        return "cost_budget"
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
    cost = spent.cost(budget.price_per_hour)
    if cost is not None and budget.max_cost is not None and cost > budget.max_cost:
        raise BudgetSpent(
            f"the cycle cost {cost:.2f} of the {budget.max_cost:.2f} it may cost: raise THUMBWHEEL_MAX_CYCLE_COST"
        )
