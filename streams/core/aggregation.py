"""An output and all that was said of it become one row; a thumb becomes a rating.

The fold is a function of the *set* of events (`streams.core.evidence` says which count): whatever order they arrive
in, however often, in whatever batches, the row is the same.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.consent import Purpose, permits
from schemas.feedback import THUMBS, FeedbackKind
from schemas.preferences import PreferenceSource
from schemas.tables import Discount, RatingRow, ResponseRow, Vote
from streams.core.conduct import duplicates
from streams.core.evidence import Given, Said, belongs, first_given, in_order, learnable, without_copies

RATING_WEIGHT = 1.0
_THUMB_VALUE = {FeedbackKind.THUMBS_UP: 1, FeedbackKind.THUMBS_DOWN: -1}
_REMARKS = THUMBS | {FeedbackKind.COMMENT, FeedbackKind.FLAG}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the thumbs on one answer come to.

    `value` is 1, -1, or None where they cancel out or there is none; `weight` is how far they agree (0 to 1).
    """

    value: int | None = None
    weight: float | None = None
    rater_id: str | None = None
    rated_at: datetime | None = None


def respond(
    given: Iterable[Given], said: Iterable[Said], *, bursts: Collection[str] = frozenset()
) -> ResponseRow | None:
    """The row of one answer, or None while no output is known. Its `revision` is still to be given.

    `bursts` are the ids of judgements that came too fast. Everything said is counted; only what may be learned from
    becomes a thumb, a remark, a correction or an edit.
    """
    first = first_given(given)
    if first is None:
        return None
    events = without_copies(s for s in in_order(said) if belongs(s.feedback.tenant, first.output.tenant))
    votes, usable = standing(events, bursts=bursts), [s for s in events if learnable(s)]
    verdict, correction = decide(votes), _last(usable, {FeedbackKind.CORRECTION}, without=bursts)
    return ResponseRow(
        **dict(first.output),
        event_time=first.time,
        revision=1,
        thumb=verdict.value,
        rater_id=verdict.rater_id,
        rated_at=verdict.rated_at,
        thumb_weight=verdict.weight,
        votes=votes or None,
        comment=_text(_last(usable, _REMARKS)),
        correction=_text(correction),
        corrected_by=correction.feedback.user_id if correction else None,
        corrected_at=correction.time if correction else None,
        correction_event_id=correction.event_id if correction else None,
        edited=_text(_last(usable, {FeedbackKind.EDIT})),
        flags=_users(events, FeedbackKind.FLAG),
        copies=_count(events, FeedbackKind.COPY),
        regenerations=_count(events, FeedbackKind.REGENERATE),
        feedback_count=len(events),
    )


def standing(events: Iterable[Said], *, bursts: Collection[str] = frozenset()) -> tuple[Vote, ...]:
    """Each user's present thumb, oldest first.

    A user's later thumb replaces the earlier one and a withdrawal takes it back, so one who clicks a thousand times
    counts once. Thumbs without a user id count as one user's. A thumb that must not be learned from takes back the
    one before it, too, and puts nothing in its place: the user no longer means what they said then.
    """
    found: dict[str | None, Said] = {}
    for said in events:
        if said.feedback.kind in THUMBS and learnable(said):
            found[said.feedback.user_id] = said
        elif said.feedback.kind in THUMBS or said.feedback.kind is FeedbackKind.WITHDRAWAL:
            found.pop(said.feedback.user_id, None)
    return tuple(_vote(said, bursts) for said in sorted(found.values(), key=lambda s: (s.time, s.event_id)))


def decide(votes: Sequence[Vote]) -> Verdict:
    """The majority of the votes that count, weighing as much as the two sides differ: |up - down| / (up + down).

    Two against one weigh a third, evenly divided ones say nothing. To learn from the majority with this weight is, to
    first order, to learn from every vote with weight 1/n: the gradients of the two sides cancel (the "multiplied
    examples" of Sheng, Provost & Ipeirotis 2008, doi:10.1145/1401890.1401965), while counting the majority as one
    full voice would hide the doubt. Votes of a burst don't count; where there are no others the thumb is still shown,
    and weighs nothing.
    """
    counted = [v for v in votes if v.discounted is None]
    voices = counted or votes
    balance = sum(v.value for v in voices)
    if balance == 0:
        return Verdict()
    value = 1 if balance > 0 else -1
    last = max((v for v in voices if v.value == value), key=lambda v: (v.at, v.event_id))
    return Verdict(value, abs(balance) / len(voices) if counted else 0.0, last.rater_id, last.at)


def ratings(responses: Iterable[ResponseRow]) -> dict[str, RatingRow]:
    """The unpaired judgements by their ids, one for each answer that carries a thumb and may be learned from.

    Answers of the same user to the same prompt must come together: one may repeat another (`conduct.duplicates`),
    and then weighs nothing.
    """
    rows = [row for row in responses if rateable(row)]
    repeated = duplicates(rows)
    return {rating_id(row.response_id): _rating(row, row.response_id in repeated) for row in rows}


def rateable(row: ResponseRow) -> bool:
    """Whether a rating comes of this answer: it carries a thumb, its own consent covers training, and it was shown.

    Nobody saw a shadow answer, so a thumb on one is an error or worse.
    """
    judged = row.thumb is not None and row.rated_at is not None
    return judged and usable(row) and row.shadow_of is None


def usable(row: ResponseRow) -> bool:
    """Whether something may learn from this answer's texts."""
    return not row.retracted and permits(row.purposes, Purpose.TRAINING)


def weight_of(row: ResponseRow) -> float:
    """How far the votes agree; rows written before the column existed carried unanimous or majority thumbs."""
    return RATING_WEIGHT if row.thumb_weight is None else row.thumb_weight


def evidence_of(row: ResponseRow) -> tuple[str, ...]:
    """The event ids of the thumbs that stand on an answer, oldest first."""
    return tuple(v.event_id for v in row.votes or ())


def rating_id(response_id: str) -> str:
    """The row id of a response's rating: one for each response, in the same time order."""
    return f"rating-{response_id}"


def _vote(said: Said, bursts: Collection[str]) -> Vote:
    return Vote(
        event_id=said.event_id,
        rater_id=said.feedback.user_id,
        value=_THUMB_VALUE[said.feedback.kind],
        at=said.time,
        discounted=Discount.BURST if said.event_id in bursts else None,
    )


def _rating(row: ResponseRow, repeated: bool) -> RatingRow:
    assert row.thumb is not None
    assert row.rated_at is not None
    burst = Discount.BURST if weight_of(row) == 0 else None
    return RatingRow(
        rating_id=rating_id(row.response_id),
        revision=1,
        prompt_id=row.prompt_id,
        prompt=row.prompt,
        completion=row.completion,
        label=row.thumb > 0,
        weight=0.0 if repeated else RATING_WEIGHT * weight_of(row),
        source=PreferenceSource.THUMB,
        rater_id=row.rater_id,
        judged_at=row.rated_at,
        tenant=row.tenant,
        discounted=Discount.DUPLICATE if repeated else burst,
        evidence=evidence_of(row) or None,
        response_id=row.response_id,
        version=row.version,
    )


def _last(
    events: list[Said], kinds: Collection[FeedbackKind], *, without: Collection[str] = frozenset()
) -> Said | None:
    """The latest event of these kinds that carries a text."""
    found = (s for s in reversed(events) if s.feedback.kind in kinds and s.feedback.text)
    return next((s for s in found if s.event_id not in without), None)


def _text(said: Said | None) -> str | None:
    return said.feedback.text if said else None


def _count(events: list[Said], kind: FeedbackKind) -> int:
    return sum(s.feedback.kind is kind for s in events)


def _users(events: list[Said], kind: FeedbackKind) -> int:
    return len({s.feedback.user_id for s in events if s.feedback.kind is kind})
