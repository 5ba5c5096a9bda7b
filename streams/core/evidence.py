"""Which events count: each once, when it happened, from the right tenant, and only for what was agreed to.

Rules, each a function of the *set* of events, so that order of arrival, repeats and restarts change nothing:

- An event's time is what it says, but never later than ingest took it in (`clocks.happened_at`).
- One event id is one event. Where two contents share an id, the earliest counts (ties: by content).
- The same thing said again by the same user within seconds, under another id, is a client's double click or its
  retry, and counts once (`without_copies`).
- What a caller of another tenant says of an answer is not about that answer (`belongs`).
- A thumb, a comment or a correction given without consent to training is stored and counted, but nothing learns from
  it (`learnable`). Consent travels with each event and is not retroactive: a later event without it changes nothing
  about what was agreed before. Only a withdrawal (always heard, whatever it consents to) and an erasure reach back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.consent import Purpose, permits
from schemas.feedback import THUMBS, Feedback, FeedbackKind
from schemas.outputs import Output

COPY_SECONDS = 5.0
"""Within so many seconds the same again is the same: longer than a double click or a client's first retry, and shorter
than a user needs to think again. (Retries by our own SDKs carry the same event id, whenever they come.)"""

_STANDS = THUMBS | {FeedbackKind.WITHDRAWAL}


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was recorded."""

    event_id: str
    time: datetime
    output: Output


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that was said of an answer. `stated` is what the event itself says of its time, if that differs."""

    event_id: str
    time: datetime
    feedback: Feedback
    stated: datetime | None = None


def first_given(given: Iterable[Given]) -> Given | None:
    """The earliest output under a response id: an answer can't be changed after the fact."""
    return min(given, key=lambda g: (g.time, g.event_id, g.output.model_dump_json()), default=None)


def in_order(said: Iterable[Said]) -> list[Said]:
    """Each event once, in order of time; what a wrong clock puts at one time by what it says itself, and other ties by
    the event id, so that the order is total."""
    once: dict[str, Said] = {}
    for event in said:
        known = once.setdefault(event.event_id, event)
        if known is not event and (event.time, _content(event)) < (known.time, _content(known)):
            once[event.event_id] = event
    return sorted(once.values(), key=lambda s: (s.time, s.stated or s.time, s.event_id))


def without_copies(events: Iterable[Said]) -> list[Said]:
    """Events in order, without those that only repeat what the same user said last, within `COPY_SECONDS` of it.

    A thumb or a withdrawal repeats only the last of these: up, down, up is three changes of mind, however quick.
    """
    last: dict[tuple[str | None, str], Said] = {}
    kept: list[Said] = []
    for event in events:
        slot = (event.feedback.user_id, "thumb" if event.feedback.kind in _STANDS else event.feedback.kind.value)
        if not _copies(event, last.get(slot)):
            kept.append(event)
        last[slot] = event
    return kept


def belongs(caller: str | None, owner: str | None) -> bool:
    """Whether what a caller of one tenant says of an answer of another counts: only where the two are the same.

    No tenant is a tenant of its own; a caller without one says nothing about the answers of those that have one.
    """
    return caller == owner


def learnable(said: Said) -> bool:
    """Whether something may learn from it. A withdrawal teaches nothing and is always heard."""
    return said.feedback.kind is FeedbackKind.WITHDRAWAL or permits(said.feedback.purposes, Purpose.TRAINING)


def _copies(event: Said, last: Said | None) -> bool:
    return (
        last is not None
        and (event.feedback.kind, event.feedback.text) == (last.feedback.kind, last.feedback.text)
        and event.feedback.purposes == last.feedback.purposes
        and event.time - last.time <= timedelta(seconds=COPY_SECONDS)
    )


def _content(said: Said) -> str:
    return said.feedback.model_dump_json()
