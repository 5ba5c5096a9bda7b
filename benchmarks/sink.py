"""Ingest into Delta, against the fastest that a consumer can be: `consume()` without looking at what comes.

Both read the same topic of feedback events of about 600 bytes from the same broker, in turn, in one process. Ours
validates every event by its pydantic model, dedupes, and commits rows and offsets together.
"""

import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.result import Result, median_ratio
from infra.local.broker import EmbeddedBroker
from infra.local.topics import create_topics
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.envelope import encode, new_event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from streams.ingest import Ingest
from streams.metrics import Metrics
from streams.settings import StreamSettings

EVENTS = 60_000
ROUNDS = 3
COMMENT = "The answer was right, but it took me a while to find the sentence that matters; " * 2


def run() -> Result:
    """Ratio `raw`: our events per second as a share of the raw consumer's."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker" / "data") as broker:
        kafka = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        create_topics(kafka)
        size = _fill(kafka)
        raw, ours = [], []
        for number in range(ROUNDS):
            raw.append(_raw(kafka))
            ours.append(_ingest(kafka, Path(folder) / f"lake-{number}", number))
    details: dict[str, float | str] = {
        "events": float(EVENTS),
        "bytes_per_event": size,
        "raw_events_per_second": max(raw),
        "ingest_events_per_second": max(ours),
    }
    return Result("sink", {"raw": median_ratio(ours, raw)}, details)


def _fill(kafka: KafkaConnection) -> float:
    producer = Producer({**kafka.client_config(), "linger.ms": 50, "queue.buffering.max.messages": EVENTS + 1})
    size = 0
    for number in range(EVENTS):
        comment = Feedback(
            response_id=new_response_id(), kind=FeedbackKind.COMMENT, text=COMMENT, user_id=f"user-{number % 997}"
        )
        message = encode(new_event(comment, source="benchmark"))
        size += len(message.value) + sum(len(n) + len(v) for n, v in message.headers)
        producer.produce(topics.FEEDBACK.name, message.value, message.key, headers=list(message.headers))
    producer.flush()
    return size / EVENTS


def _raw(kafka: KafkaConnection) -> float:
    consumer = Consumer({
        **kafka.client_config(), "group.id": "raw", "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "fetch.queue.backoff.ms": 10, "queued.min.messages": 200_000,
    })  # fmt: skip
    consumer.assign([TopicPartition(topics.FEEDBACK.name, p, 0) for p in range(topics.FEEDBACK.partitions)])
    began, got = time.perf_counter(), 0
    while got < EVENTS:
        got += len(consumer.consume(5_000, timeout=1.0))
    seconds = time.perf_counter() - began
    consumer.close()
    return EVENTS / seconds


def _ingest(kafka: KafkaConnection, data: Path, number: int) -> float:
    settings = StreamSettings(data=data, kafka=kafka, group=f"benchmark-{number}")
    metrics, stop = Metrics(), threading.Event()
    ingest = Ingest(settings, metrics, stop)
    stored = metrics.rows.labels("feedback")
    began = time.perf_counter()
    runner = threading.Thread(target=ingest.run)
    runner.start()
    while stored._value.get() < EVENTS:  # prometheus-client has no public way to read a counter
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    stop.set()
    runner.join()
    return EVENTS / seconds
