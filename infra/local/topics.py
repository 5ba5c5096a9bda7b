"""The topics of `schemas.topics` on a broker: created, compared, described."""

import contextlib
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable
from schemas.topics import plan

TIMEOUT_SECONDS = 15.0
FIRST_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Created:
    """What `create_topics` did. `differing`: existing topics with other partitions than planned."""

    created: tuple[str, ...]
    existing: tuple[str, ...]
    differing: tuple[str, ...]


@dataclass(frozen=True)
class Described:
    """A topic as the broker has it. `events` counts what lies between the watermarks of all partitions."""

    name: str
    partitions: int
    events: int
    end_offset: int
    settings: dict[str, str]


def create_topics(kafka: KafkaConnection) -> Created:
    """Create every planned topic that is missing. Idempotent; raises `BrokerUnavailable`."""
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    existing = _partitions(admin, kafka)
    wanted = plan()
    missing = [NewTopic(n, num_partitions=p, config=c) for n, (p, c) in wanted.items() if n not in existing]
    if missing:
        for name, future in admin.create_topics(missing, request_timeout=TIMEOUT_SECONDS).items():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise BrokerUnavailable(f"can't create the topic {name}: {error.args[0].str()}") from error
    differing = tuple(
        f"{name} has {existing[name]} partitions, planned are {partitions}"
        for name, (partitions, _) in wanted.items()
        if name in existing and existing[name] != partitions
    )
    return Created(tuple(t.topic for t in missing), tuple(sorted(set(existing) & set(wanted))), differing)


def describe_topics(kafka: KafkaConnection) -> list[Described]:
    """Every planned topic that exists, with its watermarks; raises `BrokerUnavailable`."""
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    existing = _partitions(admin, kafka)
    consumer = Consumer({**kafka.client_config(), "group.id": "thumbwheel-describe", "log_level": 0})
    try:
        return [_describe(consumer, n, existing[n], c) for n, (_, c) in plan().items() if n in existing]
    except KafkaException as error:
        raise BrokerUnavailable(f"the broker stopped answering: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _describe(consumer: Consumer, name: str, partitions: int, settings: dict[str, str]) -> Described:
    marks = [
        consumer.get_watermark_offsets(TopicPartition(name, p), timeout=TIMEOUT_SECONDS) for p in range(partitions)
    ]
    return Described(name, partitions, sum(h - low for low, h in marks), sum(h for _, h in marks), settings)


def _partitions(admin: AdminClient, kafka: KafkaConnection) -> dict[str, int]:
    with contextlib.suppress(KafkaException):
        topics = admin.list_topics(timeout=FIRST_ANSWER_SECONDS).topics
        return {name: len(topic.partitions) for name, topic in topics.items()}
    raise BrokerUnavailable(
        f"no broker answers at {kafka.bootstrap_servers}; "
        "start one (`thumbwheel up`) or name one by --bootstrap-servers"
    )
