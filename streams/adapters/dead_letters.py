"""Where what is no event goes: the bytes as they came to `<topic>.dlq`, and a row to bronze/dead_letters.

The row's id is made of topic, partition and offset, and the rows carry positions of their own, so a replay after a
crash writes no row twice. The topic is at least once: a repeat carries the same `thumbwheel_dead_letter_id`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.ids import content_id
from schemas.tables import DeadLetterRow
from schemas.topics import DLQ_SUFFIX
from streams.adapters.lake import LakeTable, Move
from streams.adapters.log import Producer

logger = logging.getLogger(__name__)
PREFIX = "thumbwheel_error_"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was no event of its topic, with the reason in one countable word and the detail in a sentence."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

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
        return self.key, self.value, [*self.headers, *((name, _utf8(text)) for name, text in told.items())]

    def row(self, moment: datetime) -> dict[str, Any]:
        headers = [[name, None if raw is None else raw.decode(errors="backslashreplace")] for name, raw in self.headers]
        return DeadLetterRow(
            dead_letter_id=self.id,
            topic=self.topic,
            kafka_partition=self.partition,
            kafka_offset=self.offset,
            reason=self.reason,
            detail=_utf8(self.detail).decode(),
            key=self.key,
            value=self.value,
            headers=json.dumps(headers, ensure_ascii=True),
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


def _kind(reason: str) -> tuple[str, ...]:
    """An event can be a letter for what it is, and again for what it says (feedback on an unknown response)."""
    return (reason,) if reason == "unknown_response" else ()


def _utf8(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
