"""Bursts, repeats and copies, at their edges. Times are seconds after noon."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.feedback import Feedback, FeedbackKind
from streams.core.conduct import BurstRule, Judged, bursts, duplicates
from streams.core.evidence import Said, in_order, without_copies
from tests.unit.streams.core.test_pairing import response

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RULE = BurstRule(limit=3, seconds=60)


def judged(second: float, *, about: str | None = None, rater: str = "ann", id: str = "", tenant: str = "") -> Judged:
    name = id or f"{rater}-{second:g}"
    return Judged(name, NOON + timedelta(seconds=second), (tenant or None, rater), about or name)


def test_judgements_up_to_the_limit_count_and_those_beyond_it_do_not() -> None:
    assert bursts([judged(n) for n in range(3)], RULE) == set()
    assert bursts([judged(n) for n in range(5)], RULE) == {"ann-3", "ann-4"}


def test_the_window_slides_and_is_open_at_its_end() -> None:
    assert bursts([judged(n) for n in (0, 1, 2, 60)], RULE) == set()
    assert bursts([judged(n) for n in (0, 1, 2, 59.9)], RULE) == {"ann-59.9"}


def test_who_slows_down_is_heard_again() -> None:
    assert bursts([judged(n) for n in (0, 1, 2, 3, 100, 101)], RULE) == {"ann-3"}


def test_judging_one_answer_often_is_no_burst() -> None:
    assert bursts([judged(n, about="one") for n in range(50)], RULE) == set()


def test_raters_and_tenants_are_counted_apart() -> None:
    assert bursts([judged(n, rater=f"u{n % 2}") for n in range(6)], RULE) == set()
    assert bursts([judged(n, tenant=f"t{n % 2}") for n in range(6)], RULE) == set()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 8)), max_size=25), st.randoms(use_true_random=False))
def test_a_burst_is_the_same_in_any_order_and_by_the_definition(drawn: list, rng: random.Random) -> None:
    events = [judged(second, about=f"r{about}", id=f"e{i:02}") for i, (second, about) in enumerate(drawn)]
    shuffled = [*events, *events[:3]]
    rng.shuffle(shuffled)
    ordered = sorted(events, key=lambda j: (j.time, j.event_id))
    window = timedelta(seconds=60)
    slow = {
        e.event_id
        for i, e in enumerate(ordered)
        if len({o.response_id for o in ordered[: i + 1] if e.time - o.time < window}) > 3
    }
    assert bursts(shuffled, RULE) == slow


def test_the_earliest_of_a_users_same_opinions_counts() -> None:
    rows = [response(n, 1, text="same", rater="ann") for n in (3, 1, 2)]
    assert duplicates(rows) == {rows[0].response_id, rows[2].response_id}
    other = [response(4, -1, text="same", rater="ann"), response(5, 1, text="same", rater="bob")]
    elsewhere = response(6, 1, text="same", rater="ann").model_copy(update={"prompt_id": "prompt-2"})
    assert duplicates([rows[1], *other, elsewhere]) == set()


def test_users_who_are_not_known_repeat_nobody() -> None:
    rows = [response(n, 1, text="same").model_copy(update={"rater_id": None}) for n in (1, 2)]
    assert duplicates(rows) == set()


def said(second: float, kind: str, user: str = "ann", text: str | None = None) -> Said:
    feedback = Feedback(response_id="chatcmpl-" + "0" * 32, kind=FeedbackKind(kind), user_id=user, text=text)
    return Said(f"{second:g}-{kind}-{user}", NOON + timedelta(seconds=second), feedback)


def kept(*events: Said) -> list[str]:
    return [s.event_id for s in without_copies(in_order(events))]


def test_the_same_again_within_seconds_is_a_copy() -> None:
    assert kept(said(0, "copy"), said(5, "copy"), said(10.1, "copy")) == ["0-copy-ann", "10.1-copy-ann"]
    assert kept(said(0, "copy"), said(4, "copy", "bob")) == ["0-copy-ann", "4-copy-bob"]
    assert kept(said(0, "flag", text="rude"), said(1, "flag", text="wrong")) == ["0-flag-ann", "1-flag-ann"]


def test_quick_changes_of_mind_are_no_copies() -> None:
    ups = said(0, "thumbs_up"), said(1, "thumbs_down"), said(2, "thumbs_up"), said(3, "withdrawal")
    assert len(kept(*ups)) == 4
