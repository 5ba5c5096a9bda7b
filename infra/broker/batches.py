"""Record batches (format v2) as clients send and read them: 61 bytes of header, then records that few must look into.

The header says all that appending, reading and recovering need, so that the work is per batch, not per record. The CRC
covers everything from the attributes on; the base offset and the leader epoch lie before it and can be set freely.
(https://kafka.apache.org/documentation/#recordbatch)
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crc32c import crc32c
from kio.schema.errors import ErrorCode

from infra.broker.errors import BrokerError

HEADER_BYTES = 61
LENGTH_BYTES = 12  # base offset and length: what the length itself does not count
NO_TIMESTAMP = -1
NO_PRODUCER = -1
SEQUENCES = 2**31  # sequence numbers run from 0 to 2^31 - 1 and start again

CODEC_MASK, LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x07, 0x08, 0x10, 0x20, 0x40

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CHECKED = struct.Struct(">hiqqqhii")
_MAGIC_AT, _CHECKED_AT = 16, 21
_MAGIC = 2


class BatchHeader(NamedTuple):
    """What a batch says of itself. `size` is the whole batch in bytes, the first twelve included."""

    base_offset: int
    size: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts the fields of a header

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        return (self.base_sequence + self.last_offset_delta) % SEQUENCES

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def uses_log_append_time(self) -> bool:
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def has_delete_horizon(self) -> bool:
        """Whether the base timestamp is the time from which compaction may drop the tombstones (KIP-534)."""
        return bool(self.attributes & DELETE_HORIZON)


@dataclass(frozen=True, slots=True)
class Record:
    """One record. Header names are kept as the bytes they were sent as, unless built from a `str`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str | bytes, bytes | None], ...] = ()


def read_header(buffer: bytes | memoryview, at: int = 0) -> BatchHeader:
    """The header at `at`. The batch itself may reach beyond the buffer, and its CRC is not looked at."""
    left = len(buffer) - at
    if left > _MAGIC_AT and buffer[at + _MAGIC_AT] != _MAGIC:
        raise BrokerError(
            ErrorCode.unsupported_for_message_format, f"record format v{buffer[at + _MAGIC_AT]}: only v2 is kept"
        )
    if left < HEADER_BYTES:
        raise BrokerError(ErrorCode.corrupt_message, f"{left} bytes are too few for the header of a record batch")
    offset, length, _, _, crc, attributes, delta, base_time, max_time, pid, epoch, sequence, count = (
        _HEADER.unpack_from(buffer, at)
    )
    size = length + LENGTH_BYTES
    if size < HEADER_BYTES or delta < 0 or not 0 <= count <= delta + 1:
        raise BrokerError(
            ErrorCode.corrupt_message, f"a record batch of {size} bytes with {count} records over {delta + 1} offsets"
        )
    return BatchHeader(offset, size, crc, attributes, delta, base_time, max_time, pid, epoch, sequence, count)


def check(buffer: bytes | memoryview, at: int, header: BatchHeader) -> None:
    """Refuses a batch that is cut short or whose CRC differs."""
    end = at + header.size
    if end > len(buffer):
        raise BrokerError(ErrorCode.corrupt_message, f"a record batch of {header.size} bytes is cut short")
    if crc32c(memoryview(buffer)[at + _CHECKED_AT : end]) != header.crc:
        raise BrokerError(ErrorCode.corrupt_message, "the checksum of a record batch is wrong")


def patched_header(
    header: BatchHeader, payload: bytes | memoryview, *, base_offset: int, log_append_time: int | None
) -> bytes:
    """The 61 bytes to store in front of the unchanged payload. Only log-append time changes what the CRC covers."""
    if log_append_time is None:
        return _header_bytes(header._replace(base_offset=base_offset))
    stamped = header._replace(
        base_offset=base_offset, attributes=header.attributes | LOG_APPEND_TIME, max_timestamp=log_append_time
    )
    return _header_bytes(_with_crc(stamped, payload))


def patched(batch: bytes | memoryview, *, base_offset: int, log_append_time: int | None) -> bytes:
    """The batch as it is stored: with its place in the log and, if so configured, the broker's time."""
    payload = memoryview(batch)[HEADER_BYTES:]
    header = read_header(batch)
    return patched_header(header, payload, base_offset=base_offset, log_append_time=log_append_time) + bytes(payload)


def assemble(header: BatchHeader, payload: bytes) -> bytes:
    """A batch of this payload; the header's size and CRC are worked out anew."""
    sized = header._replace(size=HEADER_BYTES + len(payload))
    return _header_bytes(_with_crc(sized, payload)) + payload


def build(
    records: Sequence[Record],
    *,
    base_offset: int = 0,
    timestamp_ms: int = NO_TIMESTAMP,
    producer_id: int = NO_PRODUCER,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes:
    """An uncompressed batch of these records at consecutive offsets, whatever their own offsets say.

    `timestamp_ms` is for records without one (timestamp -1).
    """
    times = [timestamp_ms if record.timestamp == NO_TIMESTAMP else record.timestamp for record in records]
    payload = b"".join(
        encode(record, offset_delta=i, timestamp_delta=times[i] - times[0]) for i, record in enumerate(records)
    )
    last, count = len(records) - 1, len(records)
    header = BatchHeader(
        base_offset, 0, 0, 0, last, times[0], max(times), producer_id, producer_epoch, base_sequence, count
    )
    return assemble(header, payload)


def encode(record: Record, *, offset_delta: int, timestamp_delta: int) -> bytes:
    """One record as it stands in an uncompressed payload."""
    body = [b"\0", varint(timestamp_delta), varint(offset_delta), _sized(record.key), _sized(record.value)]
    body.append(varint(len(record.headers)))
    for name, value in record.headers:
        body += (_sized(name.encode() if isinstance(name, str) else name), _sized(value))
    joined = b"".join(body)
    return varint(len(joined)) + joined


def varint(value: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _sized(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def _with_crc(header: BatchHeader, payload: bytes | memoryview) -> BatchHeader:
    return header._replace(crc=crc32c(payload, crc32c(_CHECKED.pack(*header[3:]))))


def _header_bytes(header: BatchHeader) -> bytes:
    offset, size, crc, *checked = header
    return _HEADER.pack(offset, size - LENGTH_BYTES, 0, _MAGIC, crc, *checked)
