"""An output and all that was said of it become one row; a thumb becomes a rating.

The fold is a function of the *set* of events: it orders them by their own time (ties by event id), so whatever
order they arrive in, however often, the row is the same.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from schemas.feedback import THUMBS, Feedback, FeedbackKind
from schemas.outputs import Output
from schemas.preferences import PreferenceSource
from schemas.tables import RatingRow, ResponseRow

RATING_WEIGHT = 1.0
_THUMB_VALUE = {FeedbackKind.THUMBS_UP: 1, FeedbackKind.THUMBS_DOWN: -1}
_REMARKS = THUMBS | {FeedbackKind.COMMENT, FeedbackKind.FLAG}


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was recorded."""

    event_id: str
    time: datetime
    output: Output


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that was said of an answer."""

    event_id: str
    time: datetime
    feedback: Feedback


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the thumbs on one answer come to. `value` is 1, -1, or None where they cancel out or there is none."""

    value: int | None = None
    rater_id: str | None = None
    rated_at: datetime | None = None


def respond(given: Iterable[Given], said: Iterable[Said]) -> ResponseRow | None:
    """The row of one answer, or None while no output is known. Its `revision` is still to be given.

    A response id given twice keeps the earliest output: an answer can't be changed after the fact.
    """
    outputs = sorted(given, key=lambda g: (g.time, g.event_id))
    if not outputs:
        return None
    first, events = outputs[0], in_order(said)
    verdict, correction = thumbs(events), _last(events, {FeedbackKind.CORRECTION})
    return ResponseRow(
        **dict(first.output),
        event_time=first.time,
        revision=1,
        thumb=verdict.value,
        rater_id=verdict.rater_id,
        rated_at=verdict.rated_at,
        comment=_text(_last(events, _REMARKS)),
        correction=_text(correction),
        corrected_by=correction.feedback.user_id if correction else None,
        corrected_at=correction.time if correction else None,
        edited=_text(_last(events, {FeedbackKind.EDIT})),
        flags=_users(events, FeedbackKind.FLAG),
        copies=_count(events, FeedbackKind.COPY),
        regenerations=_count(events, FeedbackKind.REGENERATE),
        feedback_count=len(events),
    )


def in_order(said: Iterable[Said]) -> list[Said]:
    """Each event once, by its own time; ties are broken by the event id, so that the order is total."""
    once = {s.event_id: s for s in sorted(said, key=lambda s: (s.time, s.event_id), reverse=True)}
    return sorted(once.values(), key=lambda s: (s.time, s.event_id))


def thumbs(events: Iterable[Said]) -> Verdict:
    """The majority of the users' current thumbs.

    A user's later thumb replaces the earlier one and a withdrawal takes it back, so one who clicks a thousand
    times counts once. Users who disagree evenly say nothing. Thumbs without a user id count as one user's.
    """
    standing: dict[str | None, Said] = {}
    for said in events:
        if said.feedback.kind in THUMBS:
            standing[said.feedback.user_id] = said
        elif said.feedback.kind is FeedbackKind.WITHDRAWAL:
            standing.pop(said.feedback.user_id, None)
    balance = sum(_THUMB_VALUE[s.feedback.kind] for s in standing.values())
    if balance == 0:
        return Verdict()
    value = 1 if balance > 0 else -1
    agreeing = [s for s in standing.values() if _THUMB_VALUE[s.feedback.kind] == value]
    last = max(agreeing, key=lambda s: (s.time, s.event_id))
    return Verdict(value, last.feedback.user_id, last.time)


def rating(row: ResponseRow) -> RatingRow | None:
    """The unpaired judgement of a response that carries a thumb."""
    if row.thumb is None or row.rated_at is None or row.retracted:
        return None
    return RatingRow(
        rating_id=rating_id(row.response_id),
        revision=1,
        prompt_id=row.prompt_id,
        prompt=row.prompt,
        completion=row.completion,
        label=row.thumb > 0,
        weight=RATING_WEIGHT,
        source=PreferenceSource.THUMB,
        rater_id=row.rater_id,
        judged_at=row.rated_at,
        response_id=row.response_id,
        version=row.version,
    )


def rating_id(response_id: str) -> str:
    """The row id of a response's rating: one for each response, in the same time order."""
    return f"rating-{response_id}"


def _last(events: list[Said], kinds: Collection[FeedbackKind]) -> Said | None:
    """The latest event of these kinds that carries a text."""
    return next((s for s in reversed(events) if s.feedback.kind in kinds and s.feedback.text), None)


def _text(said: Said | None) -> str | None:
    return said.feedback.text if said else None


def _count(events: list[Said], kind: FeedbackKind) -> int:
    return sum(s.feedback.kind is kind for s in events)


def _users(events: list[Said], kind: FeedbackKind) -> int:
    return len({s.feedback.user_id for s in events if s.feedback.kind is kind})
