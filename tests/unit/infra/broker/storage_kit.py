"""What the tests of the broker's storage share: small batches, a log without threads, and a disk that can be broken."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from infra.broker.batches import Record, build, read_header
from infra.broker.disk import DISK, Disk
from infra.broker.log import Appended, LogConfig, PartitionLog
from infra.broker.records import records_of


class BrokenDisk(Disk):
    """A disk with `room` for so many more bytes (None: enough), and whose syncs fail while `fails` is set."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.fails = False
        self.syncs = 0

    def write(self, fd: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        data = b"".join(parts)
        if self.room is None:
            super().write(fd, [data], position)
            return
        fits, self.room = data[: self.room], max(0, self.room - len(data))
        os.pwrite(fd, fits, position)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, "no space left on device")

    def sync(self, fd: int) -> None:
        self.syncs += 1
        if self.fails:
            raise OSError(errno.EIO, "input/output error")
        super().sync(fd)


def batch(*values: str, at: int = 1000, key: str | None = None) -> bytes:
    """One record a value; the first at time `at`, each one a millisecond later."""
    records = [Record(0, at + i, key.encode() if key else None, value.encode()) for i, value in enumerate(values)]
    return build(records)


def keyed(*pairs: tuple[str, str | None], at: int = 1000) -> bytes:
    return build([Record(0, at, key.encode(), None if value is None else value.encode()) for key, value in pairs])


def numbered(sequence: int, count: int = 1, *, producer: int = 7, epoch: int = 0) -> bytes:
    """A batch of an idempotent producer."""
    records = [Record(0, 1000, None, b"%d" % (sequence + i)) for i in range(count)]
    return build(records, producer_id=producer, producer_epoch=epoch, base_sequence=sequence)


def opened(directory: Path, config: LogConfig | None = None, *, disk: Disk = DISK) -> PartitionLog:
    return PartitionLog.open(directory, config or LogConfig(), disk=disk)


def sync(log: PartitionLog) -> None:
    """What a flusher does, without threads."""
    while (due := log.begin_sync()) is not None:
        failure = None
        try:
            due.run()
        except OSError as error:
            failure = error
        log.finish_sync(due, failure)


def stored(log: PartitionLog, data: bytes, *, now_ms: int = 1000) -> Appended:
    appended = log.append(data, now_ms=now_ms)
    sync(log)
    return appended


def everything(log: PartitionLog, *, max_bytes: int = 2**20) -> list[tuple[int, str | None]]:
    """Offset and value of each record that a consumer would get, from the start of the log on."""
    found: list[tuple[int, str | None]] = []
    offset = log.log_start
    while data := log.read(offset, max_bytes, minimum_one=True):
        at, following = 0, offset
        while at < len(data):
            header = read_header(data, at)
            for record in records_of(data[at : at + header.size]):
                if record.offset >= offset:
                    found.append((record.offset, None if record.value is None else record.value.decode()))
            at += header.size
            following = header.last_offset + 1
        offset = following
    return found


def crashed(log: PartitionLog) -> None:
    """The process is gone: nothing is synced or written any more."""
    log.close(discard=True)
