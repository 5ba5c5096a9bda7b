"""The log as the trainer uses it: cycle and version events out, the board of versions in.

`Events` is what the trainer asks for; `KafkaEvents` is the log, `MemoryEvents` a log of this process, for trying a
cycle without a broker (both run through the same tests).
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import methodcaller
from typing import Protocol, TypeVar, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas import topics
from schemas.connection import KafkaConnection
from schemas.envelope import MAX_VALUE_BYTES, Event, decode, encode, type_name
from schemas.errors import BrokerUnavailable, InvalidEvent
from schemas.health import Alert
from schemas.messages import Payload
from schemas.versions import Board, ModelVersion

logger = logging.getLogger(__name__)

SOURCE = "thumbwheel/trainer"

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True)
class OpenAlert:
    """An alert, and since when it is raised."""

    alert: Alert
    since: datetime


def still_open(told: Iterable[Event[Alert]]) -> tuple[OpenAlert, ...]:
    """Of all alerts in the log's order those that were raised last, each since its first time after it was resolved."""
    known: dict[str, OpenAlert] = {}
    for event in told:
        name = event.data.fingerprint
        if event.data.state == "resolved":
            known.pop(name, None)
        else:
            known.setdefault(name, OpenAlert(event.data, event.time))
    return tuple(known.values())


class Events(Protocol):
    """What the trainer asks of the log."""

    def publish(self, event: Event[Payload]) -> None:
        """Return when the log has acknowledged the event; raises `BrokerUnavailable`."""
        ...

    def offer(self, event: Event[Payload]) -> None:
        """Send an event that may be lost, such as progress; never waits, never fails."""
        ...

    def board(self) -> Board:
        """All that is known of versions now; raises `BrokerUnavailable`."""
        ...

    def open_alerts(self) -> tuple[OpenAlert, ...]:
        """The alerts that are raised and not resolved; raises `BrokerUnavailable`."""
        ...

    def close(self) -> None: ...


class MemoryEvents:
    """A log in memory. `down` makes it refuse, as a broker does that is away."""

    def __init__(self) -> None:
        self.events: list[Event[Payload]] = []
        self.down = False

    def publish(self, event: Event[Payload]) -> None:
        if self.down:
            raise BrokerUnavailable("the log in memory was told to be down")
        if event.id not in {e.id for e in self.events}:
            self.events.append(event)

    def offer(self, event: Event[Payload]) -> None:
        if not self.down:
            self.publish(event)

    def board(self) -> Board:
        if self.down:
            raise BrokerUnavailable("the log in memory was told to be down")
        return Board().fold((e.data, e.time) for e in self.events if isinstance(e.data, ModelVersion))

    def open_alerts(self) -> tuple[OpenAlert, ...]:
        return still_open(cast("Event[Alert]", e) for e in self.events if isinstance(e.data, Alert))

    def close(self) -> None:
        return


class KafkaEvents:
    """An idempotent producer, and a reader of the version topic."""

    def __init__(self, kafka: KafkaConnection, *, client_id: str = "trainer", timeout: float = 20.0) -> None:
        self._kafka, self._client_id, self._timeout = kafka, client_id, timeout
        self._producer = Producer(
            kafka.client_config()
            | {
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": MAX_VALUE_BYTES * 2,
                "message.timeout.ms": int(timeout * 1000),
                "reconnect.backoff.max.ms": 1000,
            },
            logger=logging.getLogger(f"{__name__}.librdkafka"),
        )

    def publish(self, event: Event[Payload]) -> None:
        outcome: list[KafkaError | None] = []
        self._produce(event, outcome)
        deadline = time.monotonic() + self._timeout + 2
        while not outcome and time.monotonic() < deadline:
            self._producer.poll(0.05)
        if not outcome or outcome[0] is not None:
            why = outcome[0].str() if outcome and outcome[0] is not None else f"no answer in {self._timeout:.0f} s"
            raise self._unavailable(f"{type_name(type(event.data))} was not acknowledged: {why}")

    def offer(self, event: Event[Payload]) -> None:
        try:
            self._produce(event, [])
            self._producer.poll(0)
        except BrokerUnavailable as error:
            logger.info("an event was not sent", extra={"event_id": event.id, "error": str(error)})

    def _produce(self, event: Event[Payload], outcome: list[KafkaError | None]) -> None:
        message = encode(event)
        topic = topics.BY_NAME[type_name(type(event.data))].name

        def told(error: KafkaError | None, _: Message) -> None:
            outcome.append(error)

        try:
            self._producer.produce(topic, message.value, message.key, headers=list(message.headers), on_delivery=told)
        except (BufferError, KafkaException) as error:
            raise self._unavailable(f"{topic} takes nothing: {error}") from error

    def board(self) -> Board:
        told = self._read(topics.MODEL_VERSIONS, ModelVersion)
        return Board().fold((event.data, event.time) for event in told)

    def open_alerts(self) -> tuple[OpenAlert, ...]:
        return still_open(self._read(topics.ALERTS, Alert))

    def _read(self, topic: topics.Topic, payload: type[P]) -> list[Event[P]]:
        """All events of a topic of one partition, in order; raises `BrokerUnavailable`."""
        consumer = Consumer(
            self._kafka.client_config()
            | {
                "client.id": f"{self._client_id}-board",
                "group.id": f"{self._client_id}-board",  # asked for by the client; with assign() it is never used
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": 20,  # the end is told when a fetch came back empty: by default half a second later
            },
            logger=logging.getLogger(f"{__name__}.librdkafka"),
        )
        try:
            return self._to_the_end(consumer, topic.name, payload)
        except KafkaException as error:
            raise self._unavailable(f"the {payload.schema_name} can't be read: {error}") from error
        finally:
            consumer.close()

    def _to_the_end(self, consumer: Consumer, topic: str, payload: type[P]) -> list[Event[P]]:
        """Read the one partition of a topic from its beginning to its end as of now."""
        place = TopicPartition(topic, 0, OFFSET_BEGINNING)
        consumer.get_watermark_offsets(place, timeout=self._timeout)  # a broker that is away is found out here
        consumer.assign([place])
        found: list[Event[P]] = []
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            first = consumer.poll(0.2)  # `consume` alone waits out its time until there are so many
            for message in () if first is None else (first, *consumer.consume(499, timeout=0)):
                error = message.error()
                if error is None:
                    found += _decoded(message, payload)
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
                elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise KafkaException(error)
        raise self._unavailable(f"the {payload.schema_name} were not read to their end in {self._timeout:.0f} s")

    def close(self) -> None:
        self._producer.flush(min(5.0, self._timeout))

    def _unavailable(self, what: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"{what}; is the broker at {self._kafka.bootstrap_servers} up? `thumbwheel doctor` checks it. "
            f"What was learned is kept on disk and is announced at the next start"
        )


def _decoded(message: Message, payload: type[P]) -> list[Event[P]]:
    """The message's event; none for a tombstone (a compacted topic's way of forgetting) and for a bad one."""
    if message.value() is None:
        return []
    try:
        return [decode(payload, message.value(), _headers(message))]
    except InvalidEvent as error:
        where = {"topic": message.topic(), "offset": message.offset(), "error": str(error)}
        logger.warning("passed over a bad event", extra=where)
        return []


_raw_headers: Callable[[Message], list[tuple[str, str | bytes | None]] | None] = methodcaller("headers")
"""Called so, the client's failure is always seen: at a plain call that runs often Python 3.11 may pass over it."""


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    """A message's headers; raises `InvalidEvent` where the client can't turn their names into text."""
    try:
        return [(name, raw.encode() if isinstance(raw, str) else raw) for name, raw in _raw_headers(message) or []]
    except SystemError as error:
        raise InvalidEvent("header_name", "a header's name is not UTF-8") from error
