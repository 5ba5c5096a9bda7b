"""The records within a batch, for the few who must look: compaction, offsets by time, the internal log.

Decompression is bounded: a few kilobytes that unpack to gigabytes are refused, whoever sent them.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import cramjam
from kio.schema.errors import ErrorCode

from infra.broker.batches import HEADER_BYTES, BatchHeader, Record, read_header
from infra.broker.errors import BrokerError

__all__ = ["MAX_PAYLOAD_BYTES", "Record", "Span", "compress", "payload_of", "records_of", "spans_of"]

MAX_PAYLOAD_BYTES = 64 * 2**20
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_LZ4_BLOCK_BYTES = 4 * 2**20
_LZ4_FRAME = bytes.fromhex("04224d18607073")  # version 1, independent blocks (Java insists) of at most 4 MiB; its check


class Span(NamedTuple):
    """Where a record lies in its payload, and what compaction wants to know of it."""

    start: int
    end: int
    timestamp_delta: int
    offset_delta: int
    key_at: int
    key: bytes | None
    value: bytes | None
    headers_at: int


def records_of(batch: bytes | memoryview, *, limit: int = MAX_PAYLOAD_BYTES) -> list[Record]:
    """The records of one whole batch, with their offsets and times."""
    header = read_header(batch)
    payload = payload_of(batch, header, limit=limit)
    return [
        Record(
            header.base_offset + span.offset_delta,
            header.max_timestamp if header.uses_log_append_time else header.base_timestamp + span.timestamp_delta,
            span.key,
            span.value,
            _headers(payload, span),
        )
        for span in spans_of(payload, header.count)
    ]


def payload_of(batch: bytes | memoryview, header: BatchHeader, *, limit: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The records of a batch as bytes, unpacked, `limit` of them at most."""
    packed = bytes(memoryview(batch)[HEADER_BYTES : header.size])
    try:
        unpack = _UNPACK[header.codec]
    except KeyError:
        raise BrokerError(ErrorCode.unsupported_compression_type, f"compression type {header.codec}") from None
    try:
        return unpack(packed, limit)
    except (cramjam.DecompressionError, zlib.error, IndexError) as error:
        raise _corrupt(f"records that can't be decompressed: {error}") from error


def spans_of(payload: bytes, count: int) -> list[Span]:
    """The records of an unpacked payload, which must hold exactly `count` of them."""
    spans: list[Span] = []
    at = 0
    for _ in range(count):
        span = _span(payload, at)
        spans.append(span)
        at = span.end
    if at != len(payload):
        raise _corrupt(f"{len(payload) - at} bytes after the last of {count} records")
    return spans


def compress(payload: bytes, codec: int) -> bytes:
    """The payload packed as clients of every kind can read it."""
    match codec:
        case 0:
            return payload
        case 1:
            packer = zlib.compressobj(wbits=31)
            return packer.compress(payload) + packer.flush()
        case 2:
            return bytes(cramjam.snappy.compress_raw(payload))
        case 3:
            return _to_lz4(payload)
        case 4:
            return bytes(cramjam.zstd.compress(payload))
        case _:
            raise BrokerError(ErrorCode.unsupported_compression_type, f"compression type {codec}")


def _span(data: bytes, start: int) -> Span:
    length, at = _varint(data, start)
    end = at + length
    if length < 0 or end > len(data):
        raise _corrupt("a record reaches beyond its batch")
    timestamp_delta, at = _varint(data, at + 1)
    offset_delta, key_at = _varint(data, at)
    key, at = _bytes(data, key_at, end)
    value, at = _bytes(data, at, end)
    if at >= end:
        raise _corrupt("a record without a count of headers")
    return Span(start, end, timestamp_delta, offset_delta, key_at, key, value, at)


def _headers(data: bytes, span: Span) -> tuple[tuple[bytes, bytes | None], ...]:
    if data[span.headers_at] == 0:
        return ()
    count, at = _varint(data, span.headers_at)
    headers: list[tuple[bytes, bytes | None]] = []
    while len(headers) < count:
        if at >= span.end:
            raise _corrupt("a record with fewer headers than it says")
        name, at = _bytes(data, at, span.end)
        value, at = _bytes(data, at, span.end)
        headers.append((name or b"", value))
    return tuple(headers)


def _bytes(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length == -1:
        return None, at
    if length < 0 or at + length > end:
        raise _corrupt("a field reaches beyond its record")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        byte = data[at]
        if byte < 0x80:
            return (byte >> 1) ^ -(byte & 1), at + 1
        value, shift = byte & 0x7F, 7
        while shift <= 63:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1), at + 1
            shift += 7
    except IndexError:
        raise _corrupt("a record reaches beyond its batch") from None
    raise _corrupt("a number of more than 64 bits")


def _from_none(packed: bytes, limit: int) -> bytes:
    del limit  # what is not packed can't grow
    return packed


def _from_gzip(packed: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    while packed:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(packed, limit + 1))
        limit -= len(parts[-1])
        if limit < 0:
            raise _bomb()
        if not member.eof:
            raise _corrupt("compressed records that end too early")
        packed = member.unused_data
    return b"".join(parts)


def _from_snappy(packed: bytes, limit: int) -> bytes:
    """Either one raw block or, as the Java client writes it, xerial's frame of several."""
    if not packed.startswith(_XERIAL):
        return _snappy_block(packed, limit)
    parts: list[bytes] = []
    at = _XERIAL_HEADER_BYTES
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "big")
        parts.append(_snappy_block(packed[at + 4 : at + 4 + size], limit))
        limit -= len(parts[-1])
        at += 4 + size
    return b"".join(parts)


def _snappy_block(block: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > limit:
        raise _bomb()
    return bytes(cramjam.snappy.decompress_raw(block))


def _from_lz4(packed: bytes, limit: int) -> bytes:
    return _growing(cramjam.lz4.decompress_into, packed, limit)


def _from_zstd(packed: bytes, limit: int) -> bytes:
    return _growing(cramjam.zstd.decompress_into, packed, limit)


def _growing(decompress_into: Callable[[bytes, bytearray], int], packed: bytes, limit: int) -> bytes:
    """Tries larger and larger buffers: these formats need not say how much they hold, and `limit` is rarely needed."""
    room = min(limit, max(2**16, 8 * len(packed)))
    while True:
        buffer = bytearray(room)
        try:
            return bytes(memoryview(buffer)[: decompress_into(packed, buffer)])
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if room == limit:
                raise _bomb() from None
            room = min(limit, 8 * room)


def _to_lz4(payload: bytes) -> bytes:
    parts = [_LZ4_FRAME]
    for at in range(0, len(payload), _LZ4_BLOCK_BYTES):
        plain = payload[at : at + _LZ4_BLOCK_BYTES]
        block = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        if len(block) < len(plain):
            parts += (len(block).to_bytes(4, "little"), block)
        else:
            parts += ((len(plain) | 0x80000000).to_bytes(4, "little"), plain)
    return b"".join([*parts, bytes(4)])


def _corrupt(message: str) -> BrokerError:
    return BrokerError(ErrorCode.corrupt_message, message)


def _bomb() -> BrokerError:
    return BrokerError(ErrorCode.message_too_large, "compressed records unpack to more than the broker will hold")


_UNPACK: dict[int, Callable[[bytes, int], bytes]] = {
    NONE: _from_none,
    GZIP: _from_gzip,
    SNAPPY: _from_snappy,
    LZ4: _from_lz4,
    ZSTD: _from_zstd,
}
