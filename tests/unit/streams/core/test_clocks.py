"""When an event counts as having happened."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from schemas.feedback import Feedback, FeedbackKind
from streams.adapters.increments import HAPPENED_AT
from streams.core.clocks import happened_at
from streams.core.evidence import Said, in_order

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def test_what_waited_is_as_old_as_it_says_and_what_comes_from_the_future_is_of_now() -> None:
    assert happened_at(NOON - HOUR, NOON) == NOON - HOUR
    assert happened_at(NOON + HOUR, NOON) == NOON


@given(MOMENTS, MOMENTS, MOMENTS)
def test_no_clock_overrules_what_was_said_after_its_event_had_come(
    stated: datetime, one: datetime, two: datetime
) -> None:
    taken_in, later = sorted((one, two))
    assert happened_at(stated, taken_in) <= happened_at(max(later, taken_in), later)


@given(st.lists(MOMENTS, min_size=2, max_size=2), MOMENTS)
def test_what_is_taken_in_together_is_never_turned_round(stated: list[datetime], taken_in: datetime) -> None:
    early, late = sorted(stated)
    assert happened_at(early, taken_in) <= happened_at(late, taken_in)


@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=20))
def test_columns_are_read_by_the_same_rule(rows: list[tuple[datetime, datetime]]) -> None:
    utc = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(rows, schema={"event_time": utc, "ingested_at": utc}, orient="row")
    assert frame.select(HAPPENED_AT.alias("at"))["at"].to_list() == [happened_at(*row) for row in rows]


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_events_of_one_moment_are_in_the_order_that_they_say_themselves(ids: list[int], arrival: list[int]) -> None:
    about = Feedback(response_id=f"chatcmpl-{'0' * 32}", kind=FeedbackKind.COPY)
    said = [Said(f"{ids[n]}", NOON, about, stated=NOON + n * HOUR) for n in range(5)]
    assert in_order(said[n] for n in arrival) == said
