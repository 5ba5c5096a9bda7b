"""The fold of what was said of one answer. Times are minutes after noon."""

import random
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consent import Purpose
from schemas.feedback import NEEDS_TEXT, Feedback, FeedbackKind
from schemas.messages import ChatMessage
from schemas.outputs import Output
from schemas.tables import Discount, RatingRow, ResponseRow
from streams.core.aggregation import Verdict, decide, ratings, respond, standing
from streams.core.evidence import Given, Said, in_order

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
NO_CONSENT: dict[str, Any] = {"purposes": ()}


def thumbs(events: list[Said], *, bursts: Collection[str] = ()) -> Verdict:
    return decide(standing(in_order(events), bursts=bursts))


def joined(*events: Said, output: Output = OUTPUT, bursts: Collection[str] = frozenset()) -> ResponseRow:
    row = respond([Given("output-1", NOON, output)], events, bursts=bursts)
    assert row is not None
    return row


def rating(row: ResponseRow) -> RatingRow | None:
    return next(iter(ratings([row]).values()), None)


def said(
    minute: float, kind: str, user: str | None = "ann", *, text: str | None = None, id: str = "", **more: Any
) -> Said:
    feedback = Feedback(response_id=RESPONSE, kind=FeedbackKind(kind), user_id=user, text=text, **more)
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


def test_a_majority_weighs_as_much_as_the_sides_differ() -> None:
    two_to_one = thumbs([said(1, "thumbs_up", "ann"), said(2, "thumbs_up", "bob"), said(3, "thumbs_down", "cem")])
    assert (two_to_one.value, two_to_one.weight, two_to_one.rater_id) == (1, 1 / 3, "bob")
    assert thumbs([said(1, "thumbs_down", "ann"), said(2, "thumbs_down", "bob")]).weight == 1.0
    judged = rating(joined(said(1, "thumbs_up", "a"), said(2, "thumbs_up", "b"), said(3, "thumbs_down", "c")))
    assert judged is not None
    assert (judged.label, judged.weight) == (True, 1 / 3)


def test_a_thumb_without_consent_is_counted_but_teaches_nothing() -> None:
    row = joined(said(1, "thumbs_up", **NO_CONSENT), said(2, "comment", text="nice", **NO_CONSENT))
    assert (row.thumb, row.comment, row.feedback_count, rating(row)) == (None, None, 2, None)
    corrected = joined(said(1, "correction", text="better", **NO_CONSENT), said(2, "edit", text="own", **NO_CONSENT))
    assert (corrected.correction, corrected.edited) == (None, None)


def test_consent_is_not_retroactive_but_a_thumb_that_was_replaced_counts_no_more() -> None:
    flag_later = joined(said(1, "thumbs_up"), said(2, "flag", **NO_CONSENT))
    assert (flag_later.thumb, flag_later.flags) == (1, 1)
    assert joined(said(1, "thumbs_up"), said(2, "thumbs_down", **NO_CONSENT)).thumb is None


def test_a_withdrawal_is_heard_whatever_it_consents_to() -> None:
    assert joined(said(1, "thumbs_up"), said(2, "withdrawal", **NO_CONSENT)).thumb is None


def test_an_answer_without_consent_to_training_makes_no_rating() -> None:
    refused = OUTPUT.model_copy(update={"purposes": (Purpose.LABELING,)})
    row = joined(said(1, "thumbs_up"), output=refused)
    assert (row.thumb, rating(row)) == (1, None)


def test_nobody_can_have_seen_a_shadow_answer_so_a_thumb_on_one_makes_no_rating() -> None:
    shadow = OUTPUT.model_copy(update={"shadow_of": "chatcmpl-" + "1" * 32})
    assert rating(joined(said(1, "thumbs_up"), output=shadow)) is None


def test_what_another_tenant_says_is_not_about_this_answer() -> None:
    ours = OUTPUT.model_copy(update={"tenant": "acme"})
    row = joined(
        said(1, "thumbs_up", tenant="acme"),
        said(2, "thumbs_down", "bob", tenant="other"),
        said(3, "thumbs_down", "cem"),
        output=ours,
    )
    assert (row.thumb, row.rater_id, row.feedback_count) == (1, "ann", 1)


def test_a_vote_of_a_burst_counts_for_nothing_beside_others_and_weighs_nothing_alone() -> None:
    up, fast = said(1, "thumbs_up", "ann"), said(2, "thumbs_down", "bot", id="fast")
    beside = joined(up, fast, bursts={"fast"})
    assert (beside.thumb, beside.thumb_weight, beside.rater_id) == (1, 1.0, "ann")
    alone = rating(joined(fast, bursts={"fast"}))
    assert alone is not None
    assert (alone.label, alone.weight, alone.discounted) == (False, 0.0, Discount.BURST)


def test_a_correction_of_a_burst_is_left_aside_for_the_one_before_it() -> None:
    row = joined(
        said(1, "correction", text="slow", id="slow"), said(2, "correction", text="fast", id="fast"), bursts={"fast"}
    )
    assert (row.correction, row.correction_event_id) == ("slow", "slow")


def test_the_same_thumb_on_the_same_text_is_one_opinion() -> None:
    first = joined(said(1, "thumbs_up"))
    again = first.model_copy(update={"response_id": "chatcmpl-" + "1" * 32, "rated_at": NOON + timedelta(minutes=9)})
    other = again.model_copy(update={"response_id": "chatcmpl-" + "2" * 32, "completion": "Another text."})
    found = [(r.weight, r.discounted) for r in ratings([other, again, first]).values()]
    assert sorted(found, key=str) == [(0.0, Discount.DUPLICATE), (1.0, None), (1.0, None)]
    assert ratings([again, first])[f"rating-{first.response_id}"].weight == 1.0


def test_a_rating_leads_back_to_the_events_behind_it() -> None:
    judged = rating(joined(said(1, "thumbs_up", "ann", id="e1"), said(2, "thumbs_up", "bob", id="e2")))
    assert judged is not None
    assert judged.evidence == ("e1", "e2")


def test_feedback_that_claims_to_be_older_than_its_answer_counts_all_the_same() -> None:
    assert joined(said(-90, "thumbs_up")).thumb == 1


def test_of_two_contents_under_one_event_id_the_earlier_counts_in_any_order() -> None:
    one, other = said(1, "thumbs_up", id="same"), said(2, "thumbs_down", id="same")
    assert joined(one, other).thumb == joined(other, one).thumb == 1
    tie = said(1, "thumbs_down", id="same")
    assert joined(one, tie) == joined(tie, one)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["thumbs_up", "thumbs_down", "withdrawal", "comment"]),
            st.sampled_from(["ann", "bob"]),
            st.sampled_from([None, ()]),
            st.sampled_from([None, "acme"]),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_ids_that_are_used_for_several_contents_come_to_one_row_in_any_order(drawn: list, rng: random.Random) -> None:
    known = [
        said(minute, kind, user, text="words", id=f"event-{i % 4}", purposes=purposes, tenant=tenant)
        for i, (minute, kind, user, purposes, tenant) in enumerate(drawn)
    ]
    shuffled = list(known)
    rng.shuffle(shuffled)
    assert joined(*shuffled, bursts={"event-1"}) == joined(*known, bursts={"event-1"})
