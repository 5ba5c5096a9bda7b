"""The spool: what is to be sent, on disk, so that it outlives the process.

Each process writes to a journal of its own and adopts the journals of processes that have ended: at the start, and
whenever it has nothing to send. What was adopted is older and goes first. The spool is bounded in bytes; the oldest
segment makes room for the newest event.

What survives what: an event is handed to the kernel before the call that made it returns, so it survives the end of
the process, `kill -9` included. A crash of the whole machine may take the last seconds, unless `fsync` is asked for:
then the sending side has the disk confirm each batch before it sends it. The host's call never waits for the disk.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbwheel_client.errors import SpoolError
from thumbwheel_client.journal import Journal, Place, owners, pack

logger = logging.getLogger(__name__)

MOST_ADOPTED = 16
"""Journals held open at a time; where more lie there, they come when these are done."""
LARGEST_SEGMENT = 4 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """An event in the spool, and where it lies."""

    body: bytes
    journal: Journal
    place: Place


class Spool:
    """A folder of journals. Not thread-safe: its owner guards it."""

    def __init__(self, folder: Path, *, max_bytes: int, fsync: bool = False) -> None:
        """Adopts what lies there; raises `SpoolError` where the folder can't be used."""
        if sys.platform == "win32":
            raise SpoolError("the spool needs POSIX file locks, which Windows lacks: leave spool= out")
        self.folder = folder
        self.fsync = fsync
        self.damaged = 0
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(LARGEST_SEGMENT, max_bytes // 8))
        try:
            _private_folder(folder)
            self._own = Journal.created(folder)
        except OSError as error:
            raise SpoolError(
                f"can't use {folder} as a spool: {error.strerror}; name a folder that can be written"
            ) from error
        self._adopted: list[Journal] = []
        self.adopt()

    @property
    def waiting(self) -> int:
        """Events that are not settled."""
        return sum(journal.waiting for journal in self._journals())

    @property
    def size(self) -> int:
        """Bytes on disk of this process' journal and those it has adopted."""
        return sum(journal.size for journal in self._journals())

    def append(self, body: bytes) -> list[bytes]:
        """Keep an event; the events that it pushed out. Raises `OSError` where the disk takes no more."""
        line = pack(body)
        lost: list[bytes] = []
        while self.size + len(line) > self._max_bytes and (oldest := self._oldest()) is not None:
            lost += oldest.drop_oldest_segment()
        self._own.append(line, segment_bytes=self._segment_bytes)
        return lost

    def peek(self, *, events: int, size: int) -> list[Stored]:
        """The first events that are not settled, in order; damaged lines at the head are settled on the way."""
        found: list[Stored] = []
        for journal in self._journals():
            for line in journal.read(events=events - len(found), size=size):
                if line.body is not None:
                    found.append(Stored(line.body, journal, line.place))
                    size -= len(line.body)
                elif found:
                    return found  # settled once what is before it is
                else:
                    self._pass_over(journal, line.place)
            if len(found) >= events or size <= 0:
                break
        return found

    def settle(self, stored: Sequence[Stored]) -> None:
        """These are settled: the first ones that `peek` gave, in its order."""
        for event in stored:
            event.journal.settle(event.place)
        for journal in [j for j in self._adopted if j.waiting <= 0]:
            self._adopted.remove(journal)
            journal.release()

    def adopt(self) -> int:
        """Take over what ended processes have left; how many events that brought."""
        before = self.waiting
        held = {journal.owner for journal in self._journals()}
        try:
            for owner in owners(self.folder):
                if owner not in held and len(self._adopted) < MOST_ADOPTED:
                    self._adopt(owner)
        except OSError as error:
            logger.warning("can't look for what other processes have left in %s: %s", self.folder, error.strerror)
        self._adopted.sort(key=lambda journal: journal.owner)
        return self.waiting - before

    def sync(self) -> list[int]:
        """Descriptors to fsync before what was peeked is sent, and to close; none where `fsync` is off."""
        return [fd for journal in self._journals() for fd in journal.sync()] if self.fsync else []

    def close(self) -> None:
        """Let go of everything; what is not settled stays for the next start."""
        for journal in self._journals():
            with contextlib.suppress(OSError):
                journal.release()

    def abandon(self) -> None:
        """In a forked child: close the parent's files, and touch nothing."""
        for journal in self._journals():
            with contextlib.suppress(OSError):
                journal.abandon()

    def _journals(self) -> list[Journal]:
        return [*self._adopted, self._own]

    def _oldest(self) -> Journal | None:
        """The journal whose oldest segment goes first; its own last segment is being written to, and stays."""
        if self._adopted:
            return next((journal for journal in self._adopted if journal.segments), None) or self._own_if_long()
        return self._own_if_long()

    def _own_if_long(self) -> Journal | None:
        return self._own if self._own.segments > 1 else None

    def _adopt(self, owner: str) -> None:
        journal = Journal.adopted(self.folder, owner)
        if journal is None:
            return
        if journal.waiting:
            self._adopted.append(journal)
        else:
            journal.release()

    def _pass_over(self, journal: Journal, place: Place) -> None:
        self.damaged += 1
        logger.warning("a damaged line in the spool %s is passed over", self.folder)
        journal.settle(place)


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)  # what users wrote lies in there


def sync_all(descriptors: Sequence[int]) -> None:
    """Have the disk confirm what was written, and close the descriptors; raises `OSError`."""
    try:
        for fd in descriptors:
            os.fsync(fd)
    finally:
        for fd in descriptors:
            os.close(fd)
