"""Committed offsets and group snapshots, as durable as the data: a log of their own, read once at the start.

    write -> the log (page cache) -> the flusher's sync -> the ledger, which fetches read -> the caller is told

Entries take effect in the ledger in the order of the log and only when they are on disk, so that nobody sees an offset
that a crash could take back. When the log is much larger than what it adds up to, all that counts is appended once
more and the log forgets what is before. The order of the entries matters, so the log must not be compacted by key.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.broker.batches import build, read_header
from infra.broker.errors import BrokerError
from infra.broker.flusher import Flusher
from infra.broker.ledger import Entry, Ledger, TopicGone, from_record, to_record
from infra.broker.log import LogConfig, PartitionLog
from infra.broker.records import records_of

_LOG = logging.getLogger(__name__)
SEGMENT_BYTES = 16 * 2**20
CHUNK_BYTES = 2**20
REWRITE_BYTES = 4 * 2**20
REWRITE_GROWTH = 4
CONFIG = LogConfig(segment_bytes=SEGMENT_BYTES, max_message_bytes=SEGMENT_BYTES, delete=False, retention_ms=-1)


def wall_ms() -> int:
    """The time of day, for what is kept over restarts."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class _Write:
    """Entries in the log that may not be on disk yet."""

    entries: tuple[Entry, ...]
    durable: "asyncio.Future[None]"


class OffsetStore:
    """Belongs to one event loop. `ledger` is what is durable: to be read, not written."""

    def __init__(
        self,
        log: PartitionLog,
        flusher: Flusher,
        *,
        now_ms: Callable[[], int] = wall_ms,
        rewrite_bytes: int = REWRITE_BYTES,
    ) -> None:
        self.ledger = Ledger()
        self._log, self._flusher, self._now_ms, self._rewrite_bytes = log, flusher, now_ms, rewrite_bytes
        self._writes: deque[_Write] = deque()
        self._tasks: set[asyncio.Task[bool]] = set()
        self._size = self._rewritten_size = 0
        self._rewriting = False
        for batch in _batches(log):
            self._size += len(batch)
            for record in records_of(batch):
                self.ledger.apply(from_record(record))

    @classmethod
    def open(cls, directory: Path, flusher: Flusher, *, now_ms: Callable[[], int] = wall_ms) -> "OffsetStore":
        """Reads all of it. Raises OSError."""
        return cls(PartitionLog.open(directory, CONFIG), flusher, now_ms=now_ms)

    def write(self, *entries: Entry) -> "asyncio.Task[bool]":
        """Appends the entries, all or none, before it returns; the task says whether they are on disk for good.

        The task is the store's, and goes on when whoever waits for it is cancelled (`asyncio.shield`).
        """
        task = asyncio.get_running_loop().create_task(self._settle(self._append(entries)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def is_being_written(self, group: str) -> bool:
        """Whether the ledger does not know the last word on this group yet."""
        entries = (entry for write in self._writes for entry in write.entries)
        return any(isinstance(entry, TopicGone) or entry.group == group for entry in entries)

    async def close(self) -> None:
        """When all that was written is settled."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self._log.close()

    def _append(self, entries: tuple[Entry, ...]) -> _Write | None:
        now_ms = self._now_ms()
        batch = build([to_record(entry, now_ms) for entry in entries])
        try:
            end = self._log.append(batch, now_ms=now_ms).last_offset + 1
        except BrokerError as error:
            _LOG.warning("groups and offsets can't be stored: %s", error)
            return None
        self._size += len(batch)
        write = _Write(entries, self._flusher.durable(self._log, end))
        self._writes.append(write)
        return write

    async def _settle(self, write: _Write | None) -> bool:
        if write is None:
            return False
        try:
            await write.durable
        except BrokerError as error:
            _LOG.warning("groups and offsets could not be made durable: %s", error)
            self._writes.remove(write)
            return False
        if write in self._writes:
            self._apply_up_to(write)
        await self._maybe_rewrite()
        return True

    def _apply_up_to(self, last: _Write) -> None:
        """What is before it in the log is durable, too."""
        while True:
            write = self._writes.popleft()
            for entry in write.entries:
                self.ledger.apply(entry)
            if write is last:
                return

    async def _maybe_rewrite(self) -> None:
        limit = max(self._rewrite_bytes, REWRITE_GROWTH * self._rewritten_size)
        if self._rewriting or self._size < limit:
            return
        self._rewriting = True
        try:
            await self._rewrite()
        except (BrokerError, OSError) as error:
            _LOG.warning("the groups' log stays as long as it is: %s", error)
            self._size = 0  # try again, but not at once
        finally:
            self._rewriting = False

    async def _rewrite(self) -> None:
        """Appends what everything adds up to, entries on their way included, then forgets all before."""
        latest = self.ledger.copy()
        for write in self._writes:
            for entry in write.entries:
                latest.apply(entry)
        now_ms, start, size = self._now_ms(), self._log.end_offset, 0
        for batch in _packed(latest.entries(), now_ms):
            self._log.append(batch, now_ms=now_ms)
            size += len(batch)
        self._size = self._rewritten_size = size
        await self._flusher.durable(self._log, self._log.end_offset)
        self._log.delete_before(start)


def _batches(log: PartitionLog) -> Iterator[memoryview]:
    """All batches of the log."""
    offset = log.log_start
    while data := log.read(offset, CHUNK_BYTES, minimum_one=True):
        view, at = memoryview(data), 0
        while at < len(view):
            header = read_header(view, at)
            yield view[at : at + header.size]
            at += header.size
            offset = header.last_offset + 1


def _packed(entries: Iterable[Entry], now_ms: int) -> Iterator[bytes]:
    """The entries in batches of bounded size."""
    records, size = [to_record(entry, now_ms) for entry in ()], 0
    for entry in entries:
        record = to_record(entry, now_ms)
        records.append(record)
        size += len(record.key or b"") + len(record.value or b"")
        if size >= CHUNK_BYTES:
            yield build(records)
            records, size = [], 0
    if records:
        yield build(records)
