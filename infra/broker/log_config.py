"""A topic's settings, as far as its logs heed them."""

from dataclasses import dataclass

DAY_MS = 24 * 3600 * 1000
FOREVER_MS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Named and meant as Kafka's. Times in milliseconds; -1 is no limit."""

    segment_bytes: int = 64 * 2**20
    segment_ms: int = 7 * DAY_MS
    retention_ms: int = 7 * DAY_MS
    retention_bytes: int = -1
    compact: bool = False
    delete: bool = True
    min_cleanable_dirty_ratio: float = 0.5
    delete_retention_ms: int = DAY_MS
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = FOREVER_MS
    max_message_bytes: int = 1048588
    log_append_time: bool = False
