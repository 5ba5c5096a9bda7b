"""`thumbwheel up` as its user runs it: a process in a terminal, ended by Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.local.state import StackState, running_stack

PATIENCE_SECONDS = 120.0
THUMBWHEEL = [sys.executable, "-c", "from infra.cli import main; main()"]


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"it did not come to pass: {what}"
        time.sleep(0.1)


def start(data: Path, model: Path) -> subprocess.Popen[str]:
    command = [*THUMBWHEEL, "up", "--model", str(model), "--port", "0", "--data", str(data)]
    # A group of its own, as a shell gives it: the test's Ctrl-C is for it alone.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    assert process.stdout is not None
    lines = list[str]()
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError("".join(lines))


@dataclass(frozen=True)
class Up:
    process: subprocess.Popen[str]
    state: StackState
    data: Path
    greeting: str

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("up") / "state"
    process = start(data, tiny_model)
    try:
        greeting = read_until(process, r"also: label")
        state = running_stack(data)
        assert state is not None
        yield Up(process, state, data, "".join(greeting))
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, rest
    assert not [child for child in family if child.is_running()]


def test_the_greeting_says_where_everything_is(up: Up) -> None:
    assert up.state.gateway_url in up.greeting
    assert up.state.bootstrap_servers in up.greeting
    assert "curl" in up.greeting
    with urllib.request.urlopen(f"{up.state.gateway_url}/readyz", timeout=10) as answer:
        assert answer.status == 200


def test_all_processes_run_and_the_state_names_them(up: Up) -> None:
    wait_until(lambda: set(pids(up)) == {"broker", *SERVICES} and all(pids(up).values()), "all are named")
    assert set(pids(up).values()) <= {child.pid for child in up.children()}


SERVICES = ("ingest", "refine", "agents", "gateway", "rollout", "trainer")


def pids(up: Up) -> dict[str, int | None]:
    state = running_stack(up.data)
    assert state is not None
    return state.pids


def test_other_commands_find_the_stack_by_its_folder(up: Up) -> None:
    command = [*THUMBWHEEL, "versions", "list", "--data", str(up.data)]

    def listed() -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    wait_until(lambda: re.search(r"base .*live", listed()) is not None, "base is live")


def test_a_second_one_on_the_same_folder_is_refused_and_told_who_has_it(up: Up, tiny_model: Path) -> None:
    second = start(up.data, tiny_model)
    told, _ = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 1
    assert f"is in use by another thumbwheel (process {up.process.pid})" in told
    assert running_stack(up.data) is not None


def test_a_port_in_use_is_one_clear_line(up: Up, tmp_path: Path, tiny_model: Path) -> None:
    port = up.state.gateway_url.rpartition(":")[2]
    command = [*THUMBWHEEL, "up", "--model", str(tiny_model), "--port", port, "--data", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"error: port {port} is in use; stop what listens there, or choose another by --port"
    )


def test_a_killed_service_comes_back_under_another_pid(up: Up) -> None:
    wait_until(lambda: bool(pids(up).get("refine")), "refine runs")
    first = pids(up)["refine"]
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: pids(up)["refine"] not in (None, first), "refine runs again")


def test_however_it_ends_no_process_is_left_and_it_starts_again_on_the_same_folder(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Told to end while its processes still start, killed when it is up; the end by Ctrl-C is in the fixture `up`."""
    ends = (("waiting for the gateway", signal.SIGTERM, 0), ("also: label", signal.SIGKILL, -signal.SIGKILL))
    for moment, number, code in ends:
        process = start(tmp_path, tiny_model)
        read_until(process, moment)
        up = psutil.Process(process.pid)
        wait_until(lambda up=up: len(up.children(recursive=True)) >= 7, "all processes are started")
        family = up.children(recursive=True)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == code, rest
        _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
        assert not alive
        assert running_stack(tmp_path) is None
