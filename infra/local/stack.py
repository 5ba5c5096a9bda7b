"""Everything on one machine: broker, topics, services; the state under one data folder.

LocalStack ── starts ──► broker ──► topics ──► ingest, refine, agents, gateway, rollout, trainer
    │                   ▲  (not where --bootstrap-servers names a Kafka)      ▲
    └── one a data folder (lock) ── restarts what dies ───────────────────────┘

with LocalStack(StackOptions(data=Path(".thumbwheel"))) as stack:
    stack.wait_until_ready()
    print(stack.gateway_url)
"""

import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from infra.local import broker, state
from infra.local.broker import EmbeddedBroker
from infra.local.ports import free_port, is_free
from infra.local.processes import PROCESSES, Model, environment, environments, public_name
from infra.local.supervisor import Command, Status, Supervisor
from infra.local.topics import create_topics
from infra.models.catalog import prepare
from schemas.connection import KafkaConnection
from schemas.errors import SettingsError, ThumbwheelError
from schemas.logs import JsonFormatter

logger = logging.getLogger(__name__)

READY_SECONDS = 120.0


class StackFailed(ThumbwheelError):
    """A process of the stack doesn't stay up, or the stack isn't ready in time."""


def _silent(message: str) -> None:
    """Progress for those who want none."""


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """How to run a stack. `kafka` None: an embedded broker. Ports of 0 are chosen. `environment` goes to all processes,
    `overrides` to one each, by name. `without` names processes that are not started."""

    data: Path
    model: str = "smollm2"
    models_dir: Path = Path("models")
    kafka: KafkaConnection | None = None
    gateway_port: int = 0
    broker_port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    without: frozenset[str] = frozenset()


class LocalStack:
    """A running stack. Start and stop it from one thread; `with` does both."""

    def __init__(self, options: StackOptions, *, progress: Callable[[str], None] = _silent) -> None:
        self.options = options
        self.data = options.data.resolve()
        self._progress = progress
        self._lock: IO[str] | None = None
        self._broker: EmbeddedBroker | None = None
        self._supervisor: Supervisor | None = None
        self._log_handler: logging.Handler = logging.NullHandler()
        self.kafka = options.kafka or KafkaConnection()
        self.gateway_port = options.gateway_port
        self.metrics_ports: dict[str, int] = {}

    @property
    def gateway_url(self) -> str:
        """The gateway's address, without a path."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def bootstrap_servers(self) -> str:
        """Where the log is."""
        return self.kafka.bootstrap_servers

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.data / "logs"

    @property
    def running(self) -> bool:
        """Whether any process was started and not yet stopped."""
        return self._broker is not None or self._supervisor is not None

    def start(self) -> Self:
        """Start everything; returns when all processes run (not yet ready: see `wait_until_ready`)."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything and let the data folder go. Can be called twice."""
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._broker is not None:
            self._broker.stop()
        if self._lock is not None:
            state.remove(self.data)
            logging.getLogger("infra").removeHandler(self._log_handler)
            self._log_handler.close()
            self._lock.close()
        self._supervisor, self._broker, self._lock = None, None, None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def processes(self) -> list[Status]:
        """The embedded broker, if there is one, and the services as they are now."""
        kept = [self._broker.status] if self._broker else []
        services = self._supervisor.statuses() if self._supervisor else []
        return [*(status for status in kept if status is not None), *services]

    def kill(self, name: str) -> None:
        """Kill a process on the spot (SIGKILL); it is started again."""
        if name == broker.NAME:
            assert self._broker is not None
            self._broker.kill()
            return
        assert self._supervisor is not None
        self._supervisor.kill(name)

    def check(self) -> None:
        """Raise `StackFailed` where a process has been given up."""
        for status in self.processes():
            if status.given_up:
                raise StackFailed(f"{status.name} does not stay up; its log says why: {status.log}")

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the gateway says that it is ready; raises `StackFailed`."""
        deadline = time.monotonic() + seconds
        why = "it has not answered yet"
        while time.monotonic() < deadline:
            self.check()
            ready, why = _ask_readiness(self.gateway_url)
            if ready:
                return
            time.sleep(0.2)
        raise StackFailed(f"the gateway was not ready within {seconds:.0f} s: {why}; see {self.logs / 'gateway.log'}")

    def _start(self) -> None:
        self._lock = state.lock_folder(self.data)
        self._log_handler = _log_to(self.logs / "supervisor.log")
        model = Model(public_name(self.options.model), self._prepare_model())
        if self.options.kafka is None:
            self._progress("starting the embedded broker")
            self._broker = EmbeddedBroker(self.data / "broker", self.options.broker_port, logs=self.logs).start()
            self.kafka = KafkaConnection(bootstrap_servers=self._broker.bootstrap_servers)
        for difference in create_topics(self.kafka).differing:
            logger.warning("a topic is not as planned: %s", difference)
        self.gateway_port = _gateway_port(self.options.gateway_port)
        commands = self._commands(model)
        self._supervisor = Supervisor(commands, self.logs, on_change=self._write_state)
        self._progress("starting " + ", ".join(p.name for p in PROCESSES if p.name not in self.options.without))
        self._write_state([])
        self._supervisor.start()

    def _prepare_model(self) -> str:
        return prepare(self.options.model, self.options.models_dir.resolve(), progress=self._progress)

    def _commands(self, model: Model) -> list[Command]:
        shared = environment(data=self.data, kafka=self.kafka, model=model)
        shared["THUMBWHEEL_PORT"] = str(self.gateway_port)
        self.metrics_ports = {p.name: free_port() for p in PROCESSES if p.metrics}
        settings = environments({**shared, **self.options.environment}, self.options.overrides, self.metrics_ports)
        chosen = [p for p in PROCESSES if p.name not in self.options.without]
        return [Command(p.name, p.command(), settings[p.name]) for p in chosen]

    def _write_state(self, statuses: Sequence[Status]) -> None:
        pids = {status.name: status.pid for status in statuses}
        if self._broker is not None and self._broker.status is not None:
            pids[broker.NAME] = self._broker.status.pid
        written = state.StackState(
            pid=os.getpid(),
            gateway_url=self.gateway_url,
            bootstrap_servers=self.bootstrap_servers,
            model=self.options.model,
            metrics_ports=self.metrics_ports | {"gateway": self.gateway_port},
            pids=pids,
        )
        state.write(self.data, written)


def _log_to(file: Path) -> logging.Handler:
    """What is logged in this process goes to a file beside those of the others, not in between what a user sees."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file)
    handler.setFormatter(JsonFormatter("supervisor"))
    logging.getLogger("infra").addHandler(handler)
    return handler


def _gateway_port(asked: int) -> int:
    if asked == 0:
        return free_port()
    if not is_free(asked):
        raise SettingsError(f"port {asked} is in use; stop what listens there, or choose another by --port")
    return asked


def _ask_readiness(url: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310  our own loopback address
            return answer.status == 200, f"it answered {answer.status}"
    except urllib.error.HTTPError as error:
        return False, error.read(500).decode(errors="replace")
    except OSError as error:
        return False, str(error)
