"""Rows of gold.annotators by hand."""

from datetime import UTC, datetime

from streams.core.raters import NEITHER, Conduct, annotator, label_class, opinions, side_of
from streams.core.reliability import Reliability
from tests.unit.streams.core.test_pairing import label

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def user(judgements: int, **more: int) -> Conduct:
    return Conduct("ann", "user", judgements, NOON, **more)


def test_of_a_quiet_user_there_is_nothing_to_say() -> None:
    assert annotator(user(100), None, cap=100) is None


def test_a_thousand_clicks_weigh_as_the_cap() -> None:
    row = annotator(user(1000), None, cap=100)
    assert row is not None
    assert (row.weight, row.judgements, row.reliability) == (0.1, 1000, 0.8)


def test_labelers_are_asked_for_much_and_not_capped() -> None:
    assert annotator(Conduct("labeler:lea", "labeler", 5000, NOON), None, cap=100) is None


def test_reliability_and_cap_multiply() -> None:
    # (2 * 0.95 - 1) / 0.6 = 1.5, times 100 / 200
    row = annotator(user(200, overlapping=40), Reliability(0.95, 0.9, 0.97, 40), cap=100)
    assert row is not None
    assert (row.weight, row.low, row.high, row.overlapping, row.estimated_at) == (0.75, 0.9, 0.97, 40, NOON)


def test_who_was_seen_in_a_burst_or_repeating_has_a_row() -> None:
    for conduct in (user(5, bursts=1), user(5, duplicates=1)):
        row = annotator(conduct, None, cap=100)
        assert row is not None and row.weight == 1.0


def test_classes_follow_the_texts_and_not_the_sides() -> None:
    # In order of the texts "bad" is class 0 and "good" is class 1.
    assert [label_class(label(1, v, "a")) for v in ("left", "right", "tie", "both_bad")] == [1, 0, NEITHER, NEITHER]
    assert label_class(label(1, "left", "a", swapped=True)) == 0
    assert (side_of("bad", ("good", "bad")), side_of(None, ("good", "bad")), side_of("x", ("a", "b"))) == (0, 2, 2)


def test_a_labeler_has_one_opinion_on_a_task_the_latest_and_a_skip_is_none() -> None:
    cast = [label(2, "right", "a"), label(1, "left", "a"), label(3, "skip", "b"), label(4, "tie", "c")]
    assert [(o.rater, o.said) for o in opinions(cast)] == [("labeler:a", 0), ("labeler:c", NEITHER)]
