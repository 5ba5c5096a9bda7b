"""One file of record batches, named by the offset of the first: read by offset, by time, or batch by batch.

Only the last segment of a log is open all the time. The others are opened for each read, which costs microseconds, so
that a large log needs no more file descriptors than a small one; their indexes are loaded when first asked for.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kio.schema.errors import ErrorCode

from infra.broker.batches import HEADER_BYTES, BatchHeader, check, read_header
from infra.broker.disk import DISK, AppendFile
from infra.broker.errors import BrokerError
from infra.broker.index import INTERVAL_BYTES, Checkpoint, Index, read_checkpoint

_LOG = logging.getLogger(__name__)
_NEAR_BYTES = INTERVAL_BYTES + HEADER_BYTES  # the headers between two entries of the index
_CHUNK_BYTES = 2**16
_VERIFIED_CHUNK_BYTES = 2**20


class Segment:
    """A file of batches. `size` is how much of it there is, for the last segment how much is written."""

    def __init__(
        self, path: Path, base: int, size: int, *, file: AppendFile | None = None, index: Index | None = None
    ) -> None:
        self.path = path
        self.base = base
        self.size = size
        self.file = file
        self._index = index
        self._max_timestamp: int | None = None

    def __repr__(self) -> str:
        return f"Segment({self.path.name}, {self.size} bytes)"

    @property
    def index_path(self) -> Path:
        return self.path.with_suffix(".index")

    @property
    def index(self) -> Index:
        """Loaded, or made from the batches' headers, when it is not in memory."""
        if self._index is None:
            self._index = self._loaded()
        return self._index

    @property
    def max_timestamp(self) -> int:
        """The greatest of all records. Known without the index once a closed segment was asked."""
        if self.file is not None:
            return self.index.max_timestamp
        if self._max_timestamp is None:
            self._max_timestamp = (self._index or self._loaded()).max_timestamp
        return self._max_timestamp

    def forget_index(self) -> None:
        assert self.file is None, "the last segment's index exists in memory only"
        self._index = None

    def seal(self, next_offset: int) -> None:
        """No more is appended, and all is durable: closes the file and keeps the index beside it."""
        assert self.file is not None
        self.file.close()
        self.file = None
        self.keep(Checkpoint(self.index, self.size, next_offset))

    def read(self, offset: int, max_bytes: int, *, limit: int, minimum_one: bool) -> bytes | None:
        """Whole batches below the position `limit`, from the one that holds `offset`, or else the next one.

        None if there is no such batch here; empty if it is larger than `max_bytes` and `minimum_one` is not asked for.
        The end is taken from the index, not searched for, so that up to 4 KiB less than possible may be given.
        """
        with self.opened() as fd:
            start = self._find(fd, offset, limit)
            if start is None:
                return None
            end = min(limit, start + max_bytes)
            if end < limit:
                end = self.index.before_position(end)
            if end <= start:
                end = _few(fd, start, limit, max_bytes, minimum_one)
            return os.pread(fd, end - start, start)

    def batches_since(self, timestamp: int, *, limit: int) -> Iterator[tuple[BatchHeader, bytes]]:
        """The batches that hold something at or after the time, in order of offsets."""
        start = self.index.before_time(timestamp)
        if start is None:
            return
        with self.opened() as fd:
            for position, header in walk(fd, start, limit):
                if header.max_timestamp >= timestamp:
                    yield header, os.pread(fd, header.size, position)

    def headers(self, *, limit: int) -> Iterator[BatchHeader]:
        with self.opened() as fd:
            for _, header in walk(fd, 0, limit):
                yield header

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor to read by; the file may be removed or replaced meanwhile."""
        if self.file is not None:
            yield self.file.fd
            return
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _find(self, fd: int, offset: int, limit: int) -> int | None:
        start, exact = self.index.before_offset(offset)
        if exact:
            return start if start < limit else None
        for position, header in walk(fd, start, limit, chunk=_NEAR_BYTES):
            if header.last_offset >= offset:
                return position
        return None

    def _loaded(self) -> Index:
        kept = read_checkpoint(self.index_path)
        return kept.index if kept is not None and kept.covered == self.size else self._rebuilt()

    def _rebuilt(self) -> Index:
        index, next_offset = Index(), self.base
        try:
            with self.opened() as fd:
                for position, header in walk(fd, 0, self.size):
                    index.add(header.base_offset, position, header.max_timestamp)
                    next_offset = header.last_offset + 1
        except BrokerError as error:
            _LOG.error("%s: damaged after offset %d, and unreadable from there: %s", self.path, next_offset, error)
        self.keep(Checkpoint(index, self.size, next_offset))
        return index

    def keep(self, checkpoint: Checkpoint) -> None:
        """Writes the index file. It can do without."""
        try:
            checkpoint.write(self.index_path, DISK)
        except OSError as error:
            _LOG.warning("%s: not written, and made again when it is needed: %s", self.index_path, error)


def walk(
    fd: int, start: int, end: int, *, chunk: int = _CHUNK_BYTES, verified: bool = False
) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of each batch in a part of a file, `verified`: after its CRC was found right.

    Raises BrokerError at the first that is not sound or reaches beyond `end`. Reads a chunk at a time, not a batch:
    small batches are many.
    """
    window, begin = b"", start
    chunk = max(chunk, _VERIFIED_CHUNK_BYTES) if verified else chunk
    position = start
    while position < end:
        if position + HEADER_BYTES > begin + len(window):
            window, begin = os.pread(fd, min(chunk, end - position), position), position
        header = read_header(window, position - begin)
        if position + header.size > end:
            raise BrokerError(ErrorCode.corrupt_message, f"a batch at position {position} reaches beyond {end}")
        if verified:
            if position + header.size > begin + len(window):
                window, begin = os.pread(fd, min(max(chunk, header.size), end - position), position), position
            check(window, position - begin, header)
        yield position, header
        position += header.size


def _few(fd: int, start: int, limit: int, max_bytes: int, minimum_one: bool) -> int:
    """Where to end a read of less than the index resolves: found by walking the batches."""
    end = start
    for position, header in walk(fd, start, limit, chunk=_NEAR_BYTES):
        following = position + header.size
        if following - start > max_bytes and (end > start or not minimum_one):
            break
        end = following
    return end
