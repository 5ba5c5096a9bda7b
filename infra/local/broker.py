"""The embedded broker: noida-db as a process of its own, behind this one file.

Precautions, each for a fault that was measured: the binary is run and not its Python script, which forwards no
SIGTERM; the parent of the data folder is made first; it gets a minute to stop, because it writes its log once a second
as a whole; and whatever consumes from it pauses between empty polls, because it has no long-poll.
"""

import contextlib
import stat
import subprocess
import time
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.local.ports import free_port, is_free
from infra.local.tether import tethered
from schemas.errors import BrokerUnavailable, SettingsError

START_SECONDS = 30.0
STOP_SECONDS = 60.0


class EmbeddedBroker:
    """A Kafka-protocol broker on the loopback interface; `port` 0 takes a free one."""

    def __init__(self, data_dir: Path, port: int = 0, *, log_file: Path | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.log_file = log_file or self.data_dir.parent / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers; raises `SettingsError` or `BrokerUnavailable`."""
        if self.port == 0:
            self.port = free_port()
        elif not is_free(self.port):
            raise SettingsError(f"port {self.port} is in use; stop what listens there or choose another port")
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                tethered(command(self.port, self.data_dir)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is not for the broker: it stops last
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it, and wait until it has written its log; kills it after a minute."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BrokerUnavailable(
                    f"the broker ended at once with code {self.process.returncode}; its log {self.log_file} "
                    f"ends with: {_tail(self.log_file)}"
                )
            if answers(self.bootstrap_servers):
                return
            time.sleep(0.05)
        raise BrokerUnavailable(f"the broker did not answer within {START_SECONDS:.0f} s; see {self.log_file}")


def command(port: int, data_dir: Path) -> list[str]:
    """The broker's command line; raises `SettingsError` where its package is missing."""
    try:
        with as_file(files("noida_db").joinpath("noida-db")) as found:
            binary = Path(found)
    except ModuleNotFoundError as error:
        raise SettingsError("the package noida-db is missing: run `make setup`, or use --bootstrap-servers") from error
    # The wheel does not mark its binary as executable.
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return [
        str(binary), "start", "--only", "kafka", "--kafka-port", str(port), "--host", "127.0.0.1",
        "--data-dir", str(data_dir),
    ]  # fmt: skip


def answers(bootstrap_servers: str, timeout: float = 1.0) -> bool:
    """Whether a broker there answers a metadata request."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    with contextlib.suppress(KafkaException):
        return bool(admin.list_topics(timeout=timeout).brokers)
    return False


def _tail(path: Path, characters: int = 500) -> str:
    return path.read_text(errors="replace")[-characters:].strip() or "(nothing)"
