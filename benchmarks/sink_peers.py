"""The programs that `python -m benchmarks sink` compares ingest with, each in a process of its own.

python -m benchmarks.sink_peers quix|faust BOOTSTRAP FOLDER EVENTS

They read the benchmark's topic from its beginning and append what they read to a Delta table in FOLDER: quixstreams in
batches of as many as ingest's, faust by `take(10000)`. Neither validates, dedupes or commits offsets with its rows;
quixstreams keeps the envelope's columns, faust's `take` gives values alone. Prints, as JSON, seconds from the first
record to the last commit and the process's CPU seconds meanwhile.
"""

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa

from schemas import tables, topics
from streams.adapters.lake import arrow_schema
from streams.settings import StreamSettings

BATCH = StreamSettings.model_fields["batch_rows"].default
TAKE = 10_000
ENVELOPE = {"ce_id": "event_id", "ce_source": "event_source", "traceparent": "traceparent"}


class Clock:
    """From the first record to the last commit."""

    def __init__(self, folder: Path, events: int) -> None:
        self._uri, self._left = str(folder / "table"), events
        self._began: tuple[float, float] | None = None

    def first(self) -> None:
        """A record has come."""
        self._began = self._began or (time.perf_counter(), time.process_time())

    def write(self, rows: list[dict[str, Any]], schema: pa.Schema) -> bool:
        """One commit; whether it was the last."""
        deltalake.write_deltalake(self._uri, pa.Table.from_pylist(rows, schema=schema), mode="append")
        self._left -= len(rows)
        if self._left > 0:
            return False
        assert self._began is not None
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        print(json.dumps({"seconds": wall, "cpu_seconds": cpu}), flush=True)
        return True


def quix(bootstrap: str, folder: Path, events: int) -> None:
    """quixstreams' batching sink."""
    from quixstreams import Application  # type: ignore[import-not-found]
    from quixstreams.sinks import BatchingSink  # type: ignore[import-not-found]

    schema, clock = _nullable(tables.FEEDBACK), Clock(folder, events)
    application = Application(
        broker_address=bootstrap,
        consumer_group=f"quix-{time.time_ns()}",
        auto_offset_reset="earliest",
        commit_every=BATCH,
        commit_interval=1.0,
        auto_create_topics=False,
        state_dir=str(folder / "state"),
        loglevel="ERROR",
        consumer_extra_config={"fetch.queue.backoff.ms": 10, "queued.min.messages": 200_000},
    )

    class Sink(BatchingSink):
        def write(self, batch: Any) -> None:
            rows = [
                item.value
                | {ENVELOPE[n]: v.decode() for n, v in item.headers if n in ENVELOPE}
                | {"kafka_partition": batch.partition, "kafka_offset": item.offset}
                for item in batch
            ]
            if clock.write(rows, schema):
                application.stop()

    topic = application.topic(topics.FEEDBACK.name, value_deserializer="json")

    def seen(value: Any) -> Any:
        clock.first()
        return value

    application.dataframe(topic).apply(seen).sink(Sink())
    application.run()


def faust(bootstrap: str, folder: Path, events: int) -> None:
    """faust's `take`."""
    import faust as library

    schema = pa.schema([f for f in _nullable(tables.FEEDBACK) if f.name in topics.FEEDBACK.payload.model_fields])
    clock, done = Clock(folder, events), asyncio.Event()
    app = library.App(
        f"faust-{time.time_ns()}",
        broker=f"aiokafka://{bootstrap}",
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=str(folder / "faust"),
        value_serializer="json",
        web_enabled=False,
        stream_buffer_maxsize=2 * TAKE,
    )

    @app.agent(app.topic(topics.FEEDBACK.name, internal=False))
    async def _sink(stream: Any) -> None:
        async for rows in stream.take(TAKE, within=1.0):
            if clock.write(rows, schema):
                done.set()

    async def main() -> None:
        app.monitor.on_message_in = _first(clock, app.monitor.on_message_in)  # type: ignore[method-assign]
        await app.start()
        await done.wait()
        os._exit(0)  # its own stop can take minutes

    logging.disable(logging.WARNING)
    asyncio.run(main())


def _nullable(table: tables.Table) -> pa.Schema:
    """The table's columns, of which they fill those that they have."""
    return pa.schema([column.with_nullable(True) for column in arrow_schema(table)])


def _first(clock: Clock, then: Any) -> Any:
    def on_message_in(*arguments: Any) -> Any:
        clock.first()
        return then(*arguments)

    return on_message_in


if __name__ == "__main__":
    {"quix": quix, "faust": faust}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
