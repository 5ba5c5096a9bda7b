"""What a partition remembers of its idempotent producers, so that a batch sent again is not stored again.

The rules are Kafka's (ProducerAppendInfo, from 2.5 on): the last five batches of a producer are known and answered with
their old offset; a gap is refused; an older epoch is fenced; a new epoch starts at 0; a producer that nothing is known
of, perhaps because its records have expired, may start anywhere.
"""

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c
from kio.schema.errors import ErrorCode

from infra.broker.batches import SEQUENCES, BatchHeader
from infra.broker.errors import BrokerError

REMEMBERED_BATCHES = 5  # as many requests as an idempotent producer has in flight

_CRC = struct.Struct(">4sI")
_MAGIC = b"twp1"
_PRODUCER = struct.Struct(">qhqB")
_BATCH = struct.Struct(">iiqqq")


class Noted(NamedTuple):
    """A batch that is stored. `timestamp` is the greatest of its records."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    seen_ms: int
    batches: deque[Noted] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES))


class Producers:
    """All idempotent producers of one partition."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Producer] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def check(self, header: BatchHeader) -> Noted | None:
        """What is already stored of this very batch, or None if it is the next one."""
        known = self._by_id.get(header.producer_id)
        if known is None:
            return None
        if header.producer_epoch < known.epoch:
            raise BrokerError(
                ErrorCode.invalid_producer_epoch,
                f"producer {header.producer_id} has epoch {known.epoch}, not {header.producer_epoch}",
            )
        if header.producer_epoch > known.epoch:
            return _expect(header, 0)
        sequences = (header.base_sequence, header.last_sequence)
        for noted in known.batches:
            if noted[:2] == sequences:
                return noted
        return _expect(header, (known.batches[-1].last_sequence + 1) % SEQUENCES)

    def note(self, header: BatchHeader, base_offset: int, now_ms: int) -> None:
        """The batch is stored at `base_offset`."""
        known = self._by_id.get(header.producer_id)
        if known is None or known.epoch != header.producer_epoch:
            known = self._by_id[header.producer_id] = _Producer(header.producer_epoch, now_ms)
        known.seen_ms = now_ms
        last_offset = base_offset + header.last_offset_delta
        known.batches.append(
            Noted(header.base_sequence, header.last_sequence, base_offset, last_offset, header.max_timestamp)
        )

    def expire(self, now_ms: int, after_ms: int) -> int:
        """Forgets those not heard of for `after_ms`, and says how many they were."""
        gone = [producer for producer, known in self._by_id.items() if now_ms - known.seen_ms >= after_ms]
        for producer in gone:
            del self._by_id[producer]
        return len(gone)

    def to_bytes(self) -> bytes:
        """A snapshot, with a checksum."""
        parts: list[bytes] = []
        for producer, known in self._by_id.items():
            parts.append(_PRODUCER.pack(producer, known.epoch, known.seen_ms, len(known.batches)))
            parts += (_BATCH.pack(*noted) for noted in known.batches)
        body = b"".join(parts)
        return _CRC.pack(_MAGIC, crc32c(body)) + body

    @classmethod
    def from_bytes(cls, snapshot: bytes) -> "Producers":
        """Raises ValueError for what is not a whole snapshot."""
        if len(snapshot) < _CRC.size or _CRC.unpack_from(snapshot) != (_MAGIC, crc32c(snapshot[_CRC.size :])):
            raise ValueError("not a snapshot of producers, or a damaged one")
        producers, at = cls(), _CRC.size
        while at < len(snapshot):
            producer, epoch, seen_ms, count = _PRODUCER.unpack_from(snapshot, at)
            at += _PRODUCER.size
            known = producers._by_id[producer] = _Producer(epoch, seen_ms)
            known.batches.extend(Noted(*_BATCH.unpack_from(snapshot, at + i * _BATCH.size)) for i in range(count))
            at += count * _BATCH.size
        return producers


def _expect(header: BatchHeader, sequence: int) -> None:
    if header.base_sequence != sequence:
        raise BrokerError(
            ErrorCode.out_of_order_sequence_number,
            f"producer {header.producer_id} sent sequence {header.base_sequence} where {sequence} was due",
        )
