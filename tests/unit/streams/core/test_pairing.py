"""Pairs of one prompt, worked out by hand."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consent import Purpose, Purposes
from schemas.feedback import Feedback, FeedbackKind
from schemas.labels import Candidate, Label, Verdict
from schemas.messages import ChatMessage
from schemas.outputs import Output
from schemas.tables import PreferenceRow, ResponseRow, Vote
from streams.core.aggregation import ratings, respond
from streams.core.conduct import BurstRule, Judged, bursts
from streams.core.evidence import Given, Said
from streams.core.pairing import MAX_PAIRS_PER_RESPONSE, Cast, pairs
from streams.core.revisions import revise

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PROMPT = (ChatMessage(role="user", content="Where is my parcel?"),)


def response(
    n: int,
    thumb: int | None = None,
    *,
    text: str | None = None,
    regenerates: int | None = None,
    correction: str | None = None,
    rater: str | None = None,
    **more: Any,
) -> ResponseRow:
    return ResponseRow(
        response_id=_id(n),
        prompt_id="prompt-1",
        prompt=PROMPT,
        completion=text or f"answer {n}",
        version="base",
        base_model="tiny",
        temperature=1.0,
        max_completion_tokens=20,
        finish_reason="stop",
        input_tokens=4,
        output_tokens=4,
        latency_seconds=0.1,
        event_time=NOON,
        revision=1,
        thumb=thumb,
        rater_id=(rater or f"user-{n}") if thumb else None,
        rated_at=NOON + timedelta(minutes=n) if thumb else None,
        regenerates=None if regenerates is None else _id(regenerates),
        correction=correction,
        corrected_by="ann" if correction else None,
        corrected_at=NOON if correction else None,
        **more,
    )


def label(n: int, verdict: str, labeler: str, *, swapped: bool = False, same: bool = False) -> Cast:
    good, bad = Candidate(completion="good"), Candidate(completion="good" if same else "bad")
    left, right = (bad, good) if swapped else (good, bad)
    cast = Label(
        task_id="task-1",
        labeler_id=labeler,
        verdict=Verdict(verdict),
        prompt_id="prompt-1",
        prompt=PROMPT,
        left=left,
        right=right,
        seconds_taken=3.0,
    )
    return Cast(f"label-{n}", NOON + timedelta(minutes=n), cast)


def _id(n: int) -> str:
    return f"chatcmpl-{n:032x}"


def only(found: dict[str, PreferenceRow]) -> PreferenceRow:
    assert len(found) == 1
    return next(iter(found.values()))


def test_one_up_and_one_down_make_one_pair() -> None:
    pair = only(pairs([response(1, 1), response(2, -1), response(3)], []))
    assert (pair.chosen, pair.rejected, pair.source.value, pair.weight) == ("answer 1", "answer 2", "same_prompt", 0.5)
    assert (pair.rater_id, pair.judged_at) == ("user-1", NOON + timedelta(minutes=2))


def test_two_ups_make_no_pair() -> None:
    assert pairs([response(1, 1), response(2, 1)], []) == {}


def test_identical_texts_never_pair() -> None:
    assert pairs([response(1, 1, text="same"), response(2, -1, text="same")], []) == {}


def test_a_regenerated_answer_with_the_opposite_thumb_is_one_pair_of_full_weight() -> None:
    pair = only(pairs([response(1, -1, rater="ann"), response(2, 1, regenerates=1, rater="ann")], []))
    assert (pair.chosen, pair.rejected, pair.source.value, pair.weight) == ("answer 2", "answer 1", "regenerate", 1.0)


def test_a_regenerated_answer_that_somebody_else_judged_is_no_comparison_of_one_user() -> None:
    pair = only(pairs([response(1, -1), response(2, 1, regenerates=1)], []))
    assert (pair.source.value, pair.weight) == ("same_prompt", 0.5)


def test_siblings_of_one_request_that_one_user_judged_make_a_pair_of_full_weight() -> None:
    rows = [response(n, thumb, rater="ann", request_id="r") for n, thumb in ((1, 1), (2, -1), (3, None))]
    pair = only(pairs(rows, []))
    assert (pair.chosen, pair.rejected, pair.source.value, pair.weight) == ("answer 1", "answer 2", "siblings", 1.0)
    others = [response(1, 1, rater="ann", request_id="r"), response(2, -1, rater="bob", request_id="r")]
    assert only(pairs(others, [])).source.value == "same_prompt"


def test_tenants_never_pair() -> None:
    assert pairs([response(1, 1, tenant="acme"), response(2, -1, tenant="other"), response(3, -1)], []) == {}
    assert only(pairs([response(1, 1, tenant="acme"), response(2, -1, tenant="acme")], [])).tenant == "acme"
    linked = [response(1, -1, rater="ann", tenant="a", request_id="r"), response(2, 1, rater="ann", request_id="r")]
    assert pairs([*linked, response(3, 1, regenerates=1, rater="ann")], []) == {}


def test_answers_without_consent_to_training_make_no_pairs_of_any_kind() -> None:
    refused = {"purposes": ()}
    assert pairs([response(1, 1, **refused), response(2, -1)], []) == {}
    assert pairs([response(1, correction="better", **refused)], []) == {}
    shown = label(1, "left", "a").label.model_copy(update={"left": Candidate(completion="good", response_id=_id(1))})
    cast = [Cast("label-1", NOON, shown)]
    assert pairs([response(1, text="good", **refused)], cast) == {}
    assert only(pairs([response(1, text="good")], cast)).chosen == "good"


def test_a_label_that_may_not_be_learned_from_is_no_vote_and_takes_back_the_one_before() -> None:
    def agreed(n: int, verdict: str, labeler: str, *purposes: Purpose) -> Cast:
        cast = label(n, verdict, labeler)
        return replace(cast, label=cast.label.model_copy(update={"purposes": purposes}))

    assert pairs([], [agreed(1, "left", "a", Purpose.LABELING)]) == {}
    assert only(pairs([], [agreed(1, "left", "a", Purpose.TRAINING)])).weight == 1.0
    assert pairs([], [label(1, "left", "a"), agreed(2, "left", "a")]) == {}
    disputed = only(pairs([], [label(1, "left", "a"), label(2, "left", "b"), agreed(3, "right", "c")]))
    assert (disputed.chosen, disputed.weight, disputed.evidence) == ("good", 1.0, ("label-1", "label-2"))


def test_tasks_on_the_same_two_texts_are_one_question_with_one_vote_each() -> None:
    def asked(n: int, task: str, verdict: str, labeler: str) -> Cast:
        cast = label(n, verdict, labeler, swapped=n % 2 == 0)
        return replace(cast, label=cast.label.model_copy(update={"task_id": task}))

    one = only(pairs([], [asked(1, "task-1", "left", "a")]))
    both = only(pairs([], [asked(1, "task-1", "left", "a"), asked(2, "task-2", "right", "b")]))
    assert (both.preference_id, both.weight, both.evidence) == (one.preference_id, 1.0, ("label-1", "label-2"))
    turned = [asked(1, "task-1", "left", "a"), asked(2, "task-2", "left", "a"), asked(3, "task-3", "right", "b")]
    assert only(pairs([], turned)).chosen == "bad"


def test_a_label_on_answers_of_two_tenants_makes_no_pair() -> None:
    sides = {
        "left": Candidate(completion="good", response_id=_id(1)),
        "right": Candidate(completion="bad", response_id=_id(2)),
    }
    cast = [Cast("label-1", NOON, label(1, "left", "a").label.model_copy(update=sides))]
    assert pairs([response(1, tenant="acme"), response(2, tenant="other")], cast) == {}
    assert only(pairs([response(1, tenant="acme"), response(2, tenant="acme")], cast)).tenant == "acme"


def test_a_shadow_answer_pairs_by_labels_alone() -> None:
    shadow = response(2, -1, shadow_of=_id(1))
    assert pairs([response(1, 1), shadow, response(3, correction="x", shadow_of=_id(1))], []) == {}


def test_a_pair_is_as_sure_as_both_its_thumbs_are() -> None:
    pair = only(pairs([response(1, 1, thumb_weight=0.5), response(2, -1, thumb_weight=0.25)], []))
    assert pair.weight == 0.5 * 0.5 * 0.25
    assert pairs([response(1, 1, thumb_weight=0.0), response(2, -1)], []) == {}


def test_a_repeated_opinion_takes_part_in_pairs_once() -> None:
    rows = [response(n, 1, text="same", rater="ann") for n in (1, 2, 3)]
    pair = only(pairs([*rows, response(4, -1)], []))
    assert pair.chosen_response_id == _id(1)


def test_an_edit_makes_no_pair() -> None:
    assert pairs([response(1, edited="answer 1, adapted")], []) == {}


def test_a_disputed_label_weighs_as_much_as_the_winner_is_ahead() -> None:
    cast = [label(1, "left", "a"), label(2, "left", "b"), label(3, "right", "c"), label(4, "skip", "d")]
    pair = only(pairs([], cast))
    assert (pair.weight, pair.evidence) == (1 / 3, ("label-1", "label-2", "label-3"))
    assert only(pairs([], cast[:2])).weight == 1.0


def test_a_label_event_whose_id_was_used_twice_counts_once_in_any_order() -> None:
    one, other = label(1, "left", "a"), label(2, "right", "a")
    other = Cast(one.event_id, other.time, other.label)
    assert only(pairs([], [one, other])).chosen == only(pairs([], [other, one])).chosen == "good"


def test_a_pair_leads_back_to_the_events_behind_it() -> None:
    votes = {n: (Vote(event_id=f"e{n}", rater_id=f"user-{n}", value=1, at=NOON),) for n in (1, 2)}
    pair = only(pairs([response(1, 1, votes=votes[1]), response(2, -1, votes=votes[2])], []))
    assert pair.evidence == ("e1", "e2")
    corrected = only(pairs([response(1, correction="better", correction_event_id="e9")], []))
    assert corrected.evidence == ("e9",)


def test_a_correction_is_chosen_over_the_answer() -> None:
    pair = only(pairs([response(1, correction="better")], []))
    assert (pair.chosen, pair.rejected, pair.rater_id) == ("better", "answer 1", "ann")
    assert (pair.chosen_response_id, pair.rejected_response_id) == (None, _id(1))


def test_a_correction_that_changes_nothing_makes_no_pair() -> None:
    assert pairs([response(1, correction=" answer 1 ")], []) == {}


def test_labels_of_one_task_are_decided_by_majority_whatever_the_sides() -> None:
    cast = [label(1, "left", "a"), label(2, "left", "b", swapped=True), label(3, "right", "c", swapped=True)]
    pair = only(pairs([], cast))
    assert (pair.chosen, pair.rejected, pair.source.value) == ("good", "bad", "label")
    assert (pair.rater_id, pair.judged_at) == ("c", NOON + timedelta(minutes=3))


def test_labels_that_come_to_no_decision_make_no_pair() -> None:
    assert pairs([], [label(1, "left", "a"), label(2, "right", "b")]) == {}
    for verdict in ("tie", "both_bad", "skip"):
        assert pairs([], [label(1, verdict, "a")]) == {}
    assert pairs([], [label(1, "left", "a"), label(2, "tie", "b")]) == {}
    assert pairs([], [label(1, "left", "a", same=True)]) == {}


def test_a_labeler_who_changes_their_mind_has_one_vote() -> None:
    pair = only(pairs([], [label(1, "left", "a"), label(2, "right", "a")]))
    assert pair.chosen == "bad"


def test_a_turned_thumb_turns_the_pair_under_the_same_id() -> None:
    before = pairs([response(1, 1), response(2, -1)], [])
    after = pairs([response(1, -1), response(2, 1)], [])
    assert before.keys() == after.keys()
    (changed,) = revise(before, after)
    assert (changed.revision, changed.chosen, changed.retracted) == (2, "answer 2", False)


def test_a_withdrawn_thumb_retracts_the_pair() -> None:
    (gone,) = revise(pairs([response(1, 1), response(2, -1)], []), pairs([response(1, 1), response(2)], []))
    assert (gone.revision, gone.retracted) == (2, True)
    assert revise({gone.preference_id: gone}, {}) == []
    (back,) = revise({gone.preference_id: gone}, pairs([response(1, 1), response(2, -1)], []))
    assert (back.revision, back.retracted) == (3, False)


rated = st.lists(st.sampled_from([1, -1, None]), max_size=14)


@settings(max_examples=100, deadline=None)
@given(rated, st.randoms(use_true_random=False))
def test_pairs_depend_on_the_evidence_alone_and_share_no_answer_too_often(thumbs: list, rng: random.Random) -> None:
    rows = [response(n, thumb) for n, thumb in enumerate(thumbs)]
    found = pairs(rows, [])
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert pairs(shuffled, []) == found
    uses = Counter(i for p in found.values() for i in (p.chosen_response_id, p.rejected_response_id))
    assert max(uses.values(), default=0) <= MAX_PAIRS_PER_RESPONSE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([1, -1, None])), max_size=20))
def test_pairs_reached_by_increments_are_those_computed_at_once(changes: list) -> None:
    state: dict[int, ResponseRow] = {}
    table: dict[str, PreferenceRow] = {}
    for n, thumb in changes:
        state[n] = response(n, thumb)
        for row in revise(table, pairs(state.values(), [])):
            table[row.preference_id] = row
    present = {i: row.model_copy(update={"revision": 1}) for i, row in table.items() if not row.retracted}
    assert present == pairs(state.values(), [])


spoken = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["thumbs_up", "thumbs_down", "withdrawal", "correction"]),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, 40),
        st.sampled_from([None, ()]),
    ),
    max_size=18,
)


@settings(max_examples=60, deadline=None)
@given(spoken, st.randoms(use_true_random=False))
def test_events_in_any_order_batches_and_repeats_come_to_the_rows_of_one_batch(said: list, rng: random.Random) -> None:
    """From events to ratings and pairs by the pure functions alone, as refine puts them together."""
    outputs = [Given(f"out-{n}", NOON, _output(n)) for n in range(6)]
    events = [_said(f"e-{i}", *what) for i, what in enumerate(said)]
    arriving: list[Given | Said] = [*outputs, *events, *events[:4], *outputs[:1]]
    rng.shuffle(arriving)
    known: list[Given | Said] = []
    silver: dict[str, ResponseRow] = {}
    gold: dict[str, PreferenceRow] = {}
    while arriving:
        size = rng.randrange(1, 5)
        known, arriving = known + arriving[:size], arriving[size:]
        for row in revise(silver, _silver(known)):
            silver[row.response_id] = row
        for pair in revise(gold, pairs(silver.values(), [])):
            gold[pair.preference_id] = pair
    at_once = _silver([*outputs, *events])
    assert {i: r.model_copy(update={"revision": 1}) for i, r in silver.items()} == at_once
    assert _standing(gold) == pairs(at_once.values(), [])
    assert ratings(silver.values()) == ratings(at_once.values())


def _output(n: int) -> Output:
    fields = {name: value for name, value in response(n, text=f"text {n % 4}") if name in Output.model_fields}
    linked = {"request_id": f"r{n // 2}"} if n < 4 else {"regenerates": _id(n - 1)}
    return Output(**(fields | linked))


def _said(event_id: str, n: int, kind: str, user: str, second: int, purposes: Purposes | None) -> Said:
    text = f"better {second % 2}" if kind == "correction" else None
    feedback = Feedback(response_id=_id(n), kind=FeedbackKind(kind), user_id=user, text=text, purposes=purposes)
    return Said(event_id, NOON + timedelta(seconds=second), feedback)


def _silver(known: Sequence[Given | Said]) -> dict[str, ResponseRow]:
    about = [_id(n) for n in range(6)]
    said = [k for k in known if isinstance(k, Said)]
    judged = [Judged(s.event_id, s.time, (None, s.feedback.user_id or ""), s.feedback.response_id) for s in said]
    fast = bursts(judged, BurstRule(limit=2, seconds=20))
    rows = [
        respond(
            [k for k in known if isinstance(k, Given) and k.output.response_id == i],
            [s for s in said if s.feedback.response_id == i],
            bursts=fast,
        )
        for i in about
    ]
    return {row.response_id: row for row in rows if row is not None}


def _standing(rows: dict[str, PreferenceRow]) -> dict[str, PreferenceRow]:
    return {i: row.model_copy(update={"revision": 1}) for i, row in rows.items() if not row.retracted}
