"""When a cycle is due: enough new labels, a schedule, an open drift alert; and when it has to wait all the same.

New labels are counted as their effective number (Kish): those that weigh little beside others count little, and one
person counts no more than the training would let them. 200 equal labels of many people are 200; 1,000 clicks of one
user among them add what a few people would.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from croniter import croniter

from schemas.cycles import Trigger
from trainer.core.weights import cap_weights

RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)
MAX_FAILURES = 5
"""Failures in a row after which the same labels are not tried again."""


@dataclass(frozen=True)
class Rules:
    """When cycles begin by themselves. `every`: at least so often if anything is new; `apart`: never closer."""

    min_new: float
    schedule: str | None = None
    every: timedelta | None = None
    apart: timedelta = timedelta(0)


@dataclass(frozen=True)
class Look:
    """What is known at one look. `failures` are those in a row that may be tried again, the last one at `ended_at`.

    `new` is the effective number of new labels, `new_rows` how many they are; `began_at` is when the last cycle began
    (None before the first), `since` when the service did; `drift` are the open alerts that a cycle has not answered.
    """

    now: datetime
    since: datetime
    new: float
    new_rows: int
    began_at: datetime | None = None
    ended_at: datetime | None = None
    failures: int = 0
    drift: Sequence[str] = ()


@dataclass(frozen=True)
class Due:
    """What begins a cycle, and in words why."""

    trigger: Trigger
    why: str


def due(look: Look, rules: Rules) -> Due | None:
    """Why a cycle should begin now, or None."""
    if look.now < not_before(look, rules):
        return None
    if look.new >= rules.min_new:
        return Due(Trigger.PREFERENCES, f"{look.new:.0f} new effective labels, {rules.min_new:.0f} asked for")
    if look.new_rows < 1:
        return None  # the same labels would only make the same version again
    if look.drift:
        return Due(Trigger.DRIFT, f"alert {', '.join(look.drift)}")
    last = look.began_at or look.since
    if rules.every is not None and look.now - last >= rules.every:
        return Due(Trigger.SCHEDULE, f"{_hours(rules.every)} since the last one")
    if rules.schedule is not None and next_time(rules.schedule, last) <= look.now:
        return Due(Trigger.SCHEDULE, f"the schedule {rules.schedule}")
    return None


def not_before(look: Look, rules: Rules) -> datetime:
    """The earliest moment of the next cycle: `apart` since the last began, and longer after each failure in a row."""
    earliest = look.since if look.began_at is None else look.began_at + rules.apart
    if look.failures and look.ended_at is not None:
        earliest = max(earliest, look.ended_at + min(RETRY * 2 ** (look.failures - 1), LONGEST_RETRY))
    return earliest


def next_time(schedule: str, after: datetime) -> datetime:
    """The first moment of a cron schedule (five fields, UTC) after another; raises `ValueError`."""
    return croniter(schedule, after).get_next(datetime)


def check_schedule(schedule: str) -> str:
    """The same text; raises `ValueError` where it is no cron schedule of five fields."""
    if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
        raise ValueError(f"{schedule!r} is no cron schedule: give five fields, such as '30 3 * * 1-5' (UTC)")
    return schedule


def effective_number(labels: Sequence[tuple[str, float]], rater_cap: float) -> float:
    """Kish's (sum w)^2 / sum w^2 over (rater, weight), each rater's total capped as in training (`cap_weights`)."""
    totals: dict[str, float] = defaultdict(float)
    for rater, weight in labels:
        totals[rater] += weight
    cap = cap_weights(totals, rater_cap)
    capped = [weight * min(1.0, cap / totals[rater]) for rater, weight in labels if weight > 0]
    squares = math.fsum(w * w for w in capped)
    return math.fsum(capped) ** 2 / squares if squares else 0.0


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:g} h"
