"""The rollout controller as a process, killed and started again, on a broker of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from infra.local.ports import free_port
from schemas.topics import AUDIT, MODEL_VERSIONS
from schemas.versions import VersionState
from tests.integration.test_gateway import ROOT, eventually, read_all, tell
from tests.unit.serving.conftest import write_adapter


def start(bootstrap: str) -> subprocess.Popen[bytes]:
    """A controller that runs: one that is told to end while Python still starts ends by the signal."""
    port = free_port()
    environment = dict(os.environ) | {
        "THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "THUMBWHEEL_METRICS_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "serving", "rollout"], env=environment, cwd=ROOT)
    eventually(lambda: answers(port))
    return process


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    except httpx.TransportError:
        return False


def moves(bootstrap: str, count: int) -> list[str]:
    events = read_all(bootstrap, MODEL_VERSIONS, lambda e: True, count)
    return [f"{e.data.version} {e.data.state.value}" for e in events]  # type: ignore[attr-defined]


def test_versions_come_into_service_one_after_the_other_also_across_a_kill(fresh_broker: str, tmp_path: Path) -> None:
    process = start(fresh_broker)
    try:
        eventually(lambda: moves(fresh_broker, 2) == ["base registered", "base live"])
        process.kill()
        process.wait()
        v1 = write_adapter(tmp_path, "v1", seed=1).model_copy(update={"state": VersionState.REGISTERED})
        tell(fresh_broker, v1)
        process = start(fresh_broker)
        whole = ["base registered", "base live", "v1 registered", "v1 live", "base retired"]
        assert moves(fresh_broker, 5) == whole
        audits = read_all(fresh_broker, AUDIT, lambda e: True, 2)
        assert {audit.data.target for audit in audits} == {"base", "v1"}  # type: ignore[attr-defined]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process = start(fresh_broker)
        tell(fresh_broker, v1.model_copy(update={"version": "v2", "gates": ()}))
        assert moves(fresh_broker, 6) == [*whole, "v2 registered"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
