"""Which record of a segment is the first at or after a time: by the index, the headers, and one batch's records."""

from infra.broker.batches import BatchHeader
from infra.broker.records import records_of
from infra.broker.segment import Segment


def first_since(segment: Segment, timestamp: int, *, limit: int, log_start: int) -> tuple[int, int] | None:
    """Its offset and timestamp. Only what lies below the position `limit` and from `log_start` on is looked at."""
    if segment.max_timestamp < timestamp:
        return None
    for header, batch in segment.batches_since(timestamp, limit=limit):
        if header.last_offset >= log_start:
            found = _first_in(header, batch, timestamp, log_start)
            if found is not None:
                return found
    return None


def latest_timestamp(segment: Segment, *, limit: int) -> int:
    """The greatest below the position `limit`."""
    if limit == segment.size:
        return segment.max_timestamp
    return max((header.max_timestamp for header in segment.headers(limit=limit)), default=-1)


def _first_in(header: BatchHeader, batch: bytes, timestamp: int, log_start: int) -> tuple[int, int] | None:
    if header.uses_log_append_time:
        return max(header.base_offset, log_start), header.max_timestamp
    for record in records_of(batch):
        if record.timestamp >= timestamp and record.offset >= log_start:
            return record.offset, record.timestamp
    return None
