"""The settings of a topic: Kafka's names, what values they take, and what they mean to its logs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kio.schema.errors import ErrorCode

from infra.broker.errors import BrokerError
from infra.broker.log import LogConfig

MAX_LONG = 2**63 - 1
BOOLEAN, STRING, INT, LONG, DOUBLE, LIST = 1, 2, 3, 5, 6, 7
"""Kinds as DescribeConfigs numbers them."""
FROM_TOPIC, FROM_DEFAULT = 1, 5
"""Where a value comes from, likewise."""


@dataclass(frozen=True)
class Setting:
    """One setting; `accepts` tells whether a text is a value of it."""

    default: str
    kind: int
    accepts: Callable[[str], bool]
    what: str


def _whole(low: int, high: int = MAX_LONG) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        try:
            return low <= int(text) <= high
        except ValueError:
            return False

    return accepts


def _share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda text: text in values


def _policies(text: str) -> bool:
    parts = [part.strip() for part in text.split(",")]
    return bool(parts) and set(parts) <= {"delete", "compact"}


SETTINGS: Mapping[str, Setting] = {
    "cleanup.policy": Setting("delete", LIST, _policies, "drop old segments, keep the latest record of a key, or both"),
    "retention.ms": Setting("604800000", LONG, _whole(-1), "age at which a segment is deleted; -1 never"),
    "retention.bytes": Setting("-1", LONG, _whole(-1), "size of a partition beyond which old segments go; -1 never"),
    "segment.bytes": Setting("67108864", INT, _whole(1024, 2**31 - 1), "size at which a segment is closed"),
    "segment.ms": Setting("604800000", LONG, _whole(1), "age at which a segment is closed"),
    "max.message.bytes": Setting("1048588", INT, _whole(0, 2**31 - 1), "largest batch that is taken"),
    "message.timestamp.type": Setting(
        "CreateTime", STRING, _one_of("CreateTime", "LogAppendTime"), "the producer's time or the broker's"
    ),
    "min.cleanable.dirty.ratio": Setting("0.5", DOUBLE, _share, "share of uncompacted bytes that starts a compaction"),
    "min.compaction.lag.ms": Setting("0", LONG, _whole(0), "age below which a record is not compacted"),
    "max.compaction.lag.ms": Setting(str(MAX_LONG), LONG, _whole(1), "age at which a record is compacted anyway"),
    "delete.retention.ms": Setting("86400000", LONG, _whole(0), "how long a tombstone stays after a compaction"),
    "compression.type": Setting("producer", STRING, _one_of("producer"), "batches stay as their producer made them"),
    "min.insync.replicas": Setting("1", INT, _one_of("1"), "there is one node"),
}


def check(settings: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that were given a value; raises `BrokerError` (invalid_config)."""
    found = {name: value for name, value in settings.items() if value is not None}
    for name, value in found.items():
        if name not in SETTINGS:
            raise BrokerError(ErrorCode.invalid_config, f"unknown setting {name}; known are {', '.join(SETTINGS)}")
        if not SETTINGS[name].accepts(value):
            raise BrokerError(ErrorCode.invalid_config, f"{value!r} is no value of {name}: {SETTINGS[name].what}")
    return found


def value_of(settings: Mapping[str, str], name: str) -> str:
    """What was set, or the default."""
    return settings.get(name, SETTINGS[name].default)


def log_config(settings: Mapping[str, str]) -> LogConfig:
    """What the settings mean to a partition's log."""

    def number(name: str) -> int:
        return int(value_of(settings, name))

    policies = {part.strip() for part in value_of(settings, "cleanup.policy").split(",")}
    return LogConfig(
        segment_bytes=number("segment.bytes"),
        segment_ms=number("segment.ms"),
        retention_ms=number("retention.ms"),
        retention_bytes=number("retention.bytes"),
        compact="compact" in policies,
        delete="delete" in policies,
        min_cleanable_dirty_ratio=float(value_of(settings, "min.cleanable.dirty.ratio")),
        delete_retention_ms=number("delete.retention.ms"),
        min_compaction_lag_ms=number("min.compaction.lag.ms"),
        max_compaction_lag_ms=number("max.compaction.lag.ms"),
        max_message_bytes=number("max.message.bytes"),
        log_append_time=value_of(settings, "message.timestamp.type") == "LogAppendTime",
    )
