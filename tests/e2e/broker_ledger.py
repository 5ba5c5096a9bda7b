"""What was acknowledged and what was seen while the broker was killed, and what the log says about it afterwards."""

from __future__ import annotations

import threading
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import Message

PARTITIONS = 4
IDEMPOTENT, PLAIN = 3, 2
UNSEEN = -1


def identity(producer: int, number: int) -> int:
    """A record's name as one number."""
    return producer << 40 | number


def value_of(name: int) -> bytes:
    """What the record of that name holds; its length varies, so that batches end at odd places."""
    filler = zlib.crc32(name.to_bytes(8, "big"))
    return b"%d|%s" % (name, filler.to_bytes(4, "big") * (5 + filler % 80))


@dataclass
class Ledger:
    """What was acknowledged and what was seen; every method may be called from any thread."""

    seen: list[array[int]] = field(default_factory=lambda: [array("q") for _ in range(PARTITIONS)])
    acknowledged: list[array[int]] = field(default_factory=lambda: [array("q") for _ in range(PARTITIONS)])
    places: list[array[int]] = field(default_factory=lambda: [array("q") for _ in range(PARTITIONS)])
    commits: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    commits_acknowledged: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fault(self, kind: str, what: str) -> None:
        with self.lock:
            self.faults[kind] += 1
            if self.faults[kind] <= 5:
                self.examples.append(f"{kind}: {what}")

    def acknowledge(self, partition: int, offset: int, name: int) -> None:
        with self.lock:
            self.acknowledged[partition].append(name)
            self.places[partition].append(offset)

    def see(self, message: Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        value = message.value() or b""
        name = int(value.split(b"|", 1)[0] or 0)
        if value != value_of(name):
            self.fault("damaged", f"{partition}@{offset}")
        with self.lock:
            seen = self.seen[partition]
            if offset >= len(seen):
                seen.extend([UNSEEN] * (offset + 1 - len(seen)))
            if seen[offset] not in (UNSEEN, name):
                self.fault("reused", f"{partition}@{offset} held {seen[offset]:x} and then {name:x}")
            seen[offset] = name

    def committed(self, partition: int, offset: int, *, floor: int) -> None:
        """A committed offset, read or acknowledged; `floor` is what had been acknowledged before it was asked for."""
        with self.lock:
            if offset < floor:
                self.fault("backwards", f"partition {partition}: {floor} and then {offset}")
            self.commits[partition] = max(self.commits[partition], offset)


def reckon(log: list[dict[int, int]], ledger: Ledger) -> int:
    """Hold the log against the ledger; gives the number of records in it."""
    for partition, records in enumerate(log):
        stored = set(records.values())
        for name, offset in zip(ledger.acknowledged[partition], ledger.places[partition], strict=True):
            if name not in stored or (offset >= 0 and records.get(offset) != name):
                ledger.fault("lost", f"{name:x}, acknowledged at {partition}@{offset}")
        for offset, name in enumerate(ledger.seen[partition]):
            if name != UNSEEN and records.get(offset) != name:
                ledger.fault("reused", f"{partition}@{offset} held {name:x} when it was seen")
        check_order(partition, records, ledger)
    return sum(map(len, log))


def check_order(partition: int, records: dict[int, int], ledger: Ledger) -> None:
    last: dict[int, int] = {}
    known: set[int] = set()
    for offset in sorted(records):
        producer, number = records[offset] >> 40, records[offset] & (1 << 40) - 1
        again = records[offset] in known
        known.add(records[offset])
        if again and producer // PARTITIONS >= IDEMPOTENT:
            continue  # sent again by a producer that keeps no sequence: allowed
        if number <= last.get(producer, -1):
            ledger.fault("reordered", f"{partition}@{offset}: {number} of producer {producer} after {last[producer]}")
        last[producer] = max(number, last.get(producer, -1))
