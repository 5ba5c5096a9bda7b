"""Small files that hold secrets: written whole or not at all, for the owner alone, read again when they change."""

import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import SettingsError

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
Stamp = tuple[int, int, int]
CHECK_SECONDS = 1.0


def read(path: Path, kind: type[M]) -> M:
    """The file's content; raises `SettingsError` where it can't be read, in words that repeat nothing of it."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(f"{path} is damaged: {where}: {first['msg']}; bring back a copy of it") from error


def replace(path: Path, content: BaseModel) -> None:
    """Put the content in the file's place: a reader sees the old one or the new one, also after a crash."""
    draft = _draft(path, content)
    draft.replace(path)
    _sync_folder(path.parent)


def create_once(path: Path, content: BaseModel) -> bool:
    """Make the file unless it is there; whether it was made. Of two who try at once, one does."""
    if path.exists():
        return False
    draft = _draft(path, content)
    try:
        # A link, unlike a rename, refuses where there is something; and what appears is complete.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file for a change: read, decide, `replace`. Others who would change it wait; readers don't."""
    _folder(path)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class WatchedFile(Generic[M]):
    """A file's content as it is now, looked at no more than once a second.

    A file that is damaged or gone keeps the last good content in force, and `problem` says so. Cheap enough for every
    request. Several threads may share it: at worst two of them read the file.
    """

    def __init__(
        self, path: Path, kind: type[M], *, if_missing: M | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises `SettingsError` for a file that can't be used from the start, and for a missing one without
        `if_missing`."""
        self.path = path
        self.problem: str | None = None
        self._kind = kind
        self._clock = clock
        self._looked = clock()
        self._stamp = _stamp(path)
        self._content = if_missing if if_missing is not None and self._stamp is None else read(path, kind)

    def content(self) -> M:
        """What the file says, or said when it could last be read."""
        if self._clock() - self._looked >= CHECK_SECONDS:
            self.refresh()
        return self._content

    def refresh(self) -> None:
        """Look at the file now."""
        self._looked = self._clock()
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        # Taken before reading: what is replaced in between is read once more at the next look.
        self._stamp = stamp
        try:
            self._content = read(self.path, self._kind)
        except SettingsError as error:
            self.problem = f"{error}; what it said before stays in force"
            logger.error("%s", self.problem)
        else:
            self.problem = None
            logger.info("read again", extra={"file": str(self.path)})


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _draft(path: Path, content: BaseModel) -> Path:
    _folder(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content.model_dump_json(indent=2, exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _folder(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
