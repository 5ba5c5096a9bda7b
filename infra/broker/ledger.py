"""What is known of groups on disk: entries, how they are written as records, and what they add up to."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from infra.broker.batches import Record
from infra.broker.group_messages import Committed, TopicPartition
from infra.broker.groups import StoredGroup


@dataclass(frozen=True, slots=True)
class OffsetSet:
    """An offset was committed, or deleted (None)."""

    group: str
    partition: TopicPartition
    committed: Committed | None


@dataclass(frozen=True, slots=True)
class GroupSet:
    """A group is as in this snapshot, or is gone with all its offsets (None)."""

    group: str
    stored: StoredGroup | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class TopicGone:
    """A topic was deleted: nobody has offsets of it any more."""

    topic: str


Entry = OffsetSet | GroupSet | TopicGone


class Snapshot(NamedTuple):
    """A group's last snapshot, and when it was taken."""

    stored: StoredGroup
    at_ms: int


@dataclass(slots=True)
class Ledger:
    """All committed offsets and group snapshots, as the entries so far leave them."""

    offsets: dict[str, dict[TopicPartition, Committed]] = field(
        default_factory=dict[str, dict[TopicPartition, Committed]]
    )
    groups: dict[str, Snapshot] = field(default_factory=dict[str, Snapshot])

    def apply(self, entry: Entry) -> None:
        if isinstance(entry, OffsetSet):
            self._set_offset(entry)
        elif isinstance(entry, TopicGone):
            for group, offsets in list(self.offsets.items()):
                for partition in [p for p in offsets if p.topic == entry.topic]:
                    self._set_offset(OffsetSet(group, partition, None))
        elif entry.stored is None:
            self.groups.pop(entry.group, None)
            self.offsets.pop(entry.group, None)
        else:
            self.groups[entry.group] = Snapshot(entry.stored, entry.at_ms)

    def entries(self) -> Iterator[Entry]:
        """The fewest entries that add up to the same."""
        for group, (stored, at_ms) in self.groups.items():
            yield GroupSet(group, stored, at_ms)
        for group, offsets in self.offsets.items():
            for partition, committed in offsets.items():
                yield OffsetSet(group, partition, committed)

    def copy(self) -> "Ledger":
        return Ledger({group: dict(offsets) for group, offsets in self.offsets.items()}, dict(self.groups))

    def _set_offset(self, entry: OffsetSet) -> None:
        if entry.committed is not None:
            self.offsets.setdefault(entry.group, {})[entry.partition] = entry.committed
            return
        offsets = self.offsets.get(entry.group, {})
        offsets.pop(entry.partition, None)
        if not offsets:
            self.offsets.pop(entry.group, None)


def to_record(entry: Entry, now_ms: int) -> Record:
    """The entry as a record: its kind and what it is about in the key, JSON in both."""
    if isinstance(entry, OffsetSet):
        key, it = ["offset", entry.group, *entry.partition], entry.committed
        value = None if it is None else [it.offset, it.leader_epoch, it.metadata, it.at_ms]
    elif isinstance(entry, GroupSet):
        key, value = ["group", entry.group], None if entry.stored is None else [entry.at_ms, entry.stored]
    else:
        key, value = ["topic", entry.topic], None
    return Record(0, now_ms, _json(key), None if value is None else _json(value))


def from_record(record: Record) -> Entry:
    """Raises ValueError for what this version did not write."""
    key: Any = json.loads(record.key or b"null")
    value: Any = None if record.value is None else json.loads(record.value)
    match key:
        case ["offset", group, topic, partition]:
            return OffsetSet(group, TopicPartition(topic, partition), None if value is None else Committed(*value))
        case ["group", group]:
            at_ms, stored = (record.timestamp, None) if value is None else value
            return GroupSet(group, stored, at_ms)
        case ["topic", topic]:
            return TopicGone(topic)
        case _:
            raise ValueError(f"record {record.offset} of the groups' log is of an unknown kind: {record.key!r}")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
