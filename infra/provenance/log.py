"""The log's part of an erasure: what is stored in tables already can go before its time; the rest goes by retention.

A log can't forget single records. `truncate` lets everything go that the tables hold, of everybody, which costs other
consumers what they have not read yet; without it the report says until when retention will have removed it.
Label tasks are compacted by key, so single ones can go: a tombstone is written for each.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.provenance.sources import Sources
from schemas import tables, topics
from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable, ThumbwheelError
from schemas.topics import DLQ_RETENTION_MS
from streams.adapters.dead_letters import source

SECONDS = 15.0
STORED = tuple(table.topic for table in (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS) if table.topic)
"""Topics with people's content that ingest stores."""


class NotStored(ThumbwheelError):
    """The log holds events that ingest has not stored: they would come back after an erasure."""


@dataclass(frozen=True)
class Kept:
    """How long a topic still holds what was said before now."""

    topic: str
    until: datetime


def wait_until_stored(kafka: KafkaConnection, sources: Sources, *, seconds: float) -> None:
    """Return when ingest has stored all that lies in the log now; raises `NotStored`, `BrokerUnavailable`."""
    ends = _ends(kafka, (topic.name for topic in STORED))
    deadline = time.monotonic() + seconds
    while behind := _behind(sources, ends):
        if time.monotonic() > deadline:
            raise NotStored(
                f"{behind:,} events lie in the log that ingest has not stored; they would come back after the erasure."
                " Start ingest (`thumbwheel up`) and try again"
            )
        time.sleep(0.2)


def retained(moment: datetime) -> list[Kept]:
    """Until when the log keeps what it holds now, by the topics' retention."""
    kept = [
        Kept(t.name, moment + timedelta(milliseconds=t.retention_ms))
        for t in (*STORED, topics.PREFERENCES)
        if t.retention_ms is not None
    ]
    return [*kept, Kept("dead-letter topics (*.dlq)", moment + timedelta(milliseconds=DLQ_RETENTION_MS))]


def truncate(kafka: KafkaConnection, sources: Sources) -> dict[str, int]:
    """Let go of what the tables hold, and of derived events and dead letters; how many records, by topic."""
    stored = _ends(kafka, (topic.name for topic in STORED))
    goals = {place: min(end, _position(sources, *place)) for place, end in stored.items()}
    goals |= _ends(kafka, [topics.PREFERENCES.name, *(topic.dlq for topic in topics.ALL)])
    starts = _starts(kafka, goals)
    wanted = [TopicPartition(t, p, goal) for (t, p), goal in goals.items() if goal > starts[t, p]]
    if not wanted:
        return {}
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    gone: dict[str, int] = {}
    for place, future in admin.delete_records(wanted, request_timeout=SECONDS).items():
        try:
            future.result(SECONDS)
        except KafkaException as error:
            raise BrokerUnavailable(f"{place.topic} was not truncated: {error.args[0].str()}; try again") from error
        gone[place.topic] = gone.get(place.topic, 0) + place.offset - starts[place.topic, place.partition]
    return gone


def withdraw_tasks(kafka: KafkaConnection, task_ids: Sequence[str]) -> None:
    """Tombstones for label tasks; raises `BrokerUnavailable`."""
    if not task_ids:
        return
    failures: list[KafkaError] = []
    producer = Producer({**kafka.client_config(), "acks": "all", "enable.idempotence": True, "log_level": 0})
    for task_id in task_ids:
        producer.produce(
            topics.LABEL_TASKS.name,
            key=task_id.encode(),
            value=None,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        producer.poll(0)
    if producer.flush(SECONDS) or failures:
        raise BrokerUnavailable("the label tasks were not withdrawn: the broker did not acknowledge it; try again")


Place = tuple[str, int]


def _behind(sources: Sources, ends: dict[Place, int]) -> int:
    sources.refresh()
    return sum(max(0, end - _position(sources, *place)) for place, end in ends.items())


def _position(sources: Sources, topic: str, partition: int) -> int:
    table = sources.table(tables.BY_TOPIC[topic])
    return (table.position(source(topic, partition)) or 0) if table is not None else 0


def _ends(kafka: KafkaConnection, names: Iterable[str]) -> dict[Place, int]:
    return {place: high for place, (_, high) in _watermarks(kafka, set(names)).items()}


def _starts(kafka: KafkaConnection, places: Iterable[Place]) -> dict[Place, int]:
    return {place: low for place, (low, _) in _watermarks(kafka, {topic for topic, _ in places}).items()}


def _watermarks(kafka: KafkaConnection, names: set[str]) -> dict[Place, tuple[int, int]]:
    consumer = Consumer({**kafka.client_config(), "group.id": "thumbwheel-erase", "log_level": 0})
    try:
        known = consumer.list_topics(timeout=SECONDS).topics
        places = [(name, p) for name in sorted(names) if name in known for p in known[name].partitions]
        return {
            (name, p): consumer.get_watermark_offsets(TopicPartition(name, p), timeout=SECONDS) for name, p in places
        }
    except KafkaException as error:
        raise BrokerUnavailable(
            f"no broker answers at {kafka.bootstrap_servers}; start one (`thumbwheel up`) or name one by"
            " --bootstrap-servers"
        ) from error
    finally:
        consumer.close()
