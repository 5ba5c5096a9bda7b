"""Compaction: of each key only the latest record stays, and a tombstone for a while after it has done its work.

    loop: which segments ....... thread: latest offset of each key of the dirty ones
    thread: a group of segments, from the oldest on, written anew as one ....... loop: takes their place

As in Kafka: offsets never change, the last segment is left alone, what was cleaned before is the clean part and is only
rid of keys that came again. A kept tombstone's batch is marked with the time until which it stays (KIP-534), so that a
consumer that starts at the beginning sees it. A batch that can't be read is kept as it is. Producers live in snapshots
of their own, so that, unlike Kafka, no empty batches are kept for their sake.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kio.schema.errors import ErrorCode

from infra.broker.batches import (
    DELETE_HORIZON,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    BatchHeader,
    assemble,
    read_header,
    varint,
)
from infra.broker.disk import DISK, Disk, replace, sync_directory
from infra.broker.errors import BrokerError
from infra.broker.index import Checkpoint, Index
from infra.broker.log import PartitionLog
from infra.broker.log_config import LogConfig
from infra.broker.records import Span, compress, payload_of, spans_of
from infra.broker.recovery import finish_swaps, swap_path
from infra.broker.segment import Segment, walk

_LOG = logging.getLogger(__name__)
CLEANED_TO = "cleaned-to"
MAX_KEYS = 2_000_000  # of the dirty part, at about 100 bytes each; the rest is left to the next time
_WRITE_BYTES = 2**20


Closed = tuple[Segment, int]  # with the offset at which the next segment begins


@dataclass(frozen=True, slots=True)
class Plan:
    """What to clean: `segments` from the oldest on, those that end beyond `first_dirty` for the first time."""

    segments: Sequence[Closed]
    first_dirty: int

    @property
    def dirty(self) -> Sequence[Closed]:
        return [(segment, end) for segment, end in self.segments if end > self.first_dirty]


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was done: bytes of the segments before and after."""

    before_bytes: int
    after_bytes: int


async def clean(log: PartitionLog, now_ms: int, *, max_keys: int = MAX_KEYS, disk: Disk = DISK) -> Cleaning | None:
    """Cleans the log if it is dirty enough, and says what came of it. Raises OSError; the log is as sound as before."""
    plan = planned(log, now_ms)
    if plan is None:
        return None
    before = after = 0
    try:
        latest, mapped_to = await asyncio.to_thread(latest_offsets, plan.dirty, max_keys)
        cleaner = _Cleaner(log.directory, latest, now_ms, now_ms + log.config.delete_retention_ms, disk)
        mapped = [(segment, end) for segment, end in plan.segments if end <= mapped_to]
        for group in _groups(mapped, log.config.segment_bytes):
            written = await asyncio.to_thread(cleaner.rewrite, [segment for segment, _ in group])
            if not _install(log, group, written):
                return None
            before += sum(segment.size for segment, _ in group)
            after += written.covered
    except FileNotFoundError:
        _LOG.info("%s: segments went away while they were cleaned", log.directory)
        return None
    replace(log.directory / CLEANED_TO, str(mapped_to).encode(), disk, durable=False)
    return Cleaning(before, after)


def planned(log: PartitionLog, now_ms: int) -> Plan | None:
    """The segments to clean, or None while too little of the log is dirty and nothing in it too old."""
    config = log.config
    if not config.compact or log.closed:
        return None
    first_dirty, lag_ms = _cleaned_to(log.directory), config.min_compaction_lag_ms
    ready: list[Closed] = []
    for segment, end in log.closed_segments():
        if end > first_dirty and lag_ms > 0 and now_ms - segment.max_timestamp < lag_ms:
            break
        ready.append((segment, end))
    plan = Plan(ready, first_dirty)
    return plan if plan.dirty and _worth_it(plan, config, now_ms) else None


def _worth_it(plan: Plan, config: LogConfig, now_ms: int) -> bool:
    total = sum(segment.size for segment, _ in plan.segments)
    ratio = sum(segment.size for segment, _ in plan.dirty) / total if total else 0.0
    oldest = min(segment.max_timestamp for segment, _ in plan.dirty)
    return ratio >= config.min_cleanable_dirty_ratio or now_ms - oldest > config.max_compaction_lag_ms


def latest_offsets(dirty: Sequence[Closed], max_keys: int) -> tuple[dict[bytes, int], int]:
    """The last offset of each key in these segments, and up to where that is true: whole segments, one at least."""
    latest: dict[bytes, int] = {}
    mapped_to = 0
    for segment, end in dirty:
        with segment.opened() as fd:
            for position, header in walk(fd, 0, segment.size):
                for span in _spans(os.pread(fd, header.size, position), header) or ():
                    if span.key is not None:
                        latest[span.key] = header.base_offset + span.offset_delta
        mapped_to = end
        if len(latest) >= max_keys:
            break
    return latest, mapped_to


def filtered(batch: bytes, header: BatchHeader, latest: Mapping[bytes, int], *, now_ms: int, horizon_ms: int) -> bytes:
    """The batch with only the records that stay: the same bytes if all do, nothing if none does."""
    spans = _spans(batch, header)
    if spans is None:
        return batch
    expired = header.has_delete_horizon and now_ms >= header.base_timestamp
    kept = [span for span in spans if _stays(span, header, latest, expired)]
    mark = not header.has_delete_horizon and any(span.value is None for span in kept)
    if not kept or (len(kept) == len(spans) and not mark):
        return batch if kept else b""
    payload = payload_of(batch, header)
    times = [header.base_timestamp + span.timestamp_delta for span in kept]
    changed = header._replace(count=len(kept))
    if not header.attributes & LOG_APPEND_TIME:
        changed = changed._replace(max_timestamp=max(times))
    if mark:
        changed = changed._replace(attributes=header.attributes | DELETE_HORIZON, base_timestamp=horizon_ms)
        records = b"".join(_rebased(payload, span, header.base_timestamp - horizon_ms) for span in kept)
    else:
        records = b"".join(payload[span.start : span.end] for span in kept)
    return assemble(changed, compress(records, header.codec))


@dataclass(frozen=True, slots=True)
class _Cleaner:
    """Writes segments anew, on a thread: it sees only closed files."""

    directory: Path
    latest: Mapping[bytes, int]
    now_ms: int
    horizon_ms: int
    disk: Disk

    def rewrite(self, group: Sequence[Segment]) -> Checkpoint:
        """One file of what stays of the group, synced, and its index."""
        path = _cleaned_path(self.directory, group[0].base)
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            written = self._copy(group, out)
            self.disk.sync(out)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(out)
        return written

    def _copy(self, group: Sequence[Segment], out: int) -> Checkpoint:
        index, position, next_offset = Index(), 0, group[0].base
        pending: list[bytes] = []
        pending_bytes = 0
        for segment in group:
            with segment.opened() as fd:
                for at, header in walk(fd, 0, segment.size):
                    batch = os.pread(fd, header.size, at)
                    kept = filtered(batch, header, self.latest, now_ms=self.now_ms, horizon_ms=self.horizon_ms)
                    if kept:
                        index.add(header.base_offset, position + pending_bytes, read_header(kept).max_timestamp)
                        pending.append(kept)
                        pending_bytes += len(kept)
                        next_offset = header.last_offset + 1
                    if pending_bytes >= _WRITE_BYTES:
                        self.disk.write(out, pending, position)
                        position, pending, pending_bytes = position + pending_bytes, [], 0
        self.disk.write(out, pending, position)
        return Checkpoint(index, position + pending_bytes, next_offset)


def _install(log: PartitionLog, group: Sequence[Closed], written: Checkpoint) -> bool:
    """On the loop. From the moment the `.swap` exists, recovery would finish this."""
    segments, first, end = [segment for segment, _ in group], group[0][0], group[-1][1]
    cleaned = _cleaned_path(log.directory, first.base)
    if log.closed or not {segment for segment, _ in log.closed_segments()}.issuperset(segments):
        cleaned.unlink(missing_ok=True)
        return False
    cleaned.replace(swap_path(log.directory, first.base, end))
    sync_directory(log.directory)
    finish_swaps(log.directory)
    new = Segment(first.path, first.base, written.covered, index=written.index)
    log.replace_segments(segments, new)
    new.keep(written)
    return True


def _groups(segments: Sequence[Closed], segment_bytes: int) -> list[list[Closed]]:
    """Neighbours that fit into one segment together, so that what was cleaned doesn't stay in ever more small files."""
    groups: list[list[Closed]] = []
    room = 0
    for segment, end in segments:
        if not groups or segment.size > room:
            groups.append([])
            room = segment_bytes
        groups[-1].append((segment, end))
        room -= segment.size
    return groups


def _stays(span: Span, header: BatchHeader, latest: Mapping[bytes, int], expired: bool) -> bool:
    if span.key is None or (span.value is None and expired):
        return False
    return header.base_offset + span.offset_delta >= latest.get(span.key, -1)


def _rebased(payload: bytes, span: Span, shift: int) -> bytes:
    """The record with its time told from another base: the varints before the key are written anew."""
    times = varint(span.timestamp_delta + shift) + varint(span.offset_delta)
    body = b"\0" + times + payload[span.key_at : span.end]
    return varint(len(body)) + body


def _spans(batch: bytes, header: BatchHeader) -> list[Span] | None:
    """None for a batch that can't be read, or is not ours to read."""
    if header.is_control or len(batch) < HEADER_BYTES:
        return None
    try:
        return spans_of(payload_of(batch, header), header.count)
    except BrokerError as error:
        level = logging.WARNING if error.code is ErrorCode.corrupt_message else logging.INFO
        _LOG.log(level, "a batch at offset %d is kept as it is: %s", header.base_offset, error)
        return None


def _cleaned_path(directory: Path, base: int) -> Path:
    return directory / f"{base:020d}.cleaned"


def _cleaned_to(directory: Path) -> int:
    try:
        return int((directory / CLEANED_TO).read_text())
    except (FileNotFoundError, ValueError):
        return 0
