"""One process' own part of the spool: segment files that are only appended to, and how far they are settled.

    <owner>.lock            locked (flock) for as long as the owner lives; its content is the position
    <owner>.00000001.jsonl  a segment: one JSON line an event, with a checksum

`owner` is a UUIDv7 later than those that lie there, so owners sort by the time at which they began. A crash in the
middle of a write leaves a torn last line, which has no newline and is passed over; a line whose checksum is wrong is
passed over too. Everything before the position is settled: recorded, refused or dropped. The position is one small
write into one page, which a killed process either made or didn't make; where it didn't, events are sent again, and
count once by their ids.
"""

import contextlib
import errno
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from thumbwheel_client.ids import uuid7

if sys.platform != "win32":  # where there is no spool, and the rest of the SDK works
    import fcntl

_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","event":(.*)\}', re.DOTALL)
_POSITION = re.compile(rb"(\d{8}) (\d{12}) ([0-9a-f]{8})\n")
_FILE = re.compile(r"([0-9a-f]{32})\.(lock|(\d{8})\.jsonl)")


class Place(NamedTuple):
    """Right after a line: the segment's number and the offset in bytes."""

    segment: int
    offset: int


class Line(NamedTuple):
    """A line of a journal, and the place after it. `body` is None where the checksum says that it is damaged."""

    place: Place
    body: bytes | None


@dataclass(slots=True)
class Segment:
    """An open segment file. `size` is in bytes, torn last line included."""

    number: int
    path: Path
    fd: int
    size: int


def pack(body: bytes) -> bytes:
    """A line of the journal; `body` is JSON without a line break."""
    return b'{"crc32":"%08x","event":%s}\n' % (zlib.crc32(body), body)


def unpack(line: bytes) -> bytes | None:
    """The body of a line without its line break; None where it is damaged."""
    match = _LINE.fullmatch(line)
    return match[2] if match and int(match[1], 16) == zlib.crc32(match[2]) else None


def owners(folder: Path) -> list[str]:
    """Everybody who has left something in the folder, or is at work there; the oldest first."""
    matches = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted({match[1] for match in matches if match})


class Journal:
    """The files of one owner, held under its lock. Not thread-safe; raises `OSError` as the file system does."""

    def __init__(self, folder: Path, owner: str, lock: int) -> None:
        """Takes over what lies there; `lock` is the locked file. See `created` and `adopted`."""
        self.owner = owner
        self._folder = folder
        self._lock = lock
        self._segments = [_opened(folder, owner, number) for number in _numbers(folder, owner)]
        self._position = self._read_position()
        self.waiting = sum(segment_data.count(b"\n") for segment_data in self._unsettled())
        self._forget_settled()

    @classmethod
    def created(cls, folder: Path) -> "Journal":
        """A new journal of this process' own, which sorts after all that are there, whatever the clock says."""
        while True:
            last = max((int(owner[:12], 16) for owner in owners(folder)), default=0)
            owner = uuid7(max(time.time_ns() // 1_000_000, last + 1)).hex
            lock = _locked(folder, owner, os.O_CREAT | os.O_EXCL)
            if lock is not None:
                return cls(folder, owner, lock)

    @classmethod
    def adopted(cls, folder: Path, owner: str) -> "Journal | None":
        """The journal of an owner that has ended; None while it lives, or somebody else has adopted it."""
        lock = _locked(folder, owner, os.O_CREAT)
        return None if lock is None else cls(folder, owner, lock)

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def segments(self) -> int:
        """How many segment files there are."""
        return len(self._segments)

    def append(self, line: bytes, *, segment_bytes: int) -> None:
        """Write a line at the end; a new segment is begun once the last has `segment_bytes`."""
        if not self._segments or self._segments[-1].size >= segment_bytes:
            self._begin_segment()
        segment = self._segments[-1]
        written = os.write(segment.fd, line)
        if written < len(line):  # the disk is full; had nothing fitted, the system would have said so
            self._undo(segment)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(segment.path))
        segment.size += written
        self.waiting += 1

    def read(self, *, events: int, size: int) -> list[Line]:
        """The first lines that are not settled: up to so many, and about so many bytes, but at least one."""
        found: list[Line] = []
        for segment in self._segments:
            offset = self._settled_in(segment)
            for line in _lines(segment, offset, size):
                offset += len(line) + 1
                size -= len(line) + 1
                found.append(Line(Place(segment.number, offset), unpack(line)))
                if len(found) >= events or size <= 0:
                    return found
        return found

    def settle(self, place: Place) -> None:
        """Everything up to `place` is settled, one line more than before. A place that is settled is passed over."""
        if place <= self._position or not any(s.number == place.segment for s in self._segments):
            return
        self._position = place
        self.waiting -= 1
        self._write_position()
        self._forget_settled()

    def drop_oldest_segment(self) -> list[bytes]:
        """Remove the oldest segment; what was still waiting in it."""
        segment = self._segments[0]
        data = next(iter(self._unsettled()), b"")
        lost = [body for line in data.split(b"\n")[:-1] if (body := unpack(line)) is not None]
        self.waiting -= data.count(b"\n")
        self._remove(segment)
        self._position = max(self._position, Place(segment.number, segment.size))
        self._write_position()
        return lost

    def sync(self) -> list[int]:
        """Duplicates of the descriptors that a caller may fsync and must close, without holding the journal."""
        return [os.dup(segment.fd) for segment in self._segments[-2:]]

    def release(self) -> None:
        """Give the journal up: its files stay for the next owner where something waits in them."""
        if self.waiting <= 0:
            for segment in list(self._segments):
                self._remove(segment)
            (self._folder / f"{self.owner}.lock").unlink(missing_ok=True)
        self.abandon()

    def abandon(self) -> None:
        """Close the files and no more. In a forked child this leaves the parent's lock as it is."""
        for segment in self._segments:
            os.close(segment.fd)
        self._segments = []
        os.close(self._lock)

    def _unsettled(self) -> Iterator[bytes]:
        """What of each segment is not settled."""
        for segment in self._segments:
            start = self._settled_in(segment)
            yield os.pread(segment.fd, max(segment.size - start, 0), start)

    def _settled_in(self, segment: Segment) -> int:
        if segment.number < self._position.segment:
            return segment.size
        return self._position.offset if segment.number == self._position.segment else 0

    def _begin_segment(self) -> None:
        number = max((s.number for s in self._segments), default=self._position.segment) + 1
        self._segments.append(_opened(self._folder, self.owner, number, os.O_CREAT | os.O_EXCL))

    def _undo(self, segment: Segment) -> None:
        """Take back half a line: on a full disk the next one would run into it."""
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError:
            self._begin_segment()  # the half line stays, and is passed over as a torn one

    def _forget_settled(self) -> None:
        """Remove the segments that are settled to the end, but for the last: it is written to."""
        while len(self._segments) > 1 and self._settled_in(self._segments[0]) >= self._segments[0].size:
            self._remove(self._segments[0])

    def _remove(self, segment: Segment) -> None:
        self._segments.remove(segment)
        os.close(segment.fd)
        segment.path.unlink(missing_ok=True)

    def _read_position(self) -> Place:
        match = _POSITION.fullmatch(os.pread(self._lock, 64, 0))
        if match is None or int(match[3], 16) != zlib.crc32(match[0][:21]):
            return Place(0, 0)
        return Place(int(match[1]), int(match[2]))

    def _write_position(self) -> None:
        text = b"%08d %012d" % self._position
        with contextlib.suppress(OSError):  # a position that is behind means that events are sent again, and count once
            os.pwrite(self._lock, b"%s %08x\n" % (text, zlib.crc32(text)), 0)


def _locked(folder: Path, owner: str, flags: int) -> int | None:
    """The owner's lock file, open and locked; None where somebody else holds it or has just removed it."""
    path = folder / f"{owner}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileExistsError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if os.fstat(fd).st_nlink == 0:  # whoever held it has finished with it and removed it
        os.close(fd)
        return None
    return fd


def _numbers(folder: Path, owner: str) -> list[int]:
    matches = (_FILE.fullmatch(path.name) for path in folder.glob(f"{owner}.*.jsonl"))
    return sorted(int(match[3]) for match in matches if match and match[3])


def _opened(folder: Path, owner: str, number: int, flags: int = 0) -> Segment:
    path = folder / f"{owner}.{number:08d}.jsonl"
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
    return Segment(number, path, fd, os.fstat(fd).st_size)


def _lines(segment: Segment, offset: int, size: int) -> list[bytes]:
    """The whole lines from `offset` on within about `size` bytes, at least one if there is one."""
    rest = segment.size - offset
    data = os.pread(segment.fd, min(max(size, 1), rest), offset) if rest > 0 else b""
    if b"\n" not in data:
        data = os.pread(segment.fd, rest, offset) if rest > 0 else b""
        data = data[: data.find(b"\n") + 1]
    return data.split(b"\n")[:-1]
