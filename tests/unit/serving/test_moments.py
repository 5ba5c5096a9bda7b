"""When feedback was given, as far as the client may say so."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.moments import AHEAD, moment_of
from serving.core.wire import RequestRefused

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
MOMENTS = st.datetimes(timezones=st.timezones())


def test_who_says_nothing_means_now() -> None:
    assert moment_of(None, NOW, oldest=MONTH) == NOW


def test_what_waited_keeps_its_time_whatever_its_zone() -> None:
    lunch = datetime(2026, 11, 20, 13, 30, tzinfo=timezone(timedelta(hours=2)))
    assert moment_of(lunch, NOW, oldest=MONTH) == datetime(2026, 11, 20, 11, 30, tzinfo=UTC)


def test_a_clock_that_is_a_little_ahead_is_believed_and_one_that_is_far_ahead_is_not() -> None:
    assert moment_of(NOW + AHEAD, NOW, oldest=MONTH) == NOW + AHEAD
    assert moment_of(NOW + AHEAD + timedelta(microseconds=1), NOW, oldest=MONTH) == NOW


def test_what_is_too_old_is_refused_and_told_the_limit() -> None:
    assert moment_of(NOW - MONTH, NOW, oldest=MONTH) == NOW - MONTH
    with pytest.raises(RequestRefused, match="more than 30 days ago") as refused:
        moment_of(NOW - MONTH - timedelta(microseconds=1), NOW, oldest=MONTH)
    assert (refused.value.code, refused.value.param, refused.value.status) == ("too_old", "occurred_at", 400)


@given(MOMENTS)
def test_every_moment_is_refused_or_lies_within_the_limits(moment: datetime) -> None:
    try:
        taken = moment_of(moment, NOW, oldest=MONTH)
    except RequestRefused:
        assert moment < NOW - MONTH
    else:
        assert NOW - MONTH <= taken <= NOW + AHEAD


@given(st.lists(MOMENTS, min_size=2, max_size=2))
def test_two_moments_in_the_past_keep_their_order(pair: list[datetime]) -> None:
    early, late = sorted(NOW - abs(moment - NOW) % MONTH for moment in pair)
    assert moment_of(early, NOW, oldest=MONTH) <= moment_of(late, NOW, oldest=MONTH)
