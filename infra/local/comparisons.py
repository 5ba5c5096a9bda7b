"""Rows of a file of comparisons (prompt, chosen, rejected) as label events. Pure: from bytes to an event.

All ids are hashes of the content, so a file that is fed in twice counts once.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from schemas.envelope import MAX_VALUE_BYTES, Event, new_event
from schemas.ids import content_id, prompt_id
from schemas.labels import Candidate, Label, Verdict
from schemas.messages import ChatMessage, Payload

SOURCE = "infra/replay"
_FLIPPED = {Verdict.LEFT: Verdict.RIGHT, Verdict.RIGHT: Verdict.LEFT}


class BadRow(ValueError):
    """A row that is no comparison; the message says why."""


def label_event(line: bytes, *, labeler: str, time: datetime) -> Event[Label]:
    """The label event of one line of JSON; raises `BadRow`.

    `prompt` is a string (one user's turn) or a list of {role, content}; `chosen` and `rejected` are strings, or
    lists with the one assistant's turn. The row's own `labeler_id`, if there is one, goes before `labeler`.
    """
    row = read_object(line)
    try:
        prompt = read_prompt(row.get("prompt"))
        chosen, rejected = read_text(row, "chosen"), read_text(row, "rejected")
        label = comparison(prompt, chosen, rejected, Verdict.LEFT, labeler=row.get("labeler_id") or labeler)
    except ValidationError as error:
        raise bad_row(error) from error
    return label_cast(label, time=time, source=SOURCE)


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object in one line; raises `BadRow`."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    return row


def read_prompt(value: object) -> tuple[ChatMessage, ...]:
    """A string (one user's turn) or a list of {role, content}; raises `BadRow` or `ValidationError`."""
    if isinstance(value, str):
        if not value.strip():
            raise BadRow("prompt is empty")
        return (ChatMessage(role="user", content=value),)
    if not isinstance(value, list) or not value:
        raise BadRow("prompt is missing: it is a string, or a list of {role, content}")
    return tuple(ChatMessage.model_validate(turn) for turn in value)


def read_text(row: Mapping[str, Any], name: str) -> str:
    """A string, or the content of a list with one turn; raises `BadRow`."""
    value = row.get(name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    if not isinstance(value, str):
        raise BadRow(f"{name} is missing, or no string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{name} holds half a character (a lone surrogate), which is no UTF-8") from error
    return value


def comparison(
    prompt: tuple[ChatMessage, ...], left: str, right: str, verdict: Verdict, *, labeler: str, seconds: float = 0.0
) -> Label:
    """A verdict on two texts. `verdict` is about `left` and `right` as they are given here; in the label the sides lie
    by a hash of the texts, whoever judges them and whenever. Raises `BadRow` or `ValidationError`.
    """
    if left == right:
        raise BadRow("chosen and rejected are the same text")
    about = prompt_id(prompt)
    first, second = sorted((left, right))
    task = content_id("task", about, first, second)
    # The side must say nothing of the verdict, and be the same in every replay: by a bit of the task's hash.
    if int(task[-1], 16) % 2:
        first, second = second, first
    return Label(
        task_id=task,
        labeler_id=labeler,
        verdict=verdict if first == left else _FLIPPED.get(verdict, verdict),
        prompt_id=about,
        prompt=prompt,
        left=Candidate(completion=first),
        right=Candidate(completion=second),
        seconds_taken=seconds,
        origin="imported",
    )


def label_cast(label: Label, *, time: datetime, source: str) -> Event[Label]:
    """The event of an imported label; raises `BadRow` where it is too long. The same verdict has the same id."""
    check_size(label)
    event_id = content_id("replay", label.task_id, label.labeler_id, label.verdict)
    return new_event(label, source=source, id=event_id, time=time)


def check_size(payload: Payload) -> None:
    """Raises `BadRow` for a payload that no event can hold."""
    size = len(payload.model_dump_json(exclude_none=True).encode())
    if size > MAX_VALUE_BYTES:
        raise BadRow(f"the texts are longer than the {MAX_VALUE_BYTES:,} bytes that an event may have")


def bad_row(error: ValidationError) -> BadRow:
    """The first thing that a model found wrong, as a row's reason."""
    first = error.errors(include_url=False, include_input=False)[0]
    return BadRow(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
