"""Reads the log and the tables beside the services: nothing waits for it."""

import threading
import time
from dataclasses import dataclass, field
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from infra.demo.lake import Lake
from infra.demo.progress import Progress
from infra.local.headers import readable_headers
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.cycles import Cycle
from schemas.envelope import decode
from schemas.errors import InvalidEvent
from schemas.versions import ModelVersion

COUNT_EVERY = 2.0
COUNTED_TOPICS = (topics.OUTPUTS, topics.FEEDBACK, topics.LABELS, topics.PREFERENCES)
COUNTED_TABLES = ("outputs", "feedback", "labels", "dead_letters", "responses", "ratings", "preferences")


@dataclass(frozen=True)
class Seen:
    """What was seen last. Topics and tables count events and rows."""

    progress: Progress = field(default_factory=Progress)
    topics: dict[str, int] = field(default_factory=dict[str, int])
    tables: dict[str, int] = field(default_factory=dict[str, int])


class Watcher:
    """`seen` is replaced as a whole, never changed: it can be read from any thread."""

    def __init__(self, kafka: KafkaConnection, lake: Lake) -> None:
        self.seen = Seen()
        self._kafka, self._lake = kafka, lake

    def run(self, stop: threading.Event) -> None:
        """Follow the log until `stop`; blocks, so give it a thread."""
        options = {"group.id": "thumbwheel-demo", "enable.auto.commit": "false", "fetch.queue.backoff.ms": "10"}
        consumer = Consumer(dict(self._kafka.client_config()) | options | {"log_level": "0"})
        parts = [TopicPartition(t.name, 0, OFFSET_BEGINNING) for t in (topics.CYCLES, topics.MODEL_VERSIONS)]
        try:
            consumer.assign(parts)
            self._follow(consumer, stop)
        finally:
            consumer.close()

    def counts(self) -> dict[str, int]:
        """The rows of the tables, now."""
        return {name: self._lake.rows(name) for name in COUNTED_TABLES}

    def _follow(self, consumer: Consumer, stop: threading.Event) -> None:
        counted = 0.0
        while not stop.is_set():
            messages = consumer.consume(100, timeout=0.1)
            for message in messages:
                self._take(message)
            if time.monotonic() - counted >= COUNT_EVERY:
                self._count(consumer)
                counted = time.monotonic()

    def _take(self, message: Message) -> None:
        if message.error() is not None:
            return
        progress = self.seen.progress
        try:
            headers = cast(list[tuple[str, bytes | None]], readable_headers(message))
            if message.topic() == topics.CYCLES.name:
                cycle = decode(Cycle, message.value(), headers)
                progress = progress.heard(cycle.data, cycle.time)
            else:
                moved = decode(ModelVersion, message.value(), headers)
                progress = progress.moved(moved.data, moved.time)
        except InvalidEvent:
            return  # a bad event is ingest's to bury, here it is passed over
        self.seen = Seen(progress, self.seen.topics, self.seen.tables)

    def _count(self, consumer: Consumer) -> None:
        tables = self.counts()
        try:
            counts = {t.payload.schema_name: _events(consumer, t) for t in COUNTED_TOPICS}
        except KafkaException:
            counts = self.seen.topics  # a broker that restarts: the last counts stand
        self.seen = Seen(self.seen.progress, counts, tables)


def _events(consumer: Consumer, topic: topics.Topic) -> int:
    marks = (
        consumer.get_watermark_offsets(TopicPartition(topic.name, p), timeout=2.0) for p in range(topic.partitions)
    )
    return sum(high for _, high in marks if high > 0)
