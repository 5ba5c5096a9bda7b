"""What a partition's folder holds, after a clean stop as after a crash.

    00000000000000000000.log        batches from offset 0 on; the last of these files is the one appended to
    00000000000000000000.index      where they lie (of the last one: as of some moment, with the producers of then)
    00000000000000812344.snapshot   the idempotent producers when the last file was begun
    log-start                       the first offset that DeleteRecords left
    cleaned-to                      up to where compaction has been
    *.cleaned, *.tmp                half written when the power went: dropped
    B-E.swap                        a cleaned segment that takes the place of those with bases from B to below E

Everything before the last file was made durable before that file was begun. So only the last one is walked, from its
checkpoint on, and cut at the first batch that is not whole. What is older is listed, no more.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.broker.batches import NO_PRODUCER
from infra.broker.disk import AppendFile, Disk, remove, sync_directory
from infra.broker.errors import BrokerError
from infra.broker.index import Index, read_checkpoint
from infra.broker.producers import Producers
from infra.broker.segment import Segment, walk

_LOG = logging.getLogger(__name__)
LOG_START = "log-start"


@dataclass(frozen=True, slots=True)
class Recovered:
    """The segments, the last one open, and what follows from their batches."""

    segments: list[Segment]
    producers: Producers
    log_start: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What the last segment's batches tell: up to `size` they are whole. `known`: what a checkpoint vouched for."""

    index: Index
    producers: Producers
    end_offset: int
    size: int
    known: int


def segment_path(directory: Path, base: int) -> Path:
    return directory / f"{base:020d}.log"


def snapshot_path(directory: Path, base: int) -> Path:
    return directory / f"{base:020d}.snapshot"


def swap_path(directory: Path, base: int, end: int) -> Path:
    return directory / f"{base:020d}-{end:020d}.swap"


def recover(directory: Path, disk: Disk) -> Recovered:
    """Opens the folder, or makes it. Raises OSError."""
    if not directory.exists():
        directory.mkdir(parents=True)
        sync_directory(directory.parent)
    finish_swaps(directory)
    bases = _tidied(directory)
    if not bases:
        AppendFile(segment_path(directory, 0), disk, create=True).close()
        sync_directory(directory)
        bases = [0]
    closed = [_closed(directory, base) for base in bases[:-1]]
    file = AppendFile(segment_path(directory, bases[-1]), disk)
    size = os.fstat(file.fd).st_size
    last = restore(file, bases[-1], size, closed)
    if last.size < size:
        _LOG.warning("%s: %d bytes after offset %d are not whole: cut", file.path, size - last.size, last.end_offset)
    if size > last.known:
        file.cut(last.size)
    active = Segment(file.path, bases[-1], last.size, file=file, index=last.index)
    start = max(_log_start(directory), bases[0])
    return Recovered([*closed, active], last.producers, min(start, last.end_offset), last.end_offset)


def restore(file: AppendFile, base: int, size: int, closed: Iterable[Segment]) -> Restored:
    """Walks the last segment from its checkpoint, up to the first batch that is torn or out of place."""
    kept = read_checkpoint(file.path.with_suffix(".index"))
    if kept is not None and kept.covered <= size and kept.producers:
        index, known, end_offset = kept.index, kept.covered, kept.next_offset
        producers = Producers.from_bytes(kept.producers)
    else:
        index, known, end_offset = Index(), 0, base
        producers = _producers_at(file.path.parent, base, closed)
    now_ms = os.fstat(file.fd).st_mtime_ns // 1_000_000
    whole = known
    try:
        for position, header in walk(file.fd, known, size, verified=True):
            if header.base_offset != end_offset:
                break
            index.add(header.base_offset, position, header.max_timestamp)
            if header.producer_id != NO_PRODUCER:
                producers.note(header, header.base_offset, now_ms)
            whole, end_offset = position + header.size, header.last_offset + 1
    except BrokerError as error:
        _LOG.info("%s: ends at offset %d: %s", file.path, end_offset, error)
    return Restored(index, producers, end_offset, whole, known)


def finish_swaps(directory: Path) -> None:
    """A cleaned segment that is complete takes its place. In this order: after a crash it is simply done again."""
    for swap in sorted(directory.glob("*.swap")):
        first, end = map(int, swap.stem.split("-"))
        target = segment_path(directory, first)
        replaced = [path for path in directory.glob("*.log") if first <= int(path.stem) < end]
        remove(path.with_suffix(".index") for path in replaced)
        remove(path for path in replaced if path != target)
        sync_directory(directory)
        swap.replace(target)
        sync_directory(directory)


def _closed(directory: Path, base: int) -> Segment:
    path = segment_path(directory, base)
    return Segment(path, base, path.stat().st_size)


def _tidied(directory: Path) -> list[int]:
    """The bases of all segments, in order. What belongs to none of them is removed."""
    names = [Path(entry.name) for entry in os.scandir(directory)]
    bases = sorted(int(name.stem) for name in names if name.suffix == ".log")
    known = {f"{base:020d}" for base in bases}
    last = f"{bases[-1]:020d}" if bases else ""
    for name in names:
        orphan = name.suffix == ".index" and name.stem not in known
        outdated = name.suffix == ".snapshot" and name.stem != last
        if orphan or outdated or name.suffix in {".cleaned", ".tmp"}:
            (directory / name).unlink()
    return bases


def _producers_at(directory: Path, base: int, closed: Iterable[Segment]) -> Producers:
    """From the snapshot of the last roll; without one from the headers of all that is there."""
    try:
        return Producers.from_bytes(snapshot_path(directory, base).read_bytes())
    except FileNotFoundError:
        pass
    except ValueError as error:
        _LOG.warning("%s: %s: producers are found by their batches", snapshot_path(directory, base), error)
    producers = Producers()
    for segment in closed:
        now_ms = segment.path.stat().st_mtime_ns // 1_000_000
        for header in segment.headers(limit=segment.size):
            if header.producer_id != NO_PRODUCER:
                producers.note(header, header.base_offset, now_ms)
    return producers


def _log_start(directory: Path) -> int:
    try:
        return int((directory / LOG_START).read_text())
    except FileNotFoundError:
        return 0
