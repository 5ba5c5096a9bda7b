"""Which of a log's segments are too old or too much: the oldest ones, up to the first that is neither."""

from collections.abc import Sequence

from infra.broker.batches import NO_TIMESTAMP
from infra.broker.log_config import LogConfig
from infra.broker.segment import Segment


def expired(segments: Sequence[Segment], config: LogConfig, now_ms: int) -> int:
    """How many to drop. All of them, the last one too, only if that one holds something."""
    limited = config.retention_bytes >= 0
    excess = sum(segment.size for segment in segments) - config.retention_bytes
    for place, segment in enumerate(segments):
        excess -= segment.size
        if segment.file is not None and segment.size == 0:
            return place
        if not (limited and excess >= 0) and not _too_old(segment, config.retention_ms, now_ms):
            return place
    return len(segments)


def _too_old(segment: Segment, retention_ms: int, now_ms: int) -> bool:
    if retention_ms < 0:
        return False
    latest = segment.max_timestamp
    if latest == NO_TIMESTAMP:
        latest = segment.path.stat().st_mtime_ns // 1_000_000
    return now_ms - latest > retention_ms
