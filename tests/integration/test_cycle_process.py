"""The trainer as a process of its own, with a real broker: its events, SIGTERM, kill -9 in mid-cycle."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli.app import app
from schemas.connection import KafkaConnection
from schemas.cycles import Cost, Cycle, CycleStatus
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable
from schemas.versions import VersionState
from tests.integration import trainer_lake as lake
from trainer.adapters.events import KafkaEvents
from trainer.settings import TrainerSettings

LONG_CYCLE = {"iterations": 5000, "prompts_per_iteration": 4, "answers_per_prompt": 4, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


def environment(settings: TrainerSettings, bootstrap: str, **changes: str) -> dict[str, str]:
    """The settings as a process reads them."""
    given = {
        "THUMBWHEEL_DATA": str(settings.data),
        "THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "THUMBWHEEL_BASE_MODEL": settings.base_model,
        "THUMBWHEEL_BASE_MODEL_NAME": "random",
        "THUMBWHEEL_DTYPE": "float32",
        "THUMBWHEEL_DEVICE": "cpu",
        "THUMBWHEEL_THREADS": "1",
        "THUMBWHEEL_SEED": str(settings.seed),
        "THUMBWHEEL_POLL_SECONDS": "0.1",
        "THUMBWHEEL_MIN_NEW_PREFERENCES": "50",
        "THUMBWHEEL_MAX_HELD_OUT_PROMPTS": "12",
        "THUMBWHEEL_PPO": json.dumps(settings.ppo.given()),
        "THUMBWHEEL_REWARD": json.dumps(settings.reward.given()),
        "THUMBWHEEL_GATES": json.dumps(settings.gates.given()),
        "OMP_NUM_THREADS": "1",
    }
    return os.environ | given | changes


@contextlib.contextmanager
def start(program: str, env: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """A trainer that does not outlive its test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", program],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def test_a_cycle_cut_off_by_kill_9_is_closed_and_the_next_one_registers(
    tmp_path: Path, base: Path, fresh_broker: str
) -> None:
    settings = lake.settings(lake.fill(tmp_path / "data"), base)
    long = environment(settings, fresh_broker, THUMBWHEEL_PPO=json.dumps(LONG_CYCLE))
    with start("run", long) as process:
        wait_for(lambda: list(settings.cycles.glob("*/metrics.jsonl")))
        process.send_signal(signal.SIGKILL)
    assert not lake.outcomes(settings.data)

    done = subprocess.run(
        [sys.executable, "-m", "trainer", "once"],
        env=environment(settings, fresh_broker),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["status"], outcome["version"]) == ("finished", "v1")
    ends = {o["status"]: o["reason"] for o in lake.outcomes(settings.data)}
    assert set(ends) == {"failed", "finished"} and ends["failed"].startswith("cut off: process")
    board = KafkaEvents(KafkaConnection(bootstrap_servers=fresh_broker)).board()
    assert board.state("v1") is VersionState.REGISTERED


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_stops_the_service_in_the_middle_of_a_cycle_with_exit_code_0(
    tmp_path: Path, base: Path, fresh_broker: str, processes: str
) -> None:
    settings = lake.settings(lake.fill(tmp_path / "data"), base)
    changes = {"THUMBWHEEL_PPO": json.dumps(LONG_CYCLE), "THUMBWHEEL_PROCESSES": processes}
    env = environment(settings, fresh_broker, **changes)
    with start("run", env) as process:
        wait_for(lambda: list(settings.cycles.glob("*/metrics.jsonl")))
        process.send_signal(signal.SIGTERM)
        _, logs = process.communicate(timeout=60)
    assert process.returncode == 0, logs
    (outcome,) = lake.outcomes(settings.data)
    assert (outcome["status"], outcome["reason"], outcome["announced"]) == ("failed", "stopped", True)


def test_processes_end_with_the_one_that_launched_them_and_was_killed(
    tmp_path: Path, base: Path, fresh_broker: str
) -> None:
    settings = lake.settings(lake.fill(tmp_path / "data"), base)
    env = environment(settings, fresh_broker, THUMBWHEEL_PPO=json.dumps(LONG_CYCLE), THUMBWHEEL_PROCESSES="2")

    def is_a_trainer(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return b"trainer" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    with start("run", env) as process:
        wait_for(lambda: list(settings.cycles.glob("*/metrics.jsonl")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        launched = [int(pid) for pid in children.split() if is_a_trainer(int(pid))]
        assert len(launched) == 2
        process.kill()
        wait_for(lambda: not any(map(is_a_trainer, launched)))


def test_a_cycle_of_two_processes_by_hand_and_its_repetition_from_the_command_line(
    tmp_path: Path, base: Path, fresh_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = lake.settings(lake.fill(tmp_path / "data"), base)
    for name, value in environment(settings, fresh_broker, THUMBWHEEL_PROCESSES="2").items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["cycles", *arguments, "--data", str(settings.data), "--model", str(base)])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    made = call("run", "--json")
    assert (made["status"], made["version"], made["trigger"]) == ("finished", "v1", "hand")
    record = json.loads((settings.registry / "v1" / "record.json").read_text())
    assert record["config"]["processes"] == 2
    monkeypatch.delenv("THUMBWHEEL_PROCESSES")  # a repetition has as many as the record says
    again = call("reproduce", made["cycle_id"], "--json")
    assert again["same"] and again["recorded"] == again["today"] and again["differences"] == []


def test_a_log_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    events = KafkaEvents(KafkaConnection(bootstrap_servers="127.0.0.1:1"), timeout=1.0)
    data = Cycle(cycle_id="c1", status=CycleStatus.STARTED, cost=Cost(seconds=0))
    with pytest.raises(BrokerUnavailable, match=r"is the broker at 127\.0\.0\.1:1 up\?"):
        events.publish(new_event(data, source="test"))
    with pytest.raises(BrokerUnavailable, match="versions can't be read"):
        events.board()
    events.close()
