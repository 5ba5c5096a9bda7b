"""Keeps processes running: starts them in order, restarts what dies, stops all at the end.

Each child leads a process group of its own, so that a Ctrl-C in the terminal reaches the supervisor alone, which then
stops everything; each is tethered, so that nothing outlives a supervisor that was killed. The order of stopping
doesn't matter: what is acknowledged is in the log or in a table, and nothing else is promised.
"""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.tether import tethered

logger = logging.getLogger(__name__)

STOP_SECONDS = 12.0
WATCH_SECONDS = 0.2
HEALTHY_SECONDS = 30.0
MAX_DEATHS = 6
FIRST_BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.5, 10.0


@dataclass(frozen=True)
class Command:
    """What to run, under which name, with which environment on top of this process's own."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Status:
    """A child as it is now. `given_up`: it died too often in a row and is not started again.

    `exit_code` is that of its latest end, minus the signal's number where a signal ended it.
    """

    name: str
    pid: int | None
    running: bool
    restarts: int
    exit_code: int | None
    given_up: bool
    log: Path


@dataclass
class _Child:
    command: Command
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    deaths_in_a_row: int = 0
    start_again_at: float | None = None
    exit_code: int | None = None

    @property
    def given_up(self) -> bool:
        return self.deaths_in_a_row > MAX_DEATHS


class Supervisor:
    """Several children. `start` and `stop` are for one thread, the rest for any."""

    def __init__(
        self, commands: Sequence[Command], logs: Path, *, on_change: Callable[[list[Status]], None] = lambda _: None
    ) -> None:
        """`on_change` is told of all children whenever one was started or has ended."""
        self._children = {c.name: _Child(c, logs / f"{c.name}.log") for c in commands}
        self._on_change = on_change
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        logs.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start all children, and watch over them."""
        # From the watcher's thread: the kernel's tether is to the thread that started a child.
        self._watcher.start()

    def stop(self) -> None:
        """Stop all children: SIGTERM, and SIGKILL for a group that doesn't end in time. Can be called twice."""
        self._stopping.set()
        with self._lock:
            running = [(c.command.name, c.process) for c in self._children.values() if c.process is not None]
            for _, process in running:
                _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for name, process in running:
                _end(name, process, deadline)
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def kill(self, name: str) -> None:
        """Kill a child on the spot (SIGKILL); it is started again like any that dies."""
        with self._lock:
            process = self._children[name].process
            if process is not None:
                _signal(process, signal.SIGKILL)

    def statuses(self) -> list[Status]:
        """Every child, in the order of starting."""
        with self._lock:
            return [_status(child) for child in self._children.values()]

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                changed = [_tend(child) for child in self._children.values() if not self._stopping.is_set()]
            if any(changed):
                self._on_change(self.statuses())
            self._stopping.wait(WATCH_SECONDS)
        # The tether is to this thread: it must live until every child has ended.
        self._stopped.wait()


def _tend(child: _Child) -> bool:
    """Start what has not been started, note what died, start it again when its pause is over; whether it did."""
    now = time.monotonic()
    if child.process is None and child.start_again_at is None:
        _start(child)
    elif child.process is not None and child.process.poll() is not None:
        _died(child, now)
    elif child.start_again_at is not None and now >= child.start_again_at and not child.given_up:
        child.restarts += 1
        _start(child)
    else:
        return False
    return True


def _start(child: _Child) -> None:
    with child.log.open("ab") as log:
        child.process = subprocess.Popen(
            tethered(list(child.command.arguments)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **child.command.environment},
            start_new_session=True,
        )
    child.started, child.start_again_at = time.monotonic(), None


def _died(child: _Child, now: float) -> None:
    assert child.process is not None
    _signal(child.process, signal.SIGKILL)  # what its leader left behind in the group
    healthy = now - child.started > HEALTHY_SECONDS
    child.deaths_in_a_row = 1 if healthy else child.deaths_in_a_row + 1
    pause = min(FIRST_BACKOFF_SECONDS * 2 ** (child.deaths_in_a_row - 1), MOST_BACKOFF_SECONDS)
    child.start_again_at = now + pause
    logger.warning(
        "%s died with code %s; %s",
        child.command.name,
        child.process.returncode,
        f"it died {child.deaths_in_a_row} times in a row and stays down" if child.given_up else f"again in {pause} s",
        extra={"log": str(child.log)},
    )
    child.process, child.exit_code = None, child.process.returncode


def _end(name: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        logger.warning("%s did not stop in %s s and is killed", name, STOP_SECONDS)
    # The group may hold grandchildren even where its leader has ended.
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _status(child: _Child) -> Status:
    process = child.process
    running = process is not None and process.poll() is None
    return Status(
        name=child.command.name,
        pid=process.pid if process is not None and running else None,
        running=running,
        restarts=child.restarts,
        exit_code=child.exit_code if process is None or running else process.returncode,
        given_up=child.given_up,
        log=child.log,
    )
