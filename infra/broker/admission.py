"""What one partition's part of a produce request may be: pure checks, before anything is stored."""

from kio.schema.errors import ErrorCode

from infra.broker.batches import NO_PRODUCER, BatchHeader, check, read_header
from infra.broker.errors import BrokerError
from infra.broker.records import payload_of, spans_of

_LAST_CODEC = 4


def admitted(data: memoryview, *, max_message_bytes: int, compact: bool) -> list[tuple[int, BatchHeader]]:
    """Position and header of each batch; BrokerError if any of them can't be stored.

    The records themselves are looked at only where compaction will need their keys.
    """
    found: list[tuple[int, BatchHeader]] = []
    at = 0
    while at < len(data):
        header = read_header(data, at)
        check(data, at, header)
        _check_header(header, max_message_bytes)
        if compact:
            _check_keys(data[at : at + header.size], header)
        found.append((at, header))
        at += header.size
    if not found:
        raise BrokerError(ErrorCode.invalid_record, "no record batch")
    if len(found) > 1 and any(header.producer_id != NO_PRODUCER for _, header in found):
        raise BrokerError(ErrorCode.invalid_record, "an idempotent producer sends one batch a partition and request")
    return found


def _check_header(header: BatchHeader, max_message_bytes: int) -> None:
    if header.size > max_message_bytes:
        raise BrokerError(
            ErrorCode.message_too_large, f"a batch of {header.size} bytes: at most {max_message_bytes} are taken"
        )
    if header.count != header.last_offset_delta + 1:
        raise BrokerError(
            ErrorCode.invalid_record, f"{header.count} records over {header.last_offset_delta + 1} offsets"
        )
    if header.is_transactional or header.is_control:
        raise BrokerError(ErrorCode.invalid_record, "this broker has no transactions")
    if header.codec > _LAST_CODEC:
        raise BrokerError(ErrorCode.unsupported_compression_type, f"compression type {header.codec}")
    if header.producer_id != NO_PRODUCER and (header.producer_epoch < 0 or header.base_sequence < 0):
        raise BrokerError(
            ErrorCode.invalid_record, f"producer {header.producer_id} without an epoch or a sequence number"
        )


def _check_keys(batch: memoryview, header: BatchHeader) -> None:
    spans = spans_of(payload_of(batch, header), header.count)
    if any(span.key is None for span in spans):
        raise BrokerError(ErrorCode.invalid_record, "a record without a key: compaction needs one")
    if any(span.offset_delta != place for place, span in enumerate(spans)):
        raise BrokerError(ErrorCode.invalid_record, "records out of order within their batch")
