"""What is done to files, in one place: written, synced, replaced, removed. Tests break `Disk` to see what survives."""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path


class Disk:
    """The two calls that can fail for want of room or of a working disk."""

    def write(self, fd: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        """All the parts, one after the other, from `position` on."""
        total = sum(map(len, parts))
        written = os.pwritev(fd, parts, position) if len(parts) <= _IOV_MAX else 0
        if written < total:
            rest = memoryview(b"".join(parts))
            while written < total:
                written += os.pwrite(fd, rest[written:], position + written)

    def sync(self, fd: int) -> None:
        """Returns when the data, and the length of the file, are on the disk."""
        os.fdatasync(fd)


_IOV_MAX = 1024
DISK = Disk()


class AppendFile:
    """A file that the event loop writes and reads, and that other threads sync.

    The kernel reports a failed write-back once, to whoever syncs next; afterwards a sync succeeds although the data
    are gone. Hence a failure is remembered until the file is cut back to what was durable before, and no two threads
    sync at once: the second one could take the kernel's silence for success.
    """

    def __init__(self, path: Path, disk: Disk, *, create: bool = False) -> None:
        self.path = path
        self._disk = disk
        self._lock = threading.Lock()
        self._failed = False
        self._closed = False
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0), 0o644)

    def write(self, parts: Sequence[bytes | memoryview], position: int) -> None:
        self._disk.write(self.fd, parts, position)

    def sync(self) -> None:
        """From any thread. Does nothing to a closed file, which was synced before or is not wanted any more."""
        with self._lock:
            if self._closed:
                return
            if self._failed:
                raise OSError(f"{self.path.name}: an earlier sync failed")
            self._failed = True
            self._disk.sync(self.fd)
            self._failed = False

    def truncate(self, size: int) -> None:
        """Takes back what was written beyond `size` and never synced."""
        os.ftruncate(self.fd, size)

    def cut(self, size: int) -> None:
        """Drops what lies beyond `size`, and trusts the file again if the disk takes that."""
        with self._lock:
            os.ftruncate(self.fd, size)
            self._disk.sync(self.fd)
            self._failed = False

    def close(self) -> None:
        """Waits for a sync under way: its descriptor must not become another file's."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)


def replace(path: Path, content: bytes, disk: Disk, *, durable: bool = True) -> None:
    """The file holds either what it held or all of this, whenever the power fails. `durable`: and this, on return.

    Without `durable` it may also be found damaged: for what carries a checksum and can be made again.
    """
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        disk.write(fd, [content], 0)
        if durable:
            disk.sync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes names that were added to or removed from the folder as durable as the files."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(paths: Iterable[Path]) -> None:
    """The names go at once and in order; giving back the space, 20 ms for 64 MiB, is left to a thread."""
    descriptors: list[int] = []
    for path in paths:
        try:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        path.unlink()
        if len(descriptors) >= _HELD_AT_ONCE:
            _close_elsewhere(descriptors)
            descriptors = []
    _close_elsewhere(descriptors)


_HELD_AT_ONCE = 16


def _close_elsewhere(descriptors: list[int]) -> None:
    if descriptors:
        threading.Thread(target=_close_all, args=(descriptors,), name="giving space back").start()


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
