"""Bronze: every topic that has a table, into that table, exactly once.

    log ──take──► sinks by topic ──full or old──► decode each ──► dead letters (safe first)
     ▲                                                 └────────► append rows + next offsets, one commit
     └──────── seek to the table's offsets: on assignment, and after a conflict ◄──────┘

One thread; upkeep of the tables runs beside it. Back-pressure: while a topic's flush can't be done (log or storage
down, disk full) nothing more is taken of that topic, `thumbwheel_stalled` and `/ready` say so, and the same flush is
tried again; what is in the buffers is in the log too, so a crash loses nothing. A partition that is lost takes its
buffer with it. Kafka's own committed offsets follow as a hint for lag tools.
"""

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Iterable, Iterator

import polars as pl
from deltalake.exceptions import DeltaError

from schemas import tables
from schemas.errors import BrokerUnavailable, TableConflict
from streams.adapters.dead_letters import DeadLetters
from streams.adapters.lake import LakeTable, open_table
from streams.adapters.log import Consumer, Place, Producer
from streams.metrics import Metrics
from streams.settings import StreamSettings
from streams.sink import Batch, Sink, by_place
from streams.upkeep import Keeper

logger = logging.getLogger(__name__)

LAG_SECONDS = 1.0
TAKE = 500
"""Messages that are worked up at a time: with all that is made of them they stay in a core's cache."""
YOUNG = 50_000
"""New objects after which the collector looks at them."""
STORAGE_ERRORS = (DeltaError, OSError, pl.exceptions.PolarsError)


class Ingest:
    """The program. `run` returns when `stop` is set; what was not flushed comes again from the log."""

    def __init__(self, settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
        self._settings, self._metrics, self._stop = settings, metrics, stop
        opened = {t.name: self._open(t) for t in (*tables.BY_TOPIC.values(), tables.DEAD_LETTERS)}
        self._sinks = {
            name: Sink(table.topic, opened[table.name], window=settings.dedupe_window)
            for name, table in tables.BY_TOPIC.items()
            if table.topic
        }
        producer = Producer(settings.kafka, client_id=f"{settings.instance_id or settings.group}-dlq")
        self._dead = DeadLetters(producer, opened[tables.DEAD_LETTERS.name])
        self._keeper = Keeper(settings, metrics, stop)
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
        return open_table(self._settings.lake, table)

    @property
    def assigned(self) -> frozenset[Place]:
        """The partitions that are ours and whose table has said where to begin."""
        return frozenset((name, partition) for name, sink in self._sinks.items() for partition in sink.parts)

    def run(self) -> None:
        """Until told to stop."""
        self._keeper.start()
        try:
            with _seldom_collected():
                while not self._stop.is_set():
                    self.step()
        finally:
            self._consumer.close()
            self._keeper.join()

    def step(self) -> None:
        """Take once, and flush what is due."""
        settings = self._settings
        taken = by_place(self._consumer.take(min(TAKE, settings.batch_rows)))
        now, idle = time.monotonic(), not taken
        for (topic, partition), messages in taken.items():
            self._sinks[topic].put(partition, messages, now)
        for sink in self._sinks.values():
            if sink.unbegun and now >= (sink.retry_at or 0.0):
                self._go_back(sink, sink.unbegun)
            if sink.due(
                now,
                rows=settings.batch_rows,
                size=settings.batch_bytes,
                seconds=settings.batch_seconds,
                idle=idle,
            ):
                self._try_flush(sink)
        stalled = {name for name, sink in self._sinks.items() if sink.retry_at is not None}
        self._consumer.hold(stalled)
        self._metrics.only_stalled(stalled)
        self._note_lag()

    def _note_lag(self) -> None:
        """Once a second: asking costs the client more than an empty poll."""
        if time.monotonic() - self._lag_noted >= LAG_SECONDS:
            self._lag_noted = time.monotonic()
            waiting = sum(sink.waiting for sink in self._sinks.values())
            self._metrics.lag.set(self._consumer.lag() + waiting)

    def _try_flush(self, sink: Sink) -> None:
        """Each topic by itself: a conflict or a failure of one table holds up no other."""
        try:
            self._flush(sink)
        except TableConflict as error:
            self._metrics.conflicts.inc()
            logger.warning("another writer came first; going back to the table", extra={"error": str(error)})
            self._go_back(sink, sink.parts)
        except (BrokerUnavailable, *STORAGE_ERRORS) as error:
            self._stall(sink, error)

    def _stall(self, sink: Sink, error: Exception) -> None:
        topic = sink.topic.name
        sink.retry_at = time.monotonic() + self._settings.retry_seconds
        self._metrics.stall(topic, str(error))
        logger.error(
            "can't store now: nothing is taken of this topic until it works again",
            extra={"topic": topic, "error": str(error)},
        )

    def _flush(self, sink: Sink) -> None:
        batch = sink.batch()
        stored = self._dead.store(batch.letters, {app: move.next for app, move in batch.moves.items()})
        for one in stored:
            self._metrics.dead_letters.labels(one.topic, one.reason).inc()
        began = time.perf_counter()
        sink.table.append(batch.rows, batch.moves)
        sink.commit_seconds = time.perf_counter() - began
        self._done(sink, batch)

    def _done(self, sink: Sink, batch: Batch) -> None:
        """The commit holds: move on, tell the log and Prometheus."""
        topic, name = sink.topic.name, sink.table.table.name
        sink.done(batch)
        self._consumer.hint({(topic, partition): offset for partition, offset in batch.nexts.items()})
        self._metrics.commit_seconds.labels(name).observe(sink.commit_seconds)
        self._metrics.batch_rows.labels(name).observe(batch.rows.num_rows)
        self._metrics.rows.labels(name).inc(batch.rows.num_rows)
        self._metrics.duplicates.labels(topic).inc(batch.duplicates)
        self._metrics.last_round.labels(name).set_to_current_time()
        self._keeper.committed(name)
        if batch.letters:
            self._keeper.committed(tables.DEAD_LETTERS.name)
        logger.debug("stored", extra={"table": name, "rows": batch.rows.num_rows, "dead_letters": len(batch.letters)})

    def _where(self, place: Place) -> int | None:
        """Begin where the table ends, and know the events it took last. Where that can't be read now, the partition
        is begun when it can."""
        topic, partition = place
        self._keeper.own(topic, partition)
        try:
            return self._sinks[topic].begin(partition)
        except STORAGE_ERRORS as error:
            self._stall(self._sinks[topic], error)
            return None

    def _go_back(self, sink: Sink, partitions: Iterable[int]) -> None:
        topic = sink.topic.name
        try:
            self._consumer.seek({(topic, partition): sink.begin(partition) for partition in list(partitions)})
        except STORAGE_ERRORS as error:
            self._stall(sink, error)
        else:
            sink.retry_at = None

    def _gone(self, places: Iterable[Place]) -> None:
        for topic, partition in places:
            self._sinks[topic].drop(partition)
            self._keeper.disown(topic, partition)


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """The collector leaves alone what is there now, and looks seldom at the rest: a batch makes thousands of objects,
    none of them in a cycle."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
