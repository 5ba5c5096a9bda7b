"""When a cycle is due. Times are hours after midnight of a Saturday, UTC."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.cycles import Trigger
from trainer.core.triggers import Look, Rules, check_schedule, due, effective_number, next_time, not_before

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
IDLE = Look(now=MIDNIGHT + timedelta(hours=12), since=MIDNIGHT, new=10.0, new_rows=10)
RULES = Rules(min_new=200)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def trigger(look: Look, rules: Rules) -> Trigger | None:
    found = due(look, rules)
    return None if found is None else found.trigger


def test_enough_effective_labels_begin_a_cycle_and_fewer_do_not() -> None:
    assert trigger(replace(IDLE, new=200.0), RULES) is Trigger.PREFERENCES
    assert trigger(replace(IDLE, new=199.9, new_rows=5000), RULES) is None


def test_a_schedule_begins_a_cycle_at_the_first_look_after_its_time() -> None:
    nightly = replace(RULES, schedule="30 3 * * *")
    assert trigger(replace(IDLE, now=at(3.4)), nightly) is None
    assert trigger(replace(IDLE, now=at(3.5)), nightly) is Trigger.SCHEDULE
    assert trigger(replace(IDLE, now=at(20), began_at=at(3.6)), nightly) is None
    assert trigger(replace(IDLE, now=at(27.5), began_at=at(3.6)), nightly) is Trigger.SCHEDULE


def test_neither_schedule_nor_drift_begins_a_cycle_on_the_same_labels_again() -> None:
    eager = Rules(min_new=200, schedule="* * * * *", every=timedelta(minutes=1))
    assert trigger(replace(IDLE, new=0.0, new_rows=0, drift=("drift-topics",)), eager) is None


def test_at_least_every_few_hours_one_is_begun() -> None:
    rules = replace(RULES, every=timedelta(hours=6))
    assert trigger(replace(IDLE, now=at(5.9)), rules) is None
    assert trigger(replace(IDLE, now=at(6)), rules) is Trigger.SCHEDULE
    assert trigger(replace(IDLE, now=at(6), began_at=at(0.5)), rules) is None


def test_an_open_drift_alert_begins_a_cycle_and_is_named() -> None:
    found = due(replace(IDLE, drift=("drift-topics",)), RULES)
    assert found is not None and (found.trigger, found.why) == (Trigger.DRIFT, "alert drift-topics")


def test_cycles_stay_apart_however_much_is_new() -> None:
    rules = replace(RULES, apart=timedelta(hours=4))
    look = replace(IDLE, new=1000.0, began_at=at(2))
    assert trigger(replace(look, now=at(5.9)), rules) is None
    assert trigger(replace(look, now=at(6)), rules) is Trigger.PREFERENCES


@pytest.mark.parametrize(("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (40, 360)])
def test_each_failure_in_a_row_doubles_the_wait_up_to_six_hours(failures: int, minutes: int) -> None:
    look = replace(IDLE, began_at=at(1), ended_at=at(2), failures=failures)
    assert not_before(look, RULES) == at(2) + timedelta(minutes=minutes)


def test_many_equal_labels_of_many_people_count_each() -> None:
    labels = [(f"u{n % 40}", 0.5) for n in range(200)]
    assert effective_number(labels, 0.01) == pytest.approx(200)


def test_a_thousand_clicks_of_one_user_add_what_a_few_people_would() -> None:
    """20 people with 10 labels; the clicker is capped at s = 2/21 of all: c = s/(1-s) * 200 = 21.05 over 1000 labels.

    Kish: (200 + 21.05)^2 / (200 + 1000 * 0.02105^2) = 48863.7 / 200.443 = 243.8.
    """
    labels = [(f"u{n % 20}", 1.0) for n in range(200)] + [("clicker", 1.0)] * 1000
    assert effective_number(labels, 0.01) == pytest.approx(243.8, abs=0.05)


def test_labels_that_weigh_nothing_or_are_not_there_count_nothing() -> None:
    assert effective_number([("a", 0.0), ("b", 0.0)], 0.01) == 0.0
    assert effective_number([], 0.01) == 0.0
    assert effective_number([("a", 1.0), ("b", 0.0), ("c", 1.0)], 0.01) == pytest.approx(2.0)


def test_a_cron_schedule_is_in_utc_and_a_wrong_one_is_refused() -> None:
    assert next_time("30 3 * * 1-5", MIDNIGHT) == datetime(2026, 11, 23, 3, 30, tzinfo=UTC)
    for wrong in ("every day", "61 3 * * *", "* * * * * *", ""):
        with pytest.raises(ValueError, match="is no cron schedule"):
            check_schedule(wrong)
