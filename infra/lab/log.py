"""The log of one seed as the trainer sees it: a file of this folder in the broker's place."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from schemas.cycles import Cycle
from schemas.envelope import Event, type_name
from schemas.messages import Payload
from schemas.versions import Board, ModelVersion
from trainer.adapters.events import OpenAlert

Heard = Callable[[Cycle], None]
_PAYLOADS = {type_name(payload): payload for payload in (Cycle, ModelVersion)}


class RecordedEvents:
    """`trainer.adapters.events.Events` on a file of JSON lines: acknowledged is what is on the disk.

    Progress (what may be lost) is not written; `heard` is told of it. A last line that was cut off is dropped.
    """

    def __init__(self, file: Path, *, heard: Heard = lambda _: None) -> None:
        self._file, self._heard = file, heard
        file.parent.mkdir(parents=True, exist_ok=True)
        self._events = [_event(line) for line in whole_lines(file)]
        self._ids = {event.id for event in self._events}

    def publish(self, event: Event[Payload]) -> None:
        if event.id not in self._ids:
            append_line(self._file, _line(event))
            self._events.append(event)
            self._ids.add(event.id)

    def offer(self, event: Event[Payload]) -> None:
        if isinstance(event.data, Cycle):
            self._heard(event.data)

    def board(self) -> Board:
        return Board().fold((e.data, e.time) for e in self._events if isinstance(e.data, ModelVersion))

    def open_alerts(self) -> tuple[OpenAlert, ...]:
        return ()

    def published(self) -> tuple[Event[Payload], ...]:
        """Every event that was acknowledged, in order."""
        return tuple(self._events)

    def close(self) -> None:
        return


def whole_lines(file: Path) -> list[str]:
    """The lines of a file that only grows; what a killed process left of a last one is cut away."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return whole.decode().splitlines()


def append_line(file: Path, line: str) -> None:
    """Add a line; it is on the disk when this returns."""
    with file.open("a", encoding="utf-8") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())


def _line(event: Event[Payload]) -> str:
    return json.dumps(
        {
            "type": type_name(type(event.data)),
            "id": event.id,
            "source": event.source,
            "time": event.time.isoformat(),
            "data": event.data.model_dump(mode="json"),
        }
    )


def _event(line: str) -> Event[Payload]:
    row = json.loads(line)
    data = _PAYLOADS[row["type"]].model_validate(row["data"])
    return Event(row["id"], row["source"], datetime.fromisoformat(row["time"]), data)
