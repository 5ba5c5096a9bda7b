"""Windows of ten seconds, aligned to the epoch."""

from datetime import UTC, datetime, timedelta

from schemas.feedback import FeedbackKind
from streams.core.indicators import UNKNOWN, Matcher, Recent, Thumb, Windows

START = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_window_is_told_once_after_it_has_ended() -> None:
    windows = Windows(10)
    windows.output("v1", "default", latency_seconds=0.5, at=at(1))
    windows.output("v1", "default", latency_seconds=1.0, at=at(9))
    windows.thumb("v1", "default", kind=FeedbackKind.THUMBS_UP, at=at(9))
    windows.thumb("v1", "default", kind=FeedbackKind.THUMBS_DOWN, at=at(10))
    assert windows.closed(at(9.9)) == []
    (sli,) = windows.closed(at(10))
    assert (sli.outputs, sli.thumbs_up, sli.thumbs_down, sli.latency_seconds_sum) == (2, 1, 0, 1.5)
    assert (sli.window_start, sli.window_end) == (at(0), at(10))
    assert [s.thumbs_down for s in windows.closed(at(25))] == [1]


def test_versions_and_segments_are_counted_apart() -> None:
    windows = Windows(10)
    for version, segment in (("v1", "a"), ("v1", "b"), ("v2", "a")):
        windows.output(version, segment, latency_seconds=0.0, at=at(0))
    assert [(s.version, s.segment) for s in windows.closed(at(10))] == [("v1", "a"), ("v1", "b"), ("v2", "a")]


def test_the_oldest_answer_is_forgotten_first() -> None:
    recent = Recent(limit=2)
    for n in range(3):
        recent.remember(f"r{n}", "v1", "default")
    assert [recent.get(f"r{n}") for n in range(3)] == [None, ("v1", "default"), ("v1", "default")]


def test_a_thumb_waits_for_its_answer_and_not_for_ever() -> None:
    recent = Recent(limit=10)
    matcher = Matcher(recent, patience=timedelta(seconds=5))
    early, lost = Thumb("r1", FeedbackKind.THUMBS_UP, at(0)), Thumb("r2", FeedbackKind.THUMBS_UP, at(0))
    matcher.add(early)
    matcher.add(lost)
    assert matcher.due(at(1)) == []
    recent.remember("r1", "v1", "default")
    assert matcher.due(at(2)) == [(early, ("v1", "default"))]
    assert matcher.due(at(5)) == [(lost, UNKNOWN)]
    assert matcher.due(at(9)) == []
