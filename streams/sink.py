"""One topic on its way into its table: what was taken, how far the table is, and which events it knows.

Messages are worked up as they come, some hundreds at a time: decoded, told from repeats, made columns, and let go. So
what waits for a flush is compact, and the flush only puts columns together. Nothing here touches the log or writes a
table; `Ingest` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from operator import methodcaller
from typing import Any

import pyarrow as pa
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE
from confluent_kafka import Message as KafkaMessage

from schemas.errors import InvalidEvent
from schemas.topics import Topic
from streams.adapters.batches import BatchDecoder
from streams.adapters.columns import UNSTORABLE, event_table
from streams.adapters.dead_letters import Letter, source
from streams.adapters.decoders import Decoder, Headers, Record, headers_of
from streams.adapters.lake import LakeTable, Move

_HEADERS = methodcaller("headers")


@dataclass
class Part:
    """One partition: the table's position in it (None: nothing yet) and the ids of the events that came last, stored or
    waiting; then what waits for the table: columns, dead letters, how often one came again, and where the next message
    lies."""

    position: int | None
    seen: dict[str, None]
    columns: list[pa.Table] = field(default_factory=list[pa.Table])
    letters: list[Letter] = field(default_factory=list[Letter])
    duplicates: int = 0
    messages: int = 0
    bytes: int = 0
    next: int = 0

    def take_in(self, ids: Sequence[str]) -> bool:
        """Note these events as new, where all of them are; whether they are."""
        fresh = dict.fromkeys(ids)
        # Of two views the smaller one is gone through.
        new = len(fresh) == len(ids) and fresh.keys().isdisjoint(self.seen.keys())
        if new:
            self.seen.update(fresh)
        return new

    def after(self, *, window: int) -> "Part":
        """The part as it is when what waited is stored."""
        for old in list(islice(self.seen, max(0, len(self.seen) - window))):
            del self.seen[old]
        return Part(self.next, self.seen)


@dataclass(frozen=True)
class Batch:
    """What a flush has to store. `moves` are by application id, and `nexts` the same by partition."""

    rows: pa.Table
    letters: Sequence[Letter]
    duplicates: int
    moves: Mapping[str, Move]
    nexts: Mapping[int, int]


class Sink:
    """The buffers of one topic.

    `retry_at` is when what failed is tried again (None: nothing failed): a flush, or reading from the table where the
    partitions in `unbegun` go on; until then their messages are passed over, and come again.
    """

    def __init__(self, topic: Topic, table: LakeTable, *, window: int) -> None:
        self.topic, self.table = topic, table
        self.parts: dict[int, Part] = {}
        self.unbegun: set[int] = set()
        self.retry_at: float | None = None
        self.commit_seconds = 0.0
        self._decoder = Decoder(topic.payload)
        self._batches = BatchDecoder(topic.payload, table.schema)
        self._window = window
        self._oldest: float | None = None

    @property
    def waiting(self) -> int:
        """Messages that are not stored yet."""
        return sum(part.messages for part in self.parts.values())

    def begin(self, partition: int) -> int | None:
        """Read from the table where a partition goes on, and the ids of the events that came last."""
        self.drop(partition)
        self.unbegun.add(partition)
        self.table.refresh()
        position = self.table.position(source(self.topic.name, partition))
        ids = self.table.newest_event_ids(partition, limit=self._window)
        self.parts[partition] = Part(position, dict.fromkeys(ids))
        self.unbegun.discard(partition)
        return position

    def drop(self, partition: int) -> None:
        """Forget a partition that is no longer ours, and what waits for it."""
        self.parts.pop(partition, None)
        self.unbegun.discard(partition)
        self._note_empty()

    def put(self, partition: int, messages: Sequence[KafkaMessage], now: float) -> None:
        """Work up messages of one partition, in order of offset; those that the table has are left out."""
        part = self.parts.get(partition)
        if part is None:
            return
        if (messages[0].offset() or 0) < (part.position or 0):
            messages = [m for m in messages if (m.offset() or 0) >= (part.position or 0)]
        if not messages:
            return
        headers = [_headers(m) for m in messages]
        rows = self._at_once(part, partition, messages, headers)
        if rows is None:
            records = self._new(part, self._decode(part, messages, headers))
            rows = self._columns(part, partition, records, messages)
        part.columns.append(rows)
        part.messages += len(messages)
        part.bytes += sum(map(len, messages))
        part.next = (messages[-1].offset() or 0) + 1
        self._oldest = now if self._oldest is None else self._oldest

    def due(self, now: float, *, rows: int, size: int, seconds: float, idle: bool = False) -> bool:
        """Whether to flush: enough rows or bytes, or old enough, or a failed one may be tried again.

        The age grows with the time that a commit takes, so that a slow storage gets fewer and larger files. When there
        is nothing else to do (`idle`), a tenth of the rows is enough.
        """
        if self._oldest is None:
            return False
        if self.retry_at is not None:
            return now >= self.retry_at and not self.unbegun
        old = now - self._oldest >= max(seconds, 4 * self.commit_seconds)
        return (
            old
            or self.waiting >= (rows / 10 if idle else rows)
            or sum(part.bytes for part in self.parts.values()) >= size
        )

    def batch(self) -> Batch:
        """All that waits; nothing of the sink is changed."""
        parts = {number: part for number, part in self.parts.items() if part.messages}
        columns = [table for part in parts.values() for table in part.columns]
        return Batch(
            rows=pa.concat_tables(columns) if columns else self.table.schema.empty_table(),
            letters=[one for part in parts.values() for one in part.letters],
            duplicates=sum(part.duplicates for part in parts.values()),
            moves={source(self.topic.name, n): Move(part.position, part.next) for n, part in parts.items()},
            nexts={number: part.next for number, part in parts.items()},
        )

    def done(self, batch: Batch) -> None:
        """The batch is stored: move on, and remember its events."""
        for number in batch.nexts:
            self.parts[number] = self.parts[number].after(window=self._window)
        self.retry_at = None
        self._note_empty()

    def _note_empty(self) -> None:
        if not self.waiting:
            self._oldest = None
            self.retry_at = self.retry_at if self.unbegun else None

    def _at_once(
        self, part: Part, number: int, messages: Sequence[KafkaMessage], headers: Sequence[Headers | None]
    ) -> pa.Table | None:
        """Their rows, where all of them are plainly good and new."""
        values, offsets = [m.value() for m in messages], [m.offset() or 0 for m in messages]
        found = self._batches.decode(values, headers, offsets, partition=number, ingested_at=datetime.now(UTC))
        if found is None:
            return None
        ids, rows = found
        return rows if part.take_in(ids) else None

    def _decode(self, part: Part, messages: Sequence[KafkaMessage], headers: Sequence[Headers | None]) -> list[Record]:
        found: list[Record] = []
        for message, pairs in zip(messages, headers, strict=True):
            try:
                if pairs is None:
                    raise InvalidEvent("header_name", "a header's name is not UTF-8")
                found.append(self._decoder.decode(message.value(), pairs, message.offset() or 0))
            except InvalidEvent as error:
                part.letters.append(letter(message, pairs, error.reason, error.detail))
        return found

    def _new(self, part: Part, records: list[Record]) -> list[Record]:
        """Those that are neither in the table, as far as it is remembered, nor came before."""
        if part.take_in([record.id for record in records]):
            return records
        once: list[Record] = []
        for record in records:
            if record.id in part.seen:
                part.duplicates += 1
            else:
                part.seen[record.id] = None
                once.append(record)
        return once

    def _columns(
        self, part: Part, number: int, records: Sequence[Record], messages: Sequence[KafkaMessage]
    ) -> pa.Table:
        """The records as columns; one with a value that fits none, found by halving, becomes a dead letter."""
        try:
            return event_table(self.table.schema, records, partition=number, ingested_at=datetime.now(UTC))
        except UNSTORABLE as error:
            if len(records) > 1:
                half = len(records) // 2
                halves = (records[:half], records[half:])
                return pa.concat_tables([self._columns(part, number, some, messages) for some in halves])
            message = next(m for m in messages if m.offset() == records[0].offset)
            part.letters.append(letter(message, _headers(message), "unstorable", f"a value fits no column: {error}"))
            del part.seen[records[0].id]
            return self.table.schema.empty_table()


def by_place(messages: Iterable[KafkaMessage]) -> dict[tuple[str, int], list[KafkaMessage]]:
    """Messages by topic and partition, in the order in which they came."""
    found: dict[tuple[str, int], list[KafkaMessage]] = {}
    for message in messages:
        place = (message.topic(), message.partition())
        try:
            found[place].append(message)  # type: ignore[index]
        except KeyError:
            found[place] = [message]  # type: ignore[index]
    return found


def letter(message: KafkaMessage, headers: Headers | None, reason: str, detail: str) -> Letter:
    """The dead letter of a message; without headers where the client can't hand them over (None)."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    kind, milliseconds = message.timestamp()
    return Letter(
        topic=topic,
        partition=partition,
        offset=offset,
        reason=reason,
        detail=detail,
        key=message.key(),
        value=message.value(),
        headers=tuple(headers_of(headers)),
        timestamp_ms=None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds,
    )


def _headers(message: KafkaMessage) -> Any:
    """A message's headers; None where the client can't turn their names into text.

    The client then returns half a list with an error pending. A plain `message.headers()` in a place that runs often is
    specialised by the interpreter, which leaves out the check for that: the process dies. Called by `methodcaller` the
    check is always made. Such a message must not be asked twice.
    """
    try:
        return _HEADERS(message) or ()
    except SystemError:
        return None
