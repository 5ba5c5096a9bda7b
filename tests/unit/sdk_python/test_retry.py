"""When the SDK tries again, by hand-made numbers."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbwheel_client.retry import LONGEST_RETRY_AFTER, Backoff, is_busy, is_worth_a_retry, retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def test_the_ceiling_doubles_up_to_the_longest_wait() -> None:
    backoff = Backoff(first=0.5, longest=60.0)
    assert [backoff.ceiling(failures) for failures in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.ceiling(10_000) == 60


def test_the_jitter_is_full_from_nothing_to_the_ceiling() -> None:
    backoff = Backoff(first=0.5, longest=60.0)
    assert [backoff.delay(3, chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 0.5, 1.0]


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    backoff = Backoff(first=0.5, longest=60.0)
    assert backoff.delay(1, 0.5, retry_after=7.0) == 7.0
    assert backoff.delay(8, 0.5, retry_after=7.0) == 30.0
    assert backoff.delay(1, 0.5, retry_after=86_400.0) == LONGEST_RETRY_AFTER == 300.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        (" 120 ", 120.0),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:59:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, NOW) == seconds
    assert retry_after({}, NOW) is None


@given(st.text(max_size=40))
def test_no_retry_after_breaks_the_client(text: str) -> None:
    seconds = retry_after({"retry-after": text}, NOW)
    assert seconds is None or seconds >= 0


def test_which_statuses_are_worth_a_retry() -> None:
    statuses = [400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 501, 502, 503, 504, 599]
    assert [s for s in statuses if is_worth_a_retry(s)] == [408, 425, 429, 500, 501, 502, 503, 504, 599]
    assert [s for s in statuses if is_busy(s)] == [408, 425, 429, 502, 503, 504]
