"""`POST /v1/feedback` against a bare handler on the same server and broker: what checks, events and care cost.

    load (own process) ──► gateway, one worker ──┐
                      └──► bare handler, one ────┴──► the same embedded broker, acks=all, durable before 201

Both servers run all the time and are loaded in turn. The gateway is the real one, with an API key, its scope and its
rate checked, redaction on, logs and metrics written. Each request carries a comment, so that there is a text to search.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.result import Result, median_ratio
from infra.local.broker import EmbeddedBroker
from infra.local.ports import free_port
from infra.local.processes import Model, environment
from infra.local.tether import tethered
from infra.local.topics import create_topics
from infra.models.catalog import prepare
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.ids import new_response_id
from serving.adapters import keys
from serving.core.access import ApiKeys, Scope

CONNECTIONS = 128
ROUNDS = 5
SECONDS = 6.0
START_SECONDS = 180.0
COMMENT = "The answer was right, but it took me a while to find the sentence that matters."
MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True)
class Server:
    """One of the two, as a process."""

    process: psutil.Process
    port: int
    request: bytes

    def load(self, rate: float = 0.0, seconds: float = SECONDS) -> dict[str, float]:
        """The load's figures, and `cpu_us`: the server's own processor time a request."""
        command = [sys.executable, "-m", "benchmarks.load", *map(str, (self.port, CONNECTIONS, seconds, rate))]
        before = _cpu(self.process)
        done = subprocess.run(command, input=self.request, stdout=subprocess.PIPE, check=True)
        used = _cpu(self.process) - before
        figures: dict[str, float] = json.loads(done.stdout)
        return figures | {"cpu_us": 1e6 * used / (figures["per_second"] * seconds)}


def run() -> Result:
    """Ratio `bare`: requests a second of the gateway as a share of the bare handler's."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedBroker(Path(folder) / "broker" / "data") as broker,
        _gateway(Path(folder) / "data", broker.bootstrap_servers) as ours,
        _bare(broker.bootstrap_servers) as bare,
    ):
        rounds = [(ours.load(), bare.load()) for _ in range(ROUNDS + 1)][1:]
        rates = [[each[i]["per_second"] for each in rounds] for i in (0, 1)]
        costs = [[each[i]["cpu_us"] for each in rounds] for i in (0, 1)]
        calm = {
            name: server.load(rate=statistics.median(rate) / 2, seconds=2 * SECONDS)
            for name, server, rate in (("gateway", ours, rates[0]), ("bare", bare, rates[1]))
        }
    details: dict[str, float | str] = {
        "gateway_requests_per_second": statistics.median(rates[0]),
        "bare_requests_per_second": statistics.median(rates[1]),
        "gateway_cpu_us_per_request": statistics.median(costs[0]),
        "bare_cpu_us_per_request": statistics.median(costs[1]),
    }
    for name, figures in calm.items():
        details |= {f"{name}_{p}_ms_at_half_rate": figures[f"{p}_ms"] for p in ("p50", "p99")}
    return Result("feedback", {"bare": median_ratio(*rates)}, details)


@contextmanager
def _gateway(data: Path, servers: str) -> Iterator[Server]:
    kafka, port = KafkaConnection(bootstrap_servers=servers), free_port()
    create_topics(kafka)
    key, text = keys.new_api_key(
        name="benchmark", scopes=(Scope.FEEDBACK,), tenant="benchmark", rate=10_000_000, expires=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    keys.change_api_keys(data / "secrets" / "api_keys.json", lambda _: ApiKeys(keys=(key,)))
    settings = environment(data=data, kafka=kafka, model=Model("tiny", prepare("tiny", MODELS)))
    settings |= {"THUMBWHEEL_PORT": str(port)}
    body = {"response_id": new_response_id(), "kind": "comment", "text": COMMENT, "user": "user-17"}
    command = [sys.executable, "-m", "serving", "gateway"]
    with _running(command, port, settings, log=data / "gateway.log") as process:
        yield Server(process, port, _request(port, json.dumps(body).encode(), f"authorization: Bearer {text}\r\n"))


@contextmanager
def _bare(servers: str) -> Iterator[Server]:
    port = free_port()
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic("bare", topics.FEEDBACK.partitions, 1)])["bare"].result(20)
    body = {"response_id": new_response_id(), "kind": "comment", "text": COMMENT, "user": "user-17"}
    command = [sys.executable, "-m", "benchmarks.bare_app", str(port), servers, "bare"]
    with _running(command, port, {}, log=None) as process:
        yield Server(process, port, _request(port, json.dumps(body).encode(), ""))


def _request(port: int, body: bytes, more: str) -> bytes:
    head = f"POST /v1/feedback HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def _running(command: list[str], port: int, settings: dict[str, str], *, log: Path | None) -> Iterator[psutil.Process]:
    with open(log or os.devnull, "wb") as out:  # noqa: PTH123 - a path or the null device
        process = psutil.Popen(tethered(command), env={**os.environ, **settings}, stderr=out, stdout=out)
    try:
        _wait_until_it_listens(process, port)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_it_listens(process: psutil.Process, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.is_running():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start in time")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
