"""The log: a consumer that lets the tables say where to begin, and a producer that tells when it is safe.

Consumer precautions: topics exist beforehand; on loss of a partition what is buffered for it is dropped, never flushed;
with an instance id (static membership) a worker that comes back takes its partitions without a rebalance.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient

from schemas.connection import KafkaConnection
from schemas.envelope import MAX_VALUE_BYTES
from schemas.errors import BrokerUnavailable, SettingsError

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""A topic and one of its partitions."""

POLL_SECONDS = 0.05
FLUSH_SECONDS = 6.0


class Sparingly(logging.Filter):
    """Lets one record through every few seconds: a client without its broker complains twenty times a second."""

    def __init__(self, seconds: float = 5.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created - self._last < self._seconds:
            return False
        self._last = record.created
        return True


def wait_for_log(kafka: KafkaConnection, stop: threading.Event) -> None:
    """Until the log answers, or `stop` is set."""
    admin = AdminClient(dict[str, str | int | float | bool](kafka.client_config()), logger=_client_logger())
    while not stop.is_set():
        try:
            admin.list_topics(timeout=2)
        except KafkaException as error:
            logger.warning("waiting for the log", extra={"error": str(error)})
            stop.wait(1.0)
        else:
            return


class Consumer:
    """A member of the sink's group.

    `where` is asked at each assignment for the next offset of a partition (None: from its beginning), `gone` is told
    of partitions that are no longer ours.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        topics: Sequence[str],
        *,
        group: str,
        instance_id: str | None,
        where: Callable[[Place], int | None],
        gone: Callable[[Iterable[Place]], None],
    ) -> None:
        self._where, self._gone = where, gone
        self._assigned: list[Place] = []
        self._held: frozenset[str] = frozenset()
        self._failure: Exception | None = None
        self._consumer = KafkaConsumer(
            kafka.client_config()
            | {
                "group.id": group,
                "client.id": instance_id or group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 200_000,
                "queued.max.messages.kbytes": 65_536,
                "session.timeout.ms": 10_000,
                "topic.metadata.refresh.interval.ms": 30_000,
            }
            | ({} if instance_id is None else {"group.instance.id": instance_id}),
            logger=_client_logger(),
        )
        self._consumer.subscribe(list(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def take(self, limit: int) -> list[KafkaMessage]:
        """What has come, at most `limit` messages; soon returns, maybe with nothing. Errors of the log are logged."""
        messages = self._consumer.consume(limit, timeout=POLL_SECONDS)
        if self._failure is not None:
            raise self._failure
        events: list[KafkaMessage] = []
        for message in messages:
            error = message.error()
            if error is None:
                events.append(message)
            else:
                self._heed(error)
        return events

    def _heed(self, error: KafkaError) -> None:
        """A word of the log among the events."""
        if error.fatal() or error.code() == KafkaError.FENCED_INSTANCE_ID:
            raise SettingsError(f"the log has shut this worker out: {error}; does another one use its instance id?")
        logger.info("the log says: %s", error)

    def hold(self, topics: Iterable[str]) -> None:
        """Take nothing of these topics, and of all others again. The membership in the group goes on."""
        topics = frozenset(topics)
        if topics != self._held:
            self._pause(self._held - topics, self._consumer.resume)
            self._held = topics
            self._pause(topics, self._consumer.pause)

    def _pause(self, topics: Iterable[str], act: Callable[[list[TopicPartition]], None]) -> None:
        places = [TopicPartition(t, p) for t, p in self._assigned if t in topics]
        if places:
            act(places)

    def seek(self, positions: Mapping[Place, int | None]) -> None:
        """Go on from here, for partitions that are ours."""
        for (topic, partition), offset in positions.items():
            if (topic, partition) in self._assigned:
                self._consumer.seek(TopicPartition(topic, partition, _offset(offset)))

    def hint(self, positions: Mapping[Place, int]) -> None:
        """Tell the log how far the tables are. Only tools that show lag look at it."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(t, p, offset) for (t, p), offset in positions.items()], asynchronous=True
            )
        except KafkaException as error:
            logger.info("offset hint not sent", extra={"error": str(error)})

    def lag(self) -> int:
        """Messages that lie in the log behind what was taken, as far as the client knows."""
        total = 0
        for place in self._consumer.position([TopicPartition(t, p) for t, p in self._assigned]):
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if high > 0 and place.offset >= 0:
                total += max(0, high - place.offset)
        return total

    def close(self) -> None:
        self._consumer.close()

    def _assign(self, consumer: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        try:
            begin = [self._beginning(consumer, p.topic, p.partition) for p in partitions]
        except Exception as error:  # noqa: BLE001 - a callback can't raise through librdkafka; `take` raises it
            self._failure = error
            return
        self._assigned = [(p.topic, p.partition) for p in begin]
        consumer.assign(begin)
        self._pause(self._held, consumer.pause)
        logger.info("assigned", extra={"partitions": {f"{p.topic}/{p.partition}": p.offset for p in begin}})

    def _beginning(self, consumer: KafkaConsumer, topic: str, partition: int) -> TopicPartition:
        """Where the table says; raises `SettingsError` where the log ends before that."""
        position = self._where((topic, partition))
        begin = TopicPartition(topic, partition, _offset(position))
        try:
            _, end = consumer.get_watermark_offsets(begin, timeout=5)
        except KafkaException:
            return begin  # no answer now; the check is a courtesy
        if position is not None and end < position:
            raise SettingsError(
                f"the lake holds {topic}/{partition} up to offset {position}, but the log ends at {end}: it lost"
                " acknowledged messages or is another cluster. Point to the right log, or use a new data folder"
            )
        return begin

    def _revoke(self, consumer: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in partitions]
        self._assigned = [p for p in self._assigned if p not in places]
        self._gone(places)
        logger.info("revoked", extra={"partitions": [f"{t}/{p}" for t, p in places]})


class Producer:
    """An idempotent producer with acks from all replicas. `flush` raises what went wrong since the last one; everything
    since then must be sent again."""

    def __init__(self, kafka: KafkaConnection, *, client_id: str) -> None:
        self._errors: list[KafkaError] = []
        self._config = kafka.client_config() | {
            "client.id": client_id,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.max.bytes": 16 * MAX_VALUE_BYTES,
            "message.timeout.ms": int(FLUSH_SECONDS * 1000),
        }
        self._producer = self._new()

    def _new(self) -> KafkaProducer:
        return KafkaProducer(self._config, logger=_client_logger())

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Hand a message over. It is safe when the next `flush` has returned."""
        while True:
            try:
                self._producer.produce(topic, value, key, headers=list(headers), on_delivery=self._told)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    _too_large(topic)
                    return
                raise BrokerUnavailable(f"the log refuses a message for {topic}: {error}") from error
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """Wait until everything sent is acknowledged; raises `BrokerUnavailable` where something was not."""
        left = self._producer.flush(FLUSH_SECONDS + 1)
        errors, self._errors = self._errors, []
        if left or errors:
            # What is left must not come after what is sent anew, and an idempotent producer may be beyond repair.
            self._producer.purge()
            self._producer = self._new()
            self._errors = []
            why = str(errors[0]) if errors else f"{left} messages without an answer"
            raise BrokerUnavailable(f"the log did not acknowledge what was sent: {why}; it is tried again")

    def _told(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is None:
            return
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            _too_large(message.topic())
        else:
            self._errors.append(error)


def _too_large(topic: str | None) -> None:
    """Trying again can't help, and the table that goes with every topic we write holds the row in full."""
    logger.error("a message is larger than the log takes; only the table has it", extra={"topic": topic})


def _client_logger() -> logging.Logger:
    clients = logging.getLogger(f"{__name__}.librdkafka")
    if not clients.filters:
        clients.addFilter(Sparingly())
    return clients


def _offset(position: int | None) -> int:
    return OFFSET_BEGINNING if position is None else position
