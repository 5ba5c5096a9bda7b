"""The embedded broker (`infra.broker`) as a process of its own: started, kept running, stopped.

Like every process of a stack it is started again when it dies, on the same port and folder: what it acknowledged is on
the disk, and clients find it again by themselves.
"""

import contextlib
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.local.ports import free_port, is_free
from infra.local.supervisor import Command, Status, Supervisor
from schemas.errors import BrokerUnavailable, SettingsError

NAME = "broker"
START_SECONDS = 30.0


class EmbeddedBroker:
    """A broker on the loopback interface; `port` 0 takes a free one. Its log is `<logs>/broker.log`."""

    def __init__(self, data_dir: Path, port: int = 0, *, logs: Path | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.logs = logs or self.data_dir.parent
        self._supervisor: Supervisor | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """What it logs, and what it said when it died."""
        return self.logs / f"{NAME}.log"

    @property
    def status(self) -> Status | None:
        """Its process as it is now; None before the start and after the stop."""
        return None if self._supervisor is None else self._supervisor.statuses()[0]

    def start(self) -> Self:
        """Start it and wait until it answers; raises `SettingsError` or `BrokerUnavailable`."""
        if self.port == 0:
            self.port = free_port()
        elif not is_free(self.port):
            raise SettingsError(f"port {self.port} is in use; stop what listens there or choose another port")
        self._supervisor = Supervisor([Command(NAME, command(self.port, self.data_dir))], self.logs)
        self._supervisor.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.stop()

    def kill(self) -> None:
        """Kill it on the spot (SIGKILL); it is started again."""
        assert self._supervisor is not None
        self._supervisor.kill(NAME)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            status = self.status
            if status is not None and status.exit_code is not None:
                raise BrokerUnavailable(
                    f"the broker ended at once with code {status.exit_code}; its log {self.log_file} "
                    f"ends with: {_tail(self.log_file)}"
                )
            if answers(self.bootstrap_servers):
                return
            time.sleep(0.02)
        raise BrokerUnavailable(f"the broker did not answer within {START_SECONDS:.0f} s; see {self.log_file}")


def command(port: int, data_dir: Path) -> tuple[str, ...]:
    """The broker's command line, with this very Python."""
    return (sys.executable, "-P", "-m", "infra.broker", "--port", str(port), "--data", str(data_dir))


def answers(bootstrap_servers: str, timeout: float = 1.0) -> bool:
    """Whether a broker there answers a metadata request."""
    soon = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50}  # one that is starting is refused at first
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0} | soon)
    with contextlib.suppress(KafkaException):
        return bool(admin.list_topics(timeout=timeout).brokers)
    return False


def _tail(path: Path, characters: int = 500) -> str:
    return path.read_text(errors="replace")[-characters:].strip() or "(nothing)"
