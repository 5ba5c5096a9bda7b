"""Where the batches of a segment lie: one entry about every 4 KiB, found by offset, position or time.

An index can always be made again from its segment, so its file is written without care and read with suspicion. That of
the last segment is also a checkpoint: recovery need not walk what was durable when it was written.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from crc32c import crc32c

from infra.broker.batches import NO_TIMESTAMP
from infra.broker.disk import Disk, replace

INTERVAL_BYTES = 4096

_START = struct.Struct("=4sI")
_COUNTS = struct.Struct("=qqi")
_MAGIC = b"twi1"


def _numbers() -> "array[int]":
    return array("q")


@dataclass(slots=True, eq=False)
class Index:
    """Sorted columns. `stamps[i]` is the greatest timestamp from the start of the segment up to entry `i + 1`."""

    offsets: "array[int]" = field(default_factory=_numbers)
    positions: "array[int]" = field(default_factory=_numbers)
    stamps: "array[int]" = field(default_factory=_numbers)

    def add(self, offset: int, position: int, timestamp: int) -> None:
        """A batch was appended: base offset, place in the file, greatest timestamp."""
        if not self.positions or position - self.positions[-1] >= INTERVAL_BYTES:
            self.offsets.append(offset)
            self.positions.append(position)
            self.stamps.append(max(timestamp, self.max_timestamp))
        elif timestamp > self.stamps[-1]:
            self.stamps[-1] = timestamp

    @property
    def max_timestamp(self) -> int:
        return self.stamps[-1] if self.stamps else NO_TIMESTAMP

    def before_offset(self, offset: int) -> tuple[int, bool]:
        """Where some batch starts, at or a little before `offset`, and whether it is exactly there."""
        at = bisect_right(self.offsets, offset) - 1
        return (self.positions[at], self.offsets[at] == offset) if at >= 0 else (0, False)

    def before_position(self, position: int) -> int:
        """Where some batch starts, at or a little before `position`; 0 if there is none."""
        at = bisect_right(self.positions, position) - 1
        return self.positions[at] if at >= 0 else 0

    def before_time(self, timestamp: int) -> int | None:
        """A position from which the first batch with a timestamp this great is near; None if there is none."""
        at = bisect_left(self.stamps, timestamp)
        return self.positions[at] if at < len(self.positions) else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An index and how much of the segment it covers: bytes, and the offset after them.

    `producers` is a snapshot of that moment, for the last segment only.
    """

    index: Index
    covered: int
    next_offset: int
    producers: bytes = b""

    def to_bytes(self) -> bytes:
        index = self.index
        body = b"".join(
            (
                _COUNTS.pack(self.covered, self.next_offset, len(index.offsets)),
                index.offsets.tobytes(),
                index.positions.tobytes(),
                index.stamps.tobytes(),
                self.producers,
            )
        )
        return _START.pack(_MAGIC, crc32c(body)) + body

    def write(self, path: Path, disk: Disk) -> None:
        replace(path, self.to_bytes(), disk, durable=False)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """None where there is no file, or no sound one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < _START.size + _COUNTS.size:
        return None
    if _START.unpack_from(content) != (_MAGIC, crc32c(memoryview(content)[_START.size :])):
        return None
    covered, next_offset, count = _COUNTS.unpack_from(content, _START.size)
    at, width = _START.size + _COUNTS.size, 8 * count
    columns = [array("q", content[at + i * width : at + (i + 1) * width]) for i in range(3)]
    return Checkpoint(Index(*columns), covered, next_offset, content[at + 3 * width :])
