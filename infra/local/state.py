"""A data folder's lock, and what the stack that runs on it has written of itself."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import SettingsError


class StackState(BaseModel):
    """`run/stack.json`: what other commands need to find a running stack. `model` is what `--model` was."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    gateway_url: str
    bootstrap_servers: str
    model: str
    metrics_ports: dict[str, int]
    pids: dict[str, int | None]


def write(data: Path, state: StackState) -> None:
    """Replace the folder's state as a whole: a reader sees the old one or the new one."""
    path = _path(data)
    draft = path.with_suffix(".draft")
    draft.write_text(state.model_dump_json(indent=2) + "\n")
    draft.replace(path)


def remove(data: Path) -> None:
    """Say that no stack runs on the folder."""
    _path(data).unlink(missing_ok=True)


def running_stack(data: Path) -> StackState | None:
    """What the stack that runs on this folder has written of itself, or None."""
    try:
        state = StackState.model_validate_json(_path(data).read_bytes())
    except (OSError, ValidationError):
        return None
    return state if _lives(state.pid) else None


def lock_folder(data: Path) -> IO[str]:
    """Hold the folder for this process, however that ends; raises `SettingsError` where another one holds it."""
    folder = data / "run"
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise SettingsError(
            f"{data} is in use by another thumbwheel (process {holder}); stop it, or name another folder by --data"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def is_running(pid: int, host: str) -> bool | None:
    """Whether a process of this machine lives; None for one of another machine, of which nothing is known here."""
    return _lives(pid) if host in ("", socket.gethostname()) else None


def _path(data: Path) -> Path:
    return data / "run" / "stack.json"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
