"""Drafts as ordinary events, with ids made of the content: the same row twice is the same event. Pure.

A comparison is a label event. A rated answer is an output and the feedback on it; a prompt alone is an output with
an empty answer, from which trainers take the prompt. What the log does not say of an answer (tokens, sampling,
latency) is zero, and its version is `imported/<model>`, so that it counts for no version of ours.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from infra.lake.drafts import Compared, Draft, Rated
from infra.local.comparisons import bad_row, check_size, comparison, label_cast
from schemas import topics
from schemas.consent import Purposes
from schemas.envelope import Event, new_event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import RESPONSE_ID_PATTERN, content_id, prompt_id
from schemas.messages import Payload
from schemas.outputs import Output
from schemas.topics import Topic

SEGMENT = "imported"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an import comes from. `now` is the time of what names none; `purposes` is what people agreed to."""

    name: str
    now: datetime
    purposes: Purposes | None = None

    @property
    def source(self) -> str:
        """The CloudEvents source."""
        return f"infra/import/{self.name}"


def events(draft: Draft, origin: Origin) -> list[tuple[Topic, Event[Payload]]]:
    """The events of one draft; raises `BadRow` where the contracts refuse it."""
    try:
        return list(_compared(draft, origin) if isinstance(draft, Compared) else _rated(draft, origin))
    except ValidationError as error:
        raise bad_row(error) from error


def response_id(draft: Rated) -> str:
    """An answer's id by its content: time-ordered where the row has a time, like those of the gateway.

    An id of ours stays. Another's own id tells answers with the same texts apart, and makes one of two ratings of the
    same answer; without one, an answer is one row's.
    """
    if draft.id is not None and re.match(RESPONSE_ID_PATTERN, draft.id):
        return draft.id
    parts = [prompt_id(draft.prompt), draft.completion or "", draft.model or ""]
    millis = 0
    if draft.id is not None:
        parts += ["id", draft.id]
    else:
        parts += ["row", draft.user or "", draft.time.isoformat() if draft.time else ""]
        millis = int(draft.time.timestamp() * 1000) if draft.time else 0
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(digest[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # the version and the variant of a UUIDv7, see schemas.ids
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"chatcmpl-{value:032x}"


def _compared(draft: Compared, origin: Origin) -> Iterator[tuple[Topic, Event[Payload]]]:
    label = comparison(
        draft.prompt,
        draft.left,
        draft.right,
        draft.verdict,
        labeler=draft.rater or f"import:{origin.name}"[:200],
        seconds=draft.seconds,
    )
    label = label.model_copy(update={"purposes": origin.purposes})
    yield topics.LABELS, label_cast(label, time=draft.time or origin.now, source=origin.source)


def _rated(draft: Rated, origin: Origin) -> Iterator[tuple[Topic, Event[Payload]]]:
    answer = response_id(draft)
    model = (draft.model or origin.name).removeprefix("imported/")
    output = Output(
        response_id=answer,
        prompt_id=prompt_id(draft.prompt),
        prompt=draft.prompt,
        completion=draft.completion or "",
        version=f"imported/{model}"[:200],
        base_model=model[:200],
        temperature=0.0,
        max_completion_tokens=1,
        finish_reason="stop",
        input_tokens=0,
        output_tokens=0,
        latency_seconds=0.0,
        segment=SEGMENT,
        user_id=draft.user,
        purposes=origin.purposes,
    )
    check_size(output)
    time = draft.time or origin.now
    yield topics.OUTPUTS, new_event(output, source=origin.source, id=content_id("import", answer), time=time)
    for kind, text in _said(draft):
        feedback = Feedback(response_id=answer, kind=kind, text=text, user_id=draft.user, purposes=origin.purposes)
        check_size(feedback)
        when = draft.time.astimezone(UTC).isoformat() if draft.time else ""
        event_id = content_id("import", answer, kind, draft.user or "", text or "", when)
        yield topics.FEEDBACK, new_event(feedback, source=origin.source, id=event_id, time=time)


def _said(draft: Rated) -> Iterator[tuple[FeedbackKind, str | None]]:
    if draft.thumb is not None:
        yield (FeedbackKind.THUMBS_UP if draft.thumb else FeedbackKind.THUMBS_DOWN), draft.comment
    elif draft.comment is not None:
        yield FeedbackKind.COMMENT, draft.comment
    if draft.correction is not None:
        yield FeedbackKind.CORRECTION, draft.correction
