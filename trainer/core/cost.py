"""What the cycles of a month may use together, and what they have used.

A month's limit is kept twice: no cycle begins once it is reached, and a running one ends where it is passed (its
training earlier, at the cycle's own `policy_share` of what is left, so that what it made can still be evaluated).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from schemas.errors import BudgetSpent
from trainer.core.budget import Spent


@dataclass(frozen=True)
class MonthLimits:
    """Limits of a calendar month (UTC); None is no limit. A limit of cost needs a price."""

    max_seconds: float | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and not self.price_per_hour:
            raise ValueError("THUMBWHEEL_MAX_MONTH_COST needs a price: set THUMBWHEEL_PRICE_PER_HOUR")


@dataclass(frozen=True)
class Month:
    """The limits, with what the month's earlier cycles have used."""

    limits: MonthLimits
    before: Spent

    def shares(self, spent: Spent) -> dict[str, float]:
        """What part of each limit is used up, `spent` of the running cycle included: limit -> share, 1 is all of it."""
        total, limits = self.before.plus(spent), self.limits
        cost = total.cost(limits.price_per_hour) or 0.0
        used = {
            "seconds": (total.seconds, limits.max_seconds),
            "tokens": (total.tokens, limits.max_tokens),
            "cost": (cost, limits.max_cost),
        }
        return {name: amount / limit for name, (amount, limit) in used.items() if limit is not None}

    def spent_up(self) -> str | None:
        """Why no cycle may begin before the next month, or None."""
        full = [name for name, share in self.shares(Spent()).items() if share >= 1]
        return self._sentence(full[0], Spent()) if full else None

    def check(self, spent: Spent) -> None:
        """Raise `BudgetSpent` where the running cycle passes a limit of the month."""
        full = [name for name, share in self.shares(spent).items() if share > 1]
        if full:
            raise BudgetSpent(self._sentence(full[0], spent))

    def early_stop(self, spent: Spent, policy_share: float) -> str | None:
        """Why training should end in order now, or None."""
        start, now = self.shares(Spent()), self.shares(spent)
        near = [name for name in now if now[name] - start[name] >= policy_share * (1 - start[name])]
        return f"month_{near[0]}_budget" if near else None

    def _sentence(self, name: str, spent: Spent) -> str:
        total, limits = self.before.plus(spent), self.limits
        amounts = {
            "seconds": f"{total.seconds:.0f} s of the {limits.max_seconds} s",
            "tokens": f"{total.tokens} tokens of the {limits.max_tokens}",
            "cost": f"{total.cost(limits.price_per_hour) or 0.0:.2f} of the {limits.max_cost}",
        }
        setting = f"THUMBWHEEL_MAX_MONTH_{name.upper()}"
        return f"this month's cycles used {amounts[name]} they may use: wait for the next month, or raise {setting}"


def of_month(ends: Iterable[tuple[datetime, Spent]], now: datetime) -> Spent:
    """The sum of what cycles used that ended in the month (UTC) of `now`."""
    total = Spent()
    for ended_at, spent in ends:
        if (ended_at.year, ended_at.month) == (now.year, now.month):
            total = total.plus(spent)
    return total
