"""The fold of what was said of one answer. Times are minutes after noon."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.feedback import NEEDS_TEXT, Feedback, FeedbackKind
from schemas.messages import ChatMessage
from schemas.outputs import Output
from streams.core.aggregation import Given, Said, rating, respond, thumbs

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RESPONSE = "chatcmpl-" + "0" * 32
OUTPUT = Output(
    response_id=RESPONSE,
    prompt_id="prompt-1",
    prompt=(ChatMessage(role="user", content="How do I reset my password?"),),
    completion="Click on forgotten password.",
    version="base",
    base_model="tiny",
    temperature=1.0,
    max_completion_tokens=20,
    finish_reason="stop",
    input_tokens=8,
    output_tokens=5,
    latency_seconds=0.2,
)
GIVEN = Given("output-1", NOON, OUTPUT)


def said(minute: int, kind: str, user: str | None = "ann", *, text: str | None = None, id: str = "") -> Said:
    feedback = Feedback(response_id=RESPONSE, kind=FeedbackKind(kind), user_id=user, text=text)
    return Said(id or f"event-{minute}-{kind}-{user}", NOON + timedelta(minutes=minute), feedback)


def test_an_answer_in_silence_has_no_thumb() -> None:
    row = respond([GIVEN], [])
    assert row is not None
    assert (row.thumb, row.feedback_count, rating(row)) == (None, 0, None)


def test_feedback_without_its_output_makes_no_row() -> None:
    assert respond([], [said(1, "thumbs_up")]) is None


def test_a_later_thumb_of_the_same_user_replaces_the_earlier_one() -> None:
    row = respond([GIVEN], [said(2, "thumbs_down"), said(1, "thumbs_up")])
    assert row is not None
    assert (row.thumb, row.rater_id, row.rated_at) == (-1, "ann", NOON + timedelta(minutes=2))


def test_a_withdrawal_takes_back_the_thumb_and_a_later_thumb_counts_again() -> None:
    up, back, again = said(1, "thumbs_up"), said(2, "withdrawal"), said(3, "thumbs_up")
    assert thumbs([up, back]).value is None
    assert thumbs([up, back, again]).value == 1


def test_a_withdrawal_of_one_user_leaves_the_thumb_of_another() -> None:
    verdict = thumbs([said(1, "thumbs_up", "ann"), said(2, "thumbs_down", "bob"), said(3, "withdrawal", "bob")])
    assert (verdict.value, verdict.rater_id) == (1, "ann")


def test_one_user_who_clicks_often_counts_once_against_two_others() -> None:
    clicks = [said(i, "thumbs_down", "spammer") for i in range(1, 50)]
    assert thumbs([*clicks, said(60, "thumbs_up", "ann"), said(61, "thumbs_up", "bob")]).value == 1


def test_users_who_disagree_evenly_say_nothing() -> None:
    assert thumbs([said(1, "thumbs_up", "ann"), said(2, "thumbs_down", "bob")]).value is None


def test_the_same_event_twice_counts_once() -> None:
    copy = said(1, "copy", id="same")
    row = respond([GIVEN], [copy, copy])
    assert row is not None
    assert (row.copies, row.feedback_count) == (1, 1)


def test_words_signals_and_flags_are_kept() -> None:
    row = respond(
        [GIVEN],
        [
            said(1, "comment", text="too short"),
            said(2, "correction", text="Use the link in the mail."),
            said(3, "edit", text="Click the link."),
            said(4, "flag", "ann"),
            said(5, "flag", "ann"),
            said(6, "flag", "bob"),
            said(7, "regenerate"),
        ],
    )
    assert row is not None
    assert (row.comment, row.correction, row.edited) == ("too short", "Use the link in the mail.", "Click the link.")
    assert (row.corrected_by, row.corrected_at) == ("ann", NOON + timedelta(minutes=2))
    assert (row.flags, row.regenerations, row.feedback_count) == (2, 1, 7)


def test_an_output_that_comes_twice_keeps_its_first_text() -> None:
    forged = Given("output-2", NOON + timedelta(minutes=5), OUTPUT.model_copy(update={"completion": "forged"}))
    row = respond([forged, GIVEN], [])
    assert row is not None
    assert row.completion == OUTPUT.completion


def test_a_thumb_up_becomes_a_rating_of_one_row_id_per_response() -> None:
    row = respond([GIVEN], [said(1, "thumbs_up")])
    assert row is not None
    judged = rating(row)
    assert judged is not None
    assert (judged.label, judged.rater_id, judged.weight) == (True, "ann", 1.0)
    assert judged.rating_id == f"rating-{RESPONSE}"


events = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from([k.value for k in FeedbackKind]), st.sampled_from(["ann", "bob", None])
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(events, st.randoms(use_true_random=False), st.data())
def test_the_order_of_arrival_and_repeats_change_nothing(drawn: list, rng: random.Random, data: st.DataObject) -> None:
    known = [
        said(minute, kind, user, text=f"text {i}" if FeedbackKind(kind) in NEEDS_TEXT else None, id=f"event-{i}")
        for i, (minute, kind, user) in enumerate(drawn)
    ]
    repeats = data.draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
    shuffled = [*known, *repeats]
    rng.shuffle(shuffled)
    assert respond([GIVEN], shuffled) == respond([GIVEN], known)
