"""Rows of a file of comparisons (prompt, chosen, rejected) as label events. Pure: from bytes to an event.

All ids are hashes of the content, so a file that is fed in twice counts once.
"""

import json
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from schemas.envelope import MAX_VALUE_BYTES, Event, new_event
from schemas.ids import content_id, prompt_id
from schemas.labels import Candidate, Label, Verdict
from schemas.messages import ChatMessage

SOURCE = "infra/replay"


class BadRow(ValueError):
    """A row that is no comparison; the message says why."""


def label_event(line: bytes, *, labeler: str, time: datetime) -> Event[Label]:
    """The label event of one line of JSON; raises `BadRow`.

    `prompt` is a string (one user's turn) or a list of {role, content}; `chosen` and `rejected` are strings, or
    lists with the one assistant's turn. The row's own `labeler_id`, if there is one, goes before `labeler`.
    """
    row = _object(line)
    try:
        prompt = _prompt(row.get("prompt"))
        label = _label(row, prompt, chosen=_text(row, "chosen"), rejected=_text(row, "rejected"), labeler=labeler)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadRow(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    if len(label.model_dump_json(exclude_none=True).encode()) > MAX_VALUE_BYTES:
        raise BadRow(f"the texts are longer than the {MAX_VALUE_BYTES:,} bytes that an event may have")
    event_id = content_id("replay", label.task_id, label.labeler_id, label.verdict)
    return new_event(label, source=SOURCE, id=event_id, time=time)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    return row


def _prompt(value: object) -> tuple[ChatMessage, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise BadRow("prompt is empty")
        return (ChatMessage(role="user", content=value),)
    if not isinstance(value, list) or not value:
        raise BadRow("prompt is missing: it is a string, or a list of {role, content}")
    return tuple(ChatMessage.model_validate(turn) for turn in value)


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    if not isinstance(value, str):
        raise BadRow(f"{name} is missing, or no string")
    return value


def _label(row: dict[str, Any], prompt: tuple[ChatMessage, ...], *, chosen: str, rejected: str, labeler: str) -> Label:
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same text")
    about = prompt_id(prompt)
    left, right = sorted((chosen, rejected))
    task = content_id("task", about, left, right)
    # The side must say nothing of the verdict, and be the same in every replay: by a bit of the task's hash.
    if int(task[-1], 16) % 2:
        left, right = right, left
    return Label(
        task_id=task,
        labeler_id=row.get("labeler_id") or labeler,
        verdict=Verdict.LEFT if left == chosen else Verdict.RIGHT,
        prompt_id=about,
        prompt=prompt,
        left=Candidate(completion=left),
        right=Candidate(completion=right),
        seconds_taken=0.0,
        origin="imported",
    )
