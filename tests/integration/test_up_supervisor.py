"""The supervisor with small real programs: what dies comes back, what must end ends, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.local.supervisor import MAX_DEATHS, Command, Status, Supervisor

PATIENCE_SECONDS = 60.0
SLEEPS = "import time; time.sleep(1000)"
DIES = "import sys; sys.exit('no luck')"
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(1000)"
)
HAS_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
# A supervisor in a process of its own, which tells the pid of its only child and then waits to be killed.
SUPERVISES = f"""
import sys, time
from pathlib import Path
from infra.local.supervisor import Command, Supervisor
s = Supervisor([Command("child", [sys.executable, "-c", {SLEEPS!r}])], Path(sys.argv[1]))
s.start()
while not s.statuses()[0].pid:
    time.sleep(0.05)
print(s.statuses()[0].pid, flush=True)
time.sleep(1000)
"""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"it did not come to pass: {what}"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def running(folder: Path, **programs: str) -> Iterator[Supervisor]:
    commands = [Command(name, [sys.executable, "-c", code]) for name, code in programs.items()]
    supervisor = Supervisor(commands, folder)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def status(supervisor: Supervisor, name: str) -> Status:
    return next(s for s in supervisor.statuses() if s.name == name)


def pid(supervisor: Supervisor, name: str) -> int:
    wait_until(lambda: status(supervisor, name).pid is not None, f"{name} runs")
    found = status(supervisor, name).pid
    assert found is not None
    return found


def test_a_killed_process_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    with running(tmp_path, one=SLEEPS, two=SLEEPS) as supervisor:
        first, other = pid(supervisor, "one"), pid(supervisor, "two")
        supervisor.kill("one")
        wait_until(lambda: status(supervisor, "one").restarts == 1, "it is started again")
        assert pid(supervisor, "one") != first
        assert status(supervisor, "one").exit_code == -signal.SIGKILL
        assert (status(supervisor, "two").pid, status(supervisor, "two").restarts) == (other, 0)


def test_a_process_that_always_dies_is_given_up_and_its_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.supervisor.MOST_BACKOFF_SECONDS", 0.1)
    with running(tmp_path, luckless=DIES) as supervisor:
        wait_until(lambda: status(supervisor, "luckless").given_up, "it is given up")
        found = status(supervisor, "luckless")
    assert (found.running, found.exit_code, found.restarts) == (False, 1, MAX_DEATHS)
    assert found.log.read_text().count("no luck") == MAX_DEATHS + 1


def test_stopping_leaves_nobody_behind_not_even_a_grandchild(tmp_path: Path) -> None:
    with running(tmp_path, parent=HAS_A_CHILD) as supervisor:
        parent = psutil.Process(pid(supervisor, "parent"))
        wait_until(lambda: len(parent.children()) == 1, "it has a child")
        family = [parent.pid, parent.children()[0].pid]
    wait_until(lambda: all(gone(p) for p in family), "both are gone")


def test_who_ignores_the_request_to_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.supervisor.STOP_SECONDS", 0.5)
    with running(tmp_path, stubborn=IGNORES_SIGTERM) as supervisor:
        stubborn = pid(supervisor, "stubborn")
        wait_until(lambda: "on" in (tmp_path / "stubborn.log").read_text(), "it ignores SIGTERM")
    wait_until(lambda: gone(stubborn), "it is gone")


def test_when_the_supervisor_itself_is_killed_its_children_end(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISES, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        assert not gone(child)
        supervisor.kill()
    wait_until(lambda: gone(child), "the child is gone")


def test_whoever_watches_is_told_of_every_start_and_end(tmp_path: Path) -> None:
    seen: list[list[int | None]] = []
    command = Command("one", [sys.executable, "-c", SLEEPS])
    supervisor = Supervisor([command], tmp_path, on_change=lambda statuses: seen.append([s.pid for s in statuses]))
    supervisor.start()
    try:
        first = pid(supervisor, "one")
        supervisor.kill("one")
        wait_until(lambda: len(seen) >= 3, "start, end and start are told")
        assert seen[0] == [first]
        assert seen[1] == [None]
    finally:
        supervisor.stop()


def test_each_process_has_the_environment_it_was_given(tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)), flush=True); import time; time.sleep(1000)"
    supervisor = Supervisor([Command("one", [sys.executable, "-c", code], {"MINE": "yes"})], tmp_path)
    supervisor.start()
    try:
        log = tmp_path / "one.log"
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), "it has told its environment")
        told = json.loads(log.read_text())
    finally:
        supervisor.stop()
    assert told["MINE"] == "yes"
    assert told["PATH"] == os.environ["PATH"]
