"""One partition: a log of record batches that only grows, and forgets from its beginning.

    append -> page cache -> a Flusher's thread syncs -> high watermark -> readers, acknowledgements

A record can be read, and is acknowledged, only when it is on the disk: an offset that anybody has seen is never given
to another record, whatever crashes. The next offset is in the name and the batches of the last segment, so that it
survives the removal of everything else. All methods belong to one thread, the event loop's; only `Sync.run` is for
others.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kio.schema.errors import ErrorCode

from infra.broker.admission import admitted
from infra.broker.batches import HEADER_BYTES, NO_PRODUCER, NO_TIMESTAMP, BatchHeader, patched_header
from infra.broker.disk import DISK, AppendFile, Disk, remove, replace, sync_directory
from infra.broker.errors import BrokerError
from infra.broker.index import Checkpoint, Index
from infra.broker.log_config import LogConfig
from infra.broker.recovery import LOG_START, Recovered, recover, restore, segment_path, snapshot_path
from infra.broker.retention import expired
from infra.broker.segment import Segment
from infra.broker.times import first_since, latest_timestamp

__all__ = ["Appended", "LogConfig", "PartitionLog", "Sync"]

_LOG = logging.getLogger(__name__)
CHECKPOINT_BYTES = 16 * 2**20  # what recovery walks at most of a large last segment
_INDEXES_IN_MEMORY = 4  # of closed segments: as many consumers far behind as are served without loading


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the records are. `duplicate`: they were there already."""

    base_offset: int
    last_offset: int
    log_append_time: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """What becomes durable when `run` returns. A log that was cut back meanwhile is of another `generation`."""

    generation: int
    end_offset: int
    position: int
    file: AppendFile
    checkpoint: Checkpoint | None

    def run(self) -> None:
        """On any thread. Raises OSError."""
        self.file.sync()


class PartitionLog:
    """See the module. `generation` counts the times that records not yet durable were dropped after a failed sync."""

    def __init__(self, directory: Path, config: LogConfig, recovered: Recovered, disk: Disk) -> None:
        self.directory = directory
        self.config = config
        self.log_start = recovered.log_start
        self.end_offset = recovered.end_offset
        self.high_watermark = recovered.end_offset
        self.generation = 0
        self.closed = False
        self._disk = disk
        self._segments = recovered.segments
        self._producers = recovered.producers
        self._durable = self._active.size
        self._checkpointed = self._active.size
        self._active_since_ms = _begun_ms(self._active)
        self._damaged = False
        self._roll_begun = False
        self._warm: deque[Segment] = deque()
        self._callbacks: list[Callable[[], None]] = []

    @classmethod
    def open(cls, directory: Path, config: LogConfig, *, disk: Disk = DISK) -> "PartitionLog":
        """Makes the folder, or recovers what is in it. Raises OSError."""
        return cls(directory, config, recover(directory, disk), disk)

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def closed_segments(self) -> Sequence[tuple[Segment, int]]:
        """All but the one that is appended to, each with the offset at which the next one begins."""
        following = [segment.base for segment in self._segments[1:]]
        return list(zip(self._segments[:-1], following, strict=True))

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Called whenever the high watermark moves, unsynced records are lost, or the log is closed."""
        self._callbacks.append(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    # Appending

    def append(self, data: memoryview | bytes, *, now_ms: int) -> Appended:
        """Stores the batches of one request, all or none. They become readable when a `Flusher` has synced them."""
        view = memoryview(data)
        batches = admitted(view, max_message_bytes=self.config.max_message_bytes, compact=self.config.compact)
        self._must_be_sound()
        stored = self._stored_already(batches[0][1])
        if stored is not None:
            return stored
        self._make_room(len(view), now_ms)
        base_offset, stamp = self.end_offset, now_ms if self.config.log_append_time else None
        parts: list[bytes | memoryview] = []
        offset = base_offset
        for at, header in batches:
            payload = view[at + HEADER_BYTES : at + header.size]
            parts += (patched_header(header, payload, base_offset=offset, log_append_time=stamp), payload)
            offset += header.last_offset_delta + 1
        self._write(parts)
        for at, header in batches:
            self._note(header, at, now_ms, stamp)
        self._active.size += len(view)
        return Appended(base_offset, self.end_offset - 1, NO_TIMESTAMP if stamp is None else stamp, duplicate=False)

    def _stored_already(self, header: BatchHeader) -> Appended | None:
        if header.producer_id == NO_PRODUCER:
            return None
        noted = self._producers.check(header)
        if noted is None:
            return None
        time = noted.timestamp if self.config.log_append_time else NO_TIMESTAMP
        return Appended(noted.base_offset, noted.last_offset, time, duplicate=True)

    def _make_room(self, size: int, now_ms: int) -> None:
        if size > self.config.segment_bytes:
            raise BrokerError(
                ErrorCode.record_list_too_large, f"{size} bytes: a segment holds {self.config.segment_bytes}"
            )
        if self._roll_begun or self._active.size + size > self.config.segment_bytes:
            self.roll()
        if self._active.size == 0:
            self._active_since_ms = now_ms

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            self._file.write(parts, self._active.size)
        except OSError as error:
            self._damaged = True
            try:
                self._truncate(self._active.size)
            except OSError as second:
                _LOG.error("%s: a failed write can't be taken back yet: %s", self.directory, second)
            raise _storage_error(self.directory, error) from error

    def _truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._damaged = False

    def _note(self, header: BatchHeader, at: int, now_ms: int, stamp: int | None) -> None:
        timestamp = header.max_timestamp if stamp is None else stamp
        self._active.index.add(self.end_offset, self._active.size + at, timestamp)
        if header.producer_id != NO_PRODUCER:
            self._producers.note(header._replace(max_timestamp=timestamp), self.end_offset, now_ms)
        self.end_offset += header.last_offset_delta + 1

    # Durability

    def begin_sync(self) -> Sync | None:
        """What to sync next, on a thread; None if all is durable already."""
        if self.closed or self.high_watermark == self.end_offset:
            return None
        due = self._active.size - self._checkpointed >= CHECKPOINT_BYTES
        checkpoint = self._checkpoint() if due else None
        return Sync(self.generation, self.end_offset, self._active.size, self._file, checkpoint)

    def finish_sync(self, sync: Sync, error: OSError | None) -> None:
        """What came of it. After an error everything not yet durable is dropped: what a sync left behind is unknown."""
        if self.closed or sync.generation != self.generation:
            return
        if error is not None:
            self._cut_back(error)
        elif sync.end_offset > self.high_watermark:
            self._became_durable(sync.end_offset, sync.position)
            if sync.checkpoint is not None:
                self._write_checkpoint(sync.checkpoint)

    def _became_durable(self, end_offset: int, position: int) -> None:
        self._durable = position
        if end_offset > self.high_watermark:
            self.high_watermark = end_offset
            self._notify()

    def _cut_back(self, error: OSError) -> None:
        """Back to what is durable, and the producers with it. If even that fails, it is tried again at each append."""
        lost = self.end_offset - self.high_watermark
        _LOG.error("%s: %d records can't be synced and are dropped: %s", self.directory, lost, error)
        self.generation += 1
        self._damaged = True
        self.end_offset, self._active.size = self.high_watermark, self._durable
        try:
            self._restore()
        except OSError as second:
            _LOG.error("%s: can't be cut back yet: %s", self.directory, second)
        self._notify()

    def _restore(self) -> None:
        active = self._active
        self._file.cut(active.size)
        restored = restore(self._file, active.base, active.size, self._segments[:-1])
        if restored.end_offset != self.end_offset:
            raise OSError(f"{active.path}: is whole up to offset {restored.end_offset} only, not {self.end_offset}")
        self._producers = restored.producers
        self._segments[-1] = Segment(active.path, active.base, active.size, file=self._file, index=restored.index)
        self._damaged = False

    def _must_be_sound(self) -> None:
        if self.closed:
            raise BrokerError(ErrorCode.unknown_topic_or_partition, f"{self.directory.name} is closed")
        if self._damaged:
            try:
                if self.end_offset == self.high_watermark:
                    self._restore()
                else:
                    self._truncate(self._active.size)
            except OSError as error:
                raise _storage_error(self.directory, error) from error

    def _checkpoint(self) -> Checkpoint:
        index, active = self._active.index, self._active
        copy = Index(index.offsets[:], index.positions[:], index.stamps[:])
        return Checkpoint(copy, active.size, self.end_offset, self._producers.to_bytes())

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        try:
            checkpoint.write(self._active.index_path, self._disk)
            self._checkpointed = checkpoint.covered
        except OSError as error:
            _LOG.warning("%s: no checkpoint, recovery will take longer: %s", self.directory, error)

    # Rolling

    def maybe_roll(self, now_ms: int) -> None:
        """Begins a new segment if the last one is old enough, so that retention and compaction get at its records."""
        config = self.config
        age_ms = min(config.segment_ms, config.max_compaction_lag_ms) if config.compact else config.segment_ms
        if self._active.size and now_ms - self._active_since_ms >= age_ms >= 0:
            self.roll()

    def roll(self) -> None:
        """Everything so far becomes durable, and later appends go to a new file.

        The snapshot of the producers is durable before the new file is, and nothing is appended to the old one once the
        new one may exist: a roll that failed half-way must succeed first.
        """
        self._must_be_sound()
        active = self._active
        if active.size == 0:
            return
        try:
            self._file.sync()
        except OSError as error:
            self._cut_back(error)
            raise _storage_error(self.directory, error) from error
        self._became_durable(self.end_offset, active.size)
        try:
            replace(snapshot_path(self.directory, self.end_offset), self._producers.to_bytes(), self._disk)
            self._roll_begun = True
            file = AppendFile(segment_path(self.directory, self.end_offset), self._disk, create=True)
            _sync_or_close(self.directory, file)
        except OSError as error:
            raise _storage_error(self.directory, error) from error
        self._roll_begun = False
        active.seal(self.end_offset)
        self._warmed(active)
        self._segments.append(Segment(file.path, self.end_offset, 0, file=file, index=Index()))
        self._durable = self._checkpointed = 0
        snapshot_path(self.directory, active.base).unlink(missing_ok=True)

    # Reading

    def read(self, offset: int, max_bytes: int, *, minimum_one: bool) -> bytes:
        """Whole durable batches from the one that holds `offset`, from one segment; empty if there is none yet.

        `minimum_one` gives the first batch however large it is.
        """
        if not self.log_start <= offset <= self.end_offset:
            raise BrokerError(
                ErrorCode.offset_out_of_range, f"offset {offset} is not within {self.log_start}..{self.end_offset}"
            )
        if offset >= self.high_watermark:
            return b""
        try:
            for segment in self._segments_from(offset):
                data = segment.read(offset, max_bytes, limit=self._limit(segment), minimum_one=minimum_one)
                if data is not None:
                    return data
        except OSError as error:
            raise _storage_error(self.directory, error) from error
        return b""

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first durable record at or after the time."""
        try:
            for segment in self._segments_from(self.log_start):
                limit = self._limit(segment)
                found = first_since(segment, timestamp_ms, limit=limit, log_start=self.log_start)
                if found is not None:
                    return found
        except OSError as error:
            raise _storage_error(self.directory, error) from error
        return None

    def max_timestamp(self) -> tuple[int, int] | None:
        """Offset and timestamp of the first durable record that no other one is later than."""
        stamps = [latest_timestamp(segment, limit=self._limit(segment)) for segment in self._segments]
        latest = max(stamps)
        return None if latest == NO_TIMESTAMP else self.offset_at(latest)

    def _segments_from(self, offset: int) -> Iterator[Segment]:
        for segment in self._segments[self._segment_at(offset) :]:
            yield self._warmed(segment)

    def _segment_at(self, offset: int) -> int:
        return max(0, bisect_right(self._segments, offset, key=lambda segment: segment.base) - 1)

    def _limit(self, segment: Segment) -> int:
        return self._durable if segment.file is not None else segment.size

    def _warmed(self, segment: Segment) -> Segment:
        """Keeps the indexes that were used last, and lets the others go."""
        if segment.file is None and segment not in self._warm:
            self._warm.append(segment)
            if len(self._warm) > _INDEXES_IN_MEMORY:
                self._warm.popleft().forget_index()
        return segment

    # Forgetting

    def delete_before(self, offset: int) -> int:
        """Records below `offset` are gone for good when this returns the new start of the log (DeleteRecords)."""
        if not 0 <= offset <= self.high_watermark:
            raise BrokerError(
                ErrorCode.offset_out_of_range, f"offset {offset} is beyond the high watermark {self.high_watermark}"
            )
        if offset > self.log_start:
            try:
                replace(self.directory / LOG_START, str(offset).encode(), self._disk)
            except OSError as error:
                raise _storage_error(self.directory, error) from error
            self.log_start = offset
        if self.log_start == self.end_offset:
            self.roll()  # not a byte of what is gone may stay behind in the file that is written to
        self._drop(self._segment_at(self.log_start))
        return self.log_start

    def enforce_retention(self, now_ms: int) -> int:
        """Drops the oldest segments that are too old or too much, and says how many they were."""
        if not self.config.delete:
            return 0
        doomed = expired(self._segments, self.config, now_ms)
        if doomed == len(self._segments):
            self.roll()
        self._drop(doomed)
        self.log_start = max(self.log_start, self._segments[0].base)
        return doomed

    def expire_producers(self, now_ms: int, after_ms: int) -> int:
        """Forgets idempotent producers that have been silent for long."""
        return self._producers.expire(now_ms, after_ms)

    def replace_segments(self, old: Sequence[Segment], new: Segment) -> None:
        """Compaction has put one file in the place of these."""
        at = self._segments.index(old[0])
        assert self._segments[at : at + len(old)] == list(old)
        self._segments[at : at + len(old)] = [new]
        self._forget(old)

    def _drop(self, count: int) -> None:
        if count == 0:
            return
        dropped, self._segments = self._segments[:count], self._segments[count:]
        self._forget(dropped)
        remove(path for segment in dropped for path in (segment.index_path, segment.path))
        sync_directory(self.directory)

    def _forget(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            if segment in self._warm:
                self._warm.remove(segment)

    # The end

    def close(self, *, discard: bool = False) -> None:
        """Syncs what is left and keeps a checkpoint, unless the files are to be removed anyway (`discard`)."""
        if self.closed:
            return
        if not discard and not self._damaged:
            self._settle()
        self.closed = True
        self._file.close()
        self._notify()

    def _settle(self) -> None:
        try:
            self._file.sync()
        except OSError as error:
            _LOG.error("%s: not synced at the end: %s", self.directory, error)
            return
        self._became_durable(self.end_offset, self._active.size)
        if self._active.size > self._checkpointed:
            self._write_checkpoint(self._checkpoint())

    def _notify(self) -> None:
        for callback in tuple(self._callbacks):
            callback()

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    @property
    def _file(self) -> AppendFile:
        file = self._segments[-1].file
        assert file is not None
        return file


def _begun_ms(segment: Segment) -> int:
    """When the segment was begun, as well as it can be told from its first records."""
    modified_ms = segment.path.stat().st_mtime_ns // 1_000_000
    first = segment.index.stamps[0] if segment.index.stamps else NO_TIMESTAMP
    return first if 0 <= first < modified_ms else modified_ms


def _sync_or_close(directory: Path, file: AppendFile) -> None:
    try:
        sync_directory(directory)
    except OSError:
        file.close()
        raise


def _storage_error(directory: Path, error: OSError) -> BrokerError:
    return BrokerError(ErrorCode.kafka_storage_error, f"{directory.name}: {error}")
