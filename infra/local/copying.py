"""All events of one log into the empty topics of another, each at the offset that it had.

The tables know how far they are by offsets, so a log that moves must keep them. A Kafka gives offsets by itself, one
after the other; so what retention or compaction has removed is made up for by padding: empty messages with the key
`thumbwheel-padding`. Before the first event the padding is deleted again. In the gaps that compaction left in a
compacted topic it stays, as tombstones that the next compaction takes.

    source: low watermark ─► event, gap, event ... ─► end
    target: padding (deleted) ─► event, padding, event ... ─► the same end

An interrupted copy is taken up where it ended.

A message whose headers the client can't hand over (a header's name is not UTF-8) can't be copied as it is. The copy
stops there and says so: a message with other headers would be another message. Told to, it pads such offsets, and
reports them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.local.headers import readable_headers
from infra.local.log import at_hand
from infra.local.topics import create_topics
from schemas.connection import KafkaConnection
from schemas.envelope import MAX_VALUE_BYTES
from schemas.errors import BrokerUnavailable, InvalidEvent, SettingsError, ThumbwheelError
from schemas.topics import plan

if TYPE_CHECKING:
    from confluent_kafka._types import HeadersType

PADDING_KEY = b"thumbwheel-padding"
TIMEOUT_SECONDS = 30.0
CREATE_TIME = 1


class UnreadableHeaders(ThumbwheelError):
    """A message that can't be copied as it is."""


Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True)
class Copied:
    """What was done for one topic. `padded` counts offsets that hold no event, of which `skipped` had one.

    They are known for the offsets that this call copied; an earlier call has told its own.
    """

    topic: str
    events: int
    padded: int
    skipped: tuple[Place, ...] = ()


def copy_log(
    source: KafkaConnection,
    target: KafkaConnection,
    *,
    skip_unreadable: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Copied]:
    """Copy every planned topic that the source has; `on_progress` hears offsets done and to do.

    Nobody may write to either side meanwhile. Raises `SettingsError` where the target holds something else already,
    `UnreadableHeaders` at a message that can't be copied as it is (unless `skip_unreadable` leaves it out),
    `BrokerUnavailable` where one of them does not answer.
    """
    if source.bootstrap_servers == target.bootstrap_servers:
        raise SettingsError("source and target are the same broker; name the old one by --from")
    consumer = _reader(source)
    try:
        parts = _partitions(consumer)
        create_topics(target)
        return _Copy(consumer, target, parts, on_progress, skip_unreadable=skip_unreadable).run()
    except KafkaException as error:
        raise BrokerUnavailable(
            f"the copy stopped: {error.args[0].str()}; mend that and run the same command again, it goes on from there"
        ) from error
    finally:
        consumer.close()


def _reader(kafka: KafkaConnection) -> Consumer:
    options = {"group.id": "thumbwheel-copy", "enable.auto.commit": "false", "enable.partition.eof": "true"}
    soon = {"fetch.queue.backoff.ms": "10", "fetch.wait.max.ms": "20"}  # the end is told when a fetch came back empty
    return Consumer(dict(kafka.client_config()) | options | soon | {"log_level": "0"})


def _partitions(consumer: Consumer) -> dict[str, list[int]]:
    found = consumer.list_topics(timeout=TIMEOUT_SECONDS).topics
    return {name: sorted(found[name].partitions) for name in plan() if name in found}


class _Copy:
    def __init__(
        self,
        consumer: Consumer,
        target: KafkaConnection,
        parts: dict[str, list[int]],
        on_progress: Callable[[int, int], None],
        *,
        skip_unreadable: bool,
    ) -> None:
        self._consumer, self._parts, self._on_progress = consumer, parts, on_progress
        self._producer = Producer(
            dict(target.client_config())
            | {"enable.idempotence": True, "acks": "all", "linger.ms": 20, "log_level": 0}
            | {"message.max.bytes": 16 * MAX_VALUE_BYTES}
        )
        self._reader = _reader(target)
        self._admin = AdminClient(dict[str, str | int | float | bool](target.client_config()))
        self._failure: str | None = None
        self._skip_unreadable = skip_unreadable
        self._skipped: dict[str, list[Place]] = {name: [] for name in parts}
        self._done = self._all = 0

    def run(self) -> list[Copied]:
        """Every topic in turn; one copied already counts as done."""
        places = [TopicPartition(name, p) for name, numbers in self._parts.items() for p in numbers]
        marks = {place: self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_SECONDS) for place in places}
        self._all = sum(end for _, end in marks.values())
        copied: dict[str, list[int]] = {name: [0, 0] for name in self._parts}
        for place, (low, end) in marks.items():
            events = self._copy(place, low, end)
            copied[place.topic][0] += events
            copied[place.topic][1] += end - events
        return [Copied(name, events, padded, tuple(self._skipped[name])) for name, (events, padded) in copied.items()]

    def _copy(self, place: TopicPartition, low: int, end: int) -> int:
        """One partition; the number of events in it."""
        have = self._end_at_target(place)
        if have > end:
            raise SettingsError(
                f"{place.topic}/{place.partition} ends at offset {have} there and at {end} here: that is another log. "
                "Copy into topics that are empty"
            )
        at, events = have, 0
        for message in self._messages(place, low, end):
            offset = message.offset() or 0
            if offset >= have:
                headers = self._headers(place, offset, message)
                if headers is None:
                    continue
                at = self._pad(place, at, offset)
                self._send(place, offset, message, headers)
                at += 1
            events += 1
            self._on_progress(self._done + at, self._all)
        self._pad(place, at, end)
        self._flush()
        if low and plan()[place.topic][1].get("cleanup.policy") != "compact":
            deleted = self._admin.delete_records([TopicPartition(place.topic, place.partition, low)])
            next(iter(deleted.values())).result(TIMEOUT_SECONDS)
        self._done += end
        self._on_progress(self._done, self._all)
        return events

    def _end_at_target(self, place: TopicPartition) -> int:
        return self._reader.get_watermark_offsets(place, timeout=TIMEOUT_SECONDS)[1]

    def _messages(self, place: TopicPartition, low: int, end: int) -> Iterator[Message]:
        self._consumer.assign([TopicPartition(place.topic, place.partition, low)])
        while low < end:
            for message in at_hand(self._consumer):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # pyright: ignore[reportPrivateUsage] - its public name
                    return
                elif error.fatal():
                    raise KafkaException(error)

    def _pad(self, place: TopicPartition, at: int, until: int) -> int:
        for offset in range(at, until):
            self._produce(place, offset, None, PADDING_KEY)
        return until

    def _headers(self, place: TopicPartition, offset: int, message: Message) -> "HeadersType | None":
        """The headers; None where the message is to be left out."""
        try:
            return readable_headers(message)
        except InvalidEvent as error:
            if not self._skip_unreadable:
                self._flush()
                raise UnreadableHeaders(
                    f"the copy stopped at {place.topic}/{place.partition}, offset {offset}: {error.detail}, and no"
                    " client reads such headers. What comes before is copied. Run the same command with"
                    " --skip-unreadable to leave such messages out: their offsets stay empty, and are told"
                ) from error
            self._skipped[place.topic].append((place.partition or 0, offset))
            return None

    def _send(self, place: TopicPartition, offset: int, message: Message, headers: "HeadersType") -> None:
        kind, created = message.timestamp()
        timestamp = created if kind == CREATE_TIME else 0  # 0: now
        self._produce(place, offset, message.value(), message.key(), headers=headers, timestamp=timestamp)

    def _produce(
        self,
        place: TopicPartition,
        offset: int,
        value: bytes | None,
        key: bytes | None,
        *,
        headers: "HeadersType | None" = None,
        timestamp: int = 0,
    ) -> None:
        """Hands one message over; that it came to lie at `offset` is checked when it is acknowledged."""

        def told(error: KafkaError | None, message: Message) -> None:
            if self._failure is None and (error is not None or message.offset() != offset):
                what = error.str() if error else f"offset {offset} became {message.offset()}; does somebody else write?"
                self._failure = f"{place.topic}/{place.partition}: {what}"

        while True:
            try:
                self._producer.produce(
                    place.topic,
                    value,
                    key,
                    place.partition,
                    on_delivery=told,
                    timestamp=timestamp,
                    headers=headers or [],
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        self._raise_failure()

    def _flush(self) -> None:
        self._producer.flush(TIMEOUT_SECONDS)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise BrokerUnavailable(f"the copy stopped at {self._failure}")
