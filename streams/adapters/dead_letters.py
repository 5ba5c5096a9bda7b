"""Where what is no event goes: the bytes as they came to `<topic>.dlq`, and a row to bronze/dead_letters.

The row's id is made of topic, partition and offset, and the rows carry positions of their own, so a replay after a
crash writes no row twice. The topic is at least once: a repeat carries the same `thumbwheel_dead_letter_id`.

Key, value and headers can be had back exactly as they came. What could not be read could not be redacted either: a
dead letter may hold personal data.
"""

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from schemas.ids import content_id
from schemas.tables import DeadLetterRow
from schemas.topics import DLQ_SUFFIX
from streams.adapters.lake import LakeTable, Move
from streams.adapters.log import Producer

logger = logging.getLogger(__name__)
PREFIX = "thumbwheel_error_"

FOUND_LATER = frozenset({"unknown_response", "wrong_tenant"})
"""Reasons that are found after the decode: the event is in its bronze table, and is reported beside it."""

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was no event of its topic, with the reason in one countable word and the detail in a sentence.

    `timestamp_ms` is the message's own time in the log (Unix milliseconds), None where it is not known.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None = None

    @classmethod
    def of(cls, row: DeadLetterRow) -> Self:
        """The letter that a row holds."""
        headers, timestamp_ms = unpack_headers(row.headers)
        return cls(
            topic=row.topic,
            partition=row.kafka_partition,
            offset=row.kafka_offset,
            reason=row.reason,
            detail=row.detail,
            key=row.key,
            value=row.value,
            headers=headers,
            timestamp_ms=timestamp_ms,
        )

    @property
    def id(self) -> str:
        return content_id("dead", self.topic, str(self.partition), str(self.offset), *_kind(self.reason))

    def message(self, moment: datetime) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
        """Key, value and headers as they came, with the reason in headers of our own behind them."""
        told = {
            f"{PREFIX}reason": self.reason,
            f"{PREFIX}detail": self.detail,
            f"{PREFIX}topic": self.topic,
            f"{PREFIX}partition": str(self.partition),
            f"{PREFIX}offset": str(self.offset),
            f"{PREFIX}time": moment.astimezone(UTC).isoformat(),
            "thumbwheel_dead_letter_id": self.id,
        }
        if self.timestamp_ms is not None:
            told[f"{PREFIX}timestamp_ms"] = str(self.timestamp_ms)
        return self.key, self.value, [*self.headers, *((name, _utf8(text)) for name, text in told.items())]

    def row(self, moment: datetime) -> dict[str, Any]:
        return DeadLetterRow(
            dead_letter_id=self.id,
            topic=self.topic,
            kafka_partition=self.partition,
            kafka_offset=self.offset,
            reason=self.reason,
            detail=_utf8(self.detail).decode(),
            key=self.key,
            value=self.value,
            headers=pack_headers(self.headers, self.timestamp_ms),
            failed_at=moment,
        ).model_dump()


class DeadLetters:
    """Puts dead letters away before the good rows beside them are committed."""

    def __init__(self, producer: Producer, table: LakeTable) -> None:
        self._producer = producer
        self.table = table

    def store(self, letters: Sequence[Letter], moves: Mapping[str, int]) -> list[Letter]:
        """Send and write the letters that are not safe yet, and return these.

        `moves` are the next positions by application id (one for each topic-partition). Raises `BrokerUnavailable`,
        `TableConflict`, `DeltaError` or `OSError`; nothing is lost then, and the same call can be made again.
        """
        if not letters:
            return []
        self.table.refresh()
        held = {app: self.table.position(app) for app in moves}
        fresh = [x for x in letters if x.offset >= (held.get(source(x.topic, x.partition)) or 0)]
        if not fresh:
            return []
        self._write(fresh, {app: Move(held[app], to) for app, to in moves.items() if to > (held[app] or 0)})
        return fresh

    def store_found(self, letters: Sequence[Letter], app: str) -> None:
        """Send and write letters that were found otherwise than in order of offset; `app` counts such commits."""
        self.table.refresh()
        held = self.table.position(app)
        self._write(letters, {app: Move(held, (held or 0) + 1)})

    def _write(self, letters: Sequence[Letter], moves: Mapping[str, Move]) -> None:
        now = datetime.now(UTC)
        for letter in letters:
            key, value, headers = letter.message(now)
            self._producer.send(letter.topic + DLQ_SUFFIX, key, value, headers=headers)
        self._producer.flush()
        self.table.append(self.table.arrow([letter.row(now) for letter in letters]), moves)


def source(topic: str, partition: int) -> str:
    """The application id under which a table keeps its position in a topic's partition."""
    return f"ingest/{topic}/{partition}"


def pack_headers(headers: Headers, timestamp_ms: int | None = None) -> str:
    """Headers, in their order and with repeats, and the message's time as one JSON text that loses no byte.

    `{"timestamp_ms": 1764000000000, "headers": [["a", {"utf8": "text"}], ["b", {"base64": "/w=="}], ["c", null]]}`
    """
    return json.dumps({"timestamp_ms": timestamp_ms, "headers": [[name, _packed(raw)] for name, raw in headers]})


def unpack_headers(text: str) -> tuple[Headers, int | None]:
    """What `pack_headers` was given. Reads the form of release 0.1 as well: `[["a", "text"], ["c", null]]`.

    That form wrote bytes that are no UTF-8 as `\\xff`; there they stay as they were written.
    """
    held = json.loads(text)
    if isinstance(held, list):
        return tuple((name, None if value is None else value.encode()) for name, value in held), None
    return tuple((name, _unpacked(value)) for name, value in held["headers"]), held["timestamp_ms"]


def _packed(raw: bytes | None) -> dict[str, str] | None:
    if raw is None:
        return None
    try:
        return {"utf8": raw.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _unpacked(value: Mapping[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value["utf8"].encode() if "utf8" in value else base64.b64decode(value["base64"])


def _kind(reason: str) -> tuple[str, ...]:
    """An event can be a letter for what it is, and again for what it says (feedback on an unknown response)."""
    return (reason,) if reason in FOUND_LATER else ()


def _utf8(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
