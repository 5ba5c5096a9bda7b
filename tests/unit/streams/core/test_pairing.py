"""Pairs of one prompt, worked out by hand."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.labels import Candidate, Label, Verdict
from schemas.messages import ChatMessage
from schemas.tables import PreferenceRow, ResponseRow
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
        rater_id=f"user-{n}" if thumb else None,
        rated_at=NOON + timedelta(minutes=n) if thumb else None,
        regenerates=None if regenerates is None else _id(regenerates),
        correction=correction,
        corrected_by="ann" if correction else None,
        corrected_at=NOON if correction else None,
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
    pair = only(pairs([response(1, -1), response(2, 1, regenerates=1)], []))
    assert (pair.chosen, pair.rejected, pair.source.value, pair.weight) == ("answer 2", "answer 1", "regenerate", 1.0)


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
