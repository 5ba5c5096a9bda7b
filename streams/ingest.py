"""Bronze: every topic that has a table, into that table, exactly once.

    log ──take──► buffers by topic ──full or old──► decode each ──► dead letters (safe first)
     ▲                                                   └───────► append rows + next offsets, one commit
     └──────── seek to the table's offsets: on assignment, and after a conflict ◄──────┘

One thread. Back-pressure: while a flush can't be done (log or storage down) nothing is taken, and the same flush is
tried again; what is in the buffers is in the log too, so a crash loses nothing. A partition that is lost takes its
buffer with it. Kafka's own committed offsets follow as a hint for lag tools.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from confluent_kafka import Message as KafkaMessage
from deltalake.exceptions import DeltaError

from schemas import tables
from schemas.envelope import decode
from schemas.errors import BrokerUnavailable, InvalidEvent, TableConflict
from schemas.topics import Topic
from streams.adapters.dead_letters import DeadLetters, Letter, source
from streams.adapters.lake import LakeTable, Move, open_table
from streams.adapters.log import Consumer, Place, Producer
from streams.metrics import Metrics
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)


LAG_SECONDS = 1.0


@dataclass
class Sink:
    """One topic on its way into its table: what was taken, how far the table is, and which events it knows."""

    topic: Topic
    table: LakeTable
    buffers: dict[Place, list[KafkaMessage]] = field(default_factory=dict[Place, list[KafkaMessage]])
    positions: dict[Place, int | None] = field(default_factory=dict[Place, int | None])
    seen: dict[Place, "OrderedDict[str, None]"] = field(default_factory=dict[Place, "OrderedDict[str, None]"])

    def drop(self, place: Place) -> None:
        """Forget a partition that is no longer ours."""
        for known in (self.buffers, self.positions, self.seen):
            known.pop(place, None)

    @property
    def waiting(self) -> int:
        return sum(len(messages) for messages in self.buffers.values())


@dataclass
class Batch:
    """What a flush found in its buffers."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    letters: list[Letter] = field(default_factory=list[Letter])
    duplicates: int = 0
    moves: dict[str, Move] = field(default_factory=dict[str, Move])


class Ingest:
    """The program. `run` returns when `stop` is set; what was not flushed comes again from the log."""

    def __init__(self, settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
        self._settings, self._metrics, self._stop = settings, metrics, stop
        opened = {t.name: self._open(t) for t in (*tables.BY_TOPIC.values(), tables.DEAD_LETTERS)}
        self._sinks = {
            name: Sink(table.topic, opened[table.name]) for name, table in tables.BY_TOPIC.items() if table.topic
        }
        producer = Producer(settings.kafka, client_id=f"{settings.instance_id or settings.group}-dlq")
        self._dead = DeadLetters(producer, opened[tables.DEAD_LETTERS.name])
        self._oldest: float | None = None
        self._lag_noted = float("-inf")
        self._consumer = Consumer(
            settings.kafka,
            list(self._sinks),
            group=settings.group,
            instance_id=settings.instance_id,
            where=self._where,
            gone=self._gone,
        )

    def _open(self, table: tables.Table) -> LakeTable:
        every = self._settings.compact_every_commits
        return open_table(self._settings.lake, table, compact_every_commits=every)

    def run(self) -> None:
        """Until told to stop."""
        try:
            while not self._stop.is_set():
                self.step()
        finally:
            self._consumer.close()

    def step(self) -> None:
        """Take once, and flush what is due."""
        settings = self._settings
        messages = self._consumer.take(settings.batch_rows)
        for message in messages:
            self._buffer(message)
        if self._due():
            self._flush_all()
        elif not messages:
            self._note_lag()

    def _buffer(self, message: KafkaMessage) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        sink, place = self._sinks[topic], (topic, partition)
        if place in sink.positions and offset >= (sink.positions[place] or 0):
            sink.buffers.setdefault(place, []).append(message)
            self._oldest = self._oldest or time.monotonic()

    def _note_lag(self) -> None:
        """Once a second while nothing comes: asking costs the client more than an empty poll."""
        if time.monotonic() - self._lag_noted >= LAG_SECONDS:
            self._lag_noted = time.monotonic()
            self._metrics.lag.set(self._consumer.lag())

    def _due(self) -> bool:
        if self._oldest is None:
            return False
        old = time.monotonic() - self._oldest >= self._settings.batch_seconds
        return old or sum(s.waiting for s in self._sinks.values()) >= self._settings.batch_rows

    def _flush_all(self) -> None:
        """Each topic by itself: a conflict or a failure of one table holds up no other."""
        failed = [sink for sink in self._sinks.values() if sink.waiting and not self._try_flush(sink)]
        self._oldest = time.monotonic() if failed else None
        if failed:
            self._stop.wait(self._settings.retry_seconds)

    def _try_flush(self, sink: Sink) -> bool:
        try:
            self._flush(sink)
        except TableConflict as error:
            self._metrics.conflicts.inc()
            logger.warning("another writer came first; going back to the table", extra={"error": str(error)})
            self._go_back(sink)
        except (BrokerUnavailable, DeltaError, OSError) as error:
            logger.error("can't store now, trying again", extra={"topic": sink.topic.name, "error": str(error)})
            return False
        return True

    def _flush(self, sink: Sink) -> None:
        batch = self._sort(sink)
        rows = self._arrow(sink, batch)
        nexts = {app: move.next for app, move in batch.moves.items()}
        stored = self._dead.store(batch.letters, nexts)
        began = time.perf_counter()
        sink.table.append(rows, batch.moves)
        self._metrics.commit_seconds.labels(sink.table.table.name).observe(time.perf_counter() - began)
        self._done(sink, batch, stored)

    def _sort(self, sink: Sink) -> Batch:
        """Events, dead letters and repeats; nothing of the sink is changed."""
        batch, now = Batch(), datetime.now(UTC)
        for place, messages in sink.buffers.items():
            fresh: set[str] = set()
            for message in messages:
                row = _row(sink.topic, message, now)
                if isinstance(row, Letter):
                    batch.letters.append(row)
                elif row["event_id"] in fresh or row["event_id"] in sink.seen[place]:
                    batch.duplicates += 1
                else:
                    fresh.add(row["event_id"])
                    batch.rows.append(row)
            last = messages[-1].offset()
            assert last is not None
            batch.moves[source(*place)] = Move(sink.positions[place], last + 1)
        return batch

    def _arrow(self, sink: Sink, batch: Batch) -> pa.Table:
        """The rows as Arrow. A value that no column can hold makes a dead letter of its event alone."""
        try:
            return sink.table.arrow(batch.rows)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            good = [row for row in batch.rows if not self._unstorable(sink, batch, row)]
        batch.rows = good
        return sink.table.arrow(good)

    def _unstorable(self, sink: Sink, batch: Batch, row: dict[str, Any]) -> bool:
        try:
            sink.table.arrow([row])
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            messages = sink.buffers[(sink.topic.name, row["kafka_partition"])]
            message = next(m for m in messages if m.offset() == row["kafka_offset"])
            batch.letters.append(_letter(message, "unstorable", f"a value fits no column: {error}"))
            return True
        return False

    def _done(self, sink: Sink, batch: Batch, stored: Iterable[Letter]) -> None:
        """The commit holds: move on, remember the events, tell the log and Prometheus."""
        for row in batch.rows:
            self._remember(sink.seen[(sink.topic.name, row["kafka_partition"])], row["event_id"])
        for place in sink.buffers:
            sink.positions[place] = batch.moves[source(*place)].next
        self._consumer.hint({place: sink.positions[place] or 0 for place in sink.buffers})
        sink.buffers.clear()
        name = sink.table.table.name
        self._metrics.rows.labels(name).inc(len(batch.rows))
        self._metrics.duplicates.labels(sink.topic.name).inc(batch.duplicates)
        self._metrics.last_round.labels(name).set_to_current_time()
        for letter in stored:
            self._metrics.dead_letters.labels(letter.topic, letter.reason).inc()
        logger.debug("stored", extra={"table": name, "rows": len(batch.rows), "dead_letters": len(batch.letters)})
        sink.table.maintain()
        self._dead.table.maintain()

    def _remember(self, seen: "OrderedDict[str, None]", event_id: str) -> None:
        seen[event_id] = None
        while len(seen) > self._settings.dedupe_window:
            seen.popitem(last=False)

    def _where(self, place: Place) -> int | None:
        """Begin where the table ends, and know the events it took last."""
        sink = self._sinks[place[0]]
        sink.drop(place)
        sink.table.refresh()
        sink.positions[place] = sink.table.position(source(*place))
        ids = sink.table.newest_event_ids(place[1], limit=self._settings.dedupe_window)
        sink.seen[place] = OrderedDict.fromkeys(ids)
        return sink.positions[place]

    def _go_back(self, sink: Sink) -> None:
        places = list(sink.positions)
        self._consumer.seek({place: self._where(place) for place in places})

    def _gone(self, places: Iterable[Place]) -> None:
        for place in places:
            self._sinks[place[0]].drop(place)


def _row(topic: Topic, message: KafkaMessage, now: datetime) -> dict[str, Any] | Letter:
    """The row of a message, or the dead letter that it is."""
    try:
        event = decode(topic.payload, message.value(), _headers(message))
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return tables.event_row(event, partition=partition, offset=offset, ingested_at=now)
    except InvalidEvent as error:
        return _letter(message, error.reason, error.detail)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Bytes that break a decoder in a way it doesn't foresee are data, too.
        return _letter(message, "undecodable", f"{type(error).__name__}: {error}")


def _letter(message: KafkaMessage, reason: str, detail: str) -> Letter:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Letter(topic, partition, offset, reason, detail, message.key(), message.value(), tuple(_headers(message)))


def _headers(message: KafkaMessage) -> list[tuple[str, bytes | None]]:
    return [(n, v.encode() if isinstance(v, str) else v) for n, v in message.headers() or []]
