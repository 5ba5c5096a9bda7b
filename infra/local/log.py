"""The log as a command uses it: publish and wait for the acknowledgement, or read a topic once from end to end."""

import time
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.connection import KafkaConnection
from schemas.envelope import Event, decode, encode
from schemas.errors import BrokerUnavailable, InvalidEvent
from schemas.messages import Payload
from schemas.topics import Topic

P = TypeVar("P", bound=Payload)

TIMEOUT_SECONDS = 15.0
FIRST_ANSWER_SECONDS = 5.0
MAX_WAITING = 5_000


class Publisher:
    """One producer; `acknowledged` counts the events that the broker has."""

    def __init__(self, kafka: KafkaConnection, *, timeout: float | None = None) -> None:
        self.acknowledged = 0
        self._servers = kafka.bootstrap_servers
        self._timeout = TIMEOUT_SECONDS if timeout is None else timeout
        self._failure: str | None = None
        options = {
            "acks": "all",
            "enable.idempotence": "true",
            "linger.ms": "5",
            "message.timeout.ms": str(int(self._timeout * 1000)),
            "log_level": "0",
        }
        self._producer = Producer(dict(kafka.client_config()) | options)

    def publish(self, topic: Topic, event: Event[Payload]) -> None:
        """Hand one event over; `flush` says whether it arrived. Raises `BrokerUnavailable` once one did not."""
        message = encode(event)
        while len(self._producer) >= MAX_WAITING and self._failure is None:
            self._producer.poll(0.1)
        self._producer.poll(0)
        self._raise_failure()
        self._producer.produce(
            topic.name,
            key=message.key,
            value=message.value,
            headers=list[tuple[str, str | bytes | None]](message.headers),
            on_delivery=self._delivered,
        )

    def flush(self) -> None:
        """Return when the broker has acknowledged everything; raises `BrokerUnavailable`."""
        left = self._producer.flush(self._timeout + 1)
        self._raise_failure()
        if left:
            raise BrokerUnavailable(
                f"the broker at {self._servers} did not acknowledge {left} events in time; try again"
            )

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.acknowledged += 1
        elif self._failure is None:
            self._failure = error.str()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise BrokerUnavailable(
                f"the broker at {self._servers} did not take an event: {self._failure}; "
                "is it running (`thumbwheel up`), and do the topics exist (`thumbwheel topics create`)?"
            )


def read_all(
    kafka: KafkaConnection,
    topic: Topic,
    payload: type[P],
    *,
    on_bad: Callable[[InvalidEvent], None] = lambda _: None,
) -> Iterator[Event[P]]:
    """Every event that the topic holds now, in the order of each partition. Raises `BrokerUnavailable`."""
    options = {
        "group.id": "thumbwheel-cli",
        "enable.auto.commit": "false",
        "enable.partition.eof": "true",
        "fetch.queue.backoff.ms": "10",
        "fetch.wait.max.ms": "20",  # the end of a partition is told when a fetch came back empty: half a second later
        "log_level": "0",
    }
    consumer = Consumer(dict(kafka.client_config()) | options)
    try:
        for message in _messages(consumer, kafka, topic):
            try:
                yield decode(payload, message.value(), _headers(message))
            except InvalidEvent as error:
                on_bad(error)
    finally:
        consumer.close()


_raw_headers: Callable[[Message], Any] = methodcaller("headers")
"""Called so, the client's failure is always seen: at a plain call that runs often Python 3.11 may pass over it."""


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    """A message's headers; raises `InvalidEvent` where the client can't turn their names into text."""
    try:
        headers = _raw_headers(message) or []
    except SystemError as error:
        raise InvalidEvent("header_name", "a header's name is not UTF-8") from error
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


def _messages(consumer: Consumer, kafka: KafkaConnection, topic: Topic) -> Iterator[Message]:
    open_partitions = _partitions(consumer, kafka, topic)
    consumer.assign([TopicPartition(topic.name, p, OFFSET_BEGINNING) for p in open_partitions])
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while open_partitions:
        for message in at_hand(consumer):
            error = message.error()
            if error is None:
                deadline = time.monotonic() + TIMEOUT_SECONDS
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # pyright: ignore[reportPrivateUsage] - its public name
                open_partitions.discard(message.partition() or 0)
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"the broker at {kafka.bootstrap_servers} stopped answering; try again")


def at_hand(consumer: Consumer) -> list[Message]:
    """What has come, as soon as something has: `consume` by itself waits out its time until there are so many."""
    first = consumer.poll(0.2)
    return [] if first is None else [first, *consumer.consume(499, timeout=0)]


def _partitions(consumer: Consumer, kafka: KafkaConnection, topic: Topic) -> set[int]:
    try:
        found = consumer.list_topics(topic.name, timeout=FIRST_ANSWER_SECONDS).topics[topic.name]
    except KafkaException as error:
        raise BrokerUnavailable(
            f"no broker answers at {kafka.bootstrap_servers}; "
            "start one (`thumbwheel up`) or name one by --bootstrap-servers"
        ) from error
    if found.error is not None or not found.partitions:
        raise BrokerUnavailable(f"the topic {topic.name} does not exist; run `thumbwheel topics create`")
    return set(found.partitions)
