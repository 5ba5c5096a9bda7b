"""Events to Kafka: a producer with a thread that serves its callbacks.

Two ways to send. `publish_acknowledged` waits for the broker and says what became of the event; `publish_buffered`
never waits: the event lies in a bounded buffer until the broker takes it, and a full buffer refuses it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.connection import KafkaConnection
from schemas.envelope import MAX_VALUE_BYTES, Event, encode
from schemas.errors import BrokerUnavailable, BufferFull
from schemas.messages import Payload
from schemas.topics import Topic
from serving.adapters.acknowledgements import Expected, Handover
from serving.core.errors import EventTooLarge

logger = logging.getLogger(__name__)

# A tenth is left for the record's key, headers and framing, which count towards the broker's limit.
MOST_BYTES = MAX_VALUE_BYTES * 9 // 10

POLL_SECONDS = 0.002
"""How often the event loop asks for acknowledgements while a request waits for one; linger and disk take longer."""
IDLE_SECONDS = 0.1

Fate = Callable[[str, str], None]
"""Told of each event's topic and fate: acked, failed, dropped or refused."""


class EventLog:
    """One producer. Safe to use from any thread; never raises because the broker is down at the start."""

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        client_id: str,
        buffer_events: int,
        message_timeout_seconds: float,
        on_fate: Fate = lambda topic, fate: None,
    ) -> None:
        """`message_timeout_seconds` 0: an event waits for the broker for as long as this process lives."""
        self._servers = connection.bootstrap_servers
        self._on_fate = on_fate
        self._last_log = 0.0
        self._health: tuple[float, str | None] = (0.0, "the broker was not asked yet")
        self._producer = Producer(
            connection.client_config()
            | {
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": int(message_timeout_seconds * 1000),
                "queue.buffering.max.messages": buffer_events,
                "reconnect.backoff.max.ms": 1000,
                "socket.keepalive.enable": True,
                "error_cb": self._on_error,
                "logger": logging.getLogger("librdkafka"),
            }
        )
        # librdkafka's own count would do, but it takes its error callbacks for messages.
        self._waiting, self._counting = 0, threading.Lock()
        self._to_loop: Handover | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve_callbacks, name=f"{client_id}-poll", daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """Events whose fate is not known yet."""
        return self._waiting

    def publish_buffered(self, topic: Topic, event: Event[Payload]) -> bool:
        """Leave the event in the buffer; False where that is full (or the event too large) and it is dropped."""
        try:
            self._produce(topic, event, lambda error: None)
        except (BrokerUnavailable, EventTooLarge) as error:
            self._on_fate(topic.name, "dropped")
            logger.warning("event dropped: %s", error, extra={"event_id": event.id, "topic": topic.name})
            return False
        return True

    async def publish_acknowledged(self, topic: Topic, event: Event[Payload], timeout: float) -> None:
        """Return once the broker has the event; raises `BrokerUnavailable`, `BufferFull` or `EventTooLarge`.

        After `BrokerUnavailable` the event may yet arrive: send it again under the same id.
        """
        [too_large] = await self.publish_all_acknowledged(topic, (event,), timeout)
        if too_large is not None:
            raise too_large

    async def publish_all_acknowledged(
        self, topic: Topic, events: Sequence[Event[Payload]], timeout: float
    ) -> list[EventTooLarge | None]:
        """Return once the broker has all events but those that are too large for it, which are told in their place.

        Raises `BrokerUnavailable` or `BufferFull` where any other was not acknowledged; the rest may have arrived.
        """
        handover = self._handover()
        expected = Expected(handover.loop)
        refusals: list[EventTooLarge | None] = []
        try:
            for event in events:
                refusals.append(self._send(topic, event, expected, handover))
            problem = await self._settled(expected, handover, timeout)
        except BufferFull:
            self._on_fate(topic.name, "refused")
            raise
        except TimeoutError as error:
            self._on_fate(topic.name, "refused")
            raise BrokerUnavailable(
                f"the broker at {self._servers} did not acknowledge within {timeout:g} s"
            ) from error
        if problem is not None:
            raise BrokerUnavailable(f"the broker at {self._servers} did not take it: {problem}")
        return refusals

    async def _settled(self, expected: Expected, handover: Handover, timeout: float) -> str | None:
        handover.waiting += 1
        handover.turn(lambda: self._producer.poll(0), POLL_SECONDS)
        try:
            return await expected.all_settled(timeout)
        finally:
            handover.waiting -= 1

    def _send(
        self, topic: Topic, event: Event[Payload], expected: Expected, handover: Handover
    ) -> EventTooLarge | None:
        expected.one_more()
        try:
            self._produce(
                topic, event, lambda error: handover.put(expected.settle, None if error is None else error.str())
            )
        except EventTooLarge as error:
            expected.one_less()
            return error
        return None

    def _handover(self) -> Handover:
        loop = asyncio.get_running_loop()
        if self._to_loop is None or self._to_loop.loop is not loop:
            self._to_loop = Handover(loop)
        return self._to_loop

    def problem(self, *, timeout: float = 1.0, max_age: float = 2.0) -> str | None:
        """Why the broker can't be used now, or None. Asks it at most every `max_age` seconds; blocks."""
        asked, answer = self._health
        if time.monotonic() - asked > max_age:
            answer = self._ask(timeout)
            self._health = (time.monotonic(), answer)
        return answer

    def close(self, timeout: float) -> int:
        """Give the broker `timeout` seconds to take what waits; returns how many events stayed behind."""
        self._producer.flush(timeout)
        left = self._waiting
        self._closing.set()
        self._thread.join(2.0)
        if left:
            logger.warning("events were lost: the broker did not take them before the end", extra={"events": left})
        return left

    def _produce(self, topic: Topic, event: Event[Payload], delivered: Callable[[KafkaError | None], None]) -> None:
        message = encode(event)
        if len(message.value) > MOST_BYTES:
            raise EventTooLarge(f"as an event it has {len(message.value)} bytes; the log takes {MOST_BYTES} at most")

        def on_delivery(error: KafkaError | None, _: object) -> None:
            self._count(-1)
            self._on_fate(topic.name, "failed" if error else "acked")
            if error:
                logger.error("event not delivered: %s", error.str(), extra={"event_id": event.id, "topic": topic.name})
            delivered(error)

        headers: list[tuple[str, Any]] = [*message.headers]
        self._count(1)  # before it can be delivered: the count never falls below the truth
        try:
            self._producer.produce(
                topic.name,
                key=message.key,
                value=message.value,
                headers=headers,
                on_delivery=on_delivery,
            )
        except BufferError as error:
            self._count(-1)
            raise BufferFull(
                f"the broker at {self._servers} does not answer and the buffer for events is full"
            ) from error
        except KafkaException as error:
            self._count(-1)
            raise BrokerUnavailable(f"the event can't be sent: {error.args[0].str()}") from error

    def _count(self, change: int) -> None:
        with self._counting:
            self._waiting += change

    def _ask(self, timeout: float) -> str | None:
        try:
            self._producer.list_topics(timeout=timeout)
        except KafkaException as error:
            return f"the broker at {self._servers} does not answer: {error.args[0].str()}"
        return None

    def _serve_callbacks(self) -> None:
        while not self._closing.is_set():
            if self._to_loop is not None and self._to_loop.waiting:
                self._closing.wait(IDLE_SECONDS)  # the loop asks for itself
            else:
                self._producer.poll(IDLE_SECONDS)

    def _on_error(self, error: KafkaError) -> None:
        # Called for every failed attempt to connect: once in ten seconds is enough in a log.
        if time.monotonic() - self._last_log > 10:
            self._last_log = time.monotonic()
            logger.warning("broker trouble: %s", error.str(), extra={"broker": self._servers})
