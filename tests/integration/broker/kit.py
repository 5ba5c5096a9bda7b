"""What the broker's tests share: the process itself, clients with short patience, ways to wait."""

import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.local.ports import free_port
from infra.local.tether import tethered

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0
SESSION_MS = 1_000


class BrokerProcess:
    """`python -m infra.broker` on one port and one data folder, through as many lives as a test wants."""

    def __init__(self, data: Path, *options: str, port: int = 0) -> None:
        self.data, self.options, self.port = data, options, port or free_port()
        self.log_file = data.parent / f"{data.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        here = ["--port", str(self.port), "--data", str(self.data)]
        return [sys.executable, "-m", "infra.broker", *here, *self.options]

    def spawn(self) -> None:
        """Start the process and don't wait until it answers."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                tethered(self.command), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> Self:
        self.spawn()
        until(lambda: not self.alive or self.answers(), "the broker answers", every=0.02)
        assert self.alive, f"the broker ended with {self.process and self.process.returncode}: {self.log_tail()}"
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code; never leaves the process behind."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()

    def log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-2_000:]

    @property
    def resident_bytes(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def descriptors(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).num_fds())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def until(condition: Callable[[], object], what: str, *, every: float = 0.05, patience: float = PATIENCE) -> None:
    """Wait for a condition; the bound only keeps a broken broker from hanging the test."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain until {what}"
        time.sleep(every)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


class Kit:
    """Clients of one broker. Names of topics and groups are made up anew for every test."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 8_000, "log_level": 0})

    def topic(self, partitions: int = 1, **config: str) -> str:
        """A new topic; settings are written with underscores."""
        name = unique("topic")
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(10)
        return name

    def producer(self, **config: Any) -> Producer:
        settings = {"bootstrap.servers": self.bootstrap, "acks": "all", "linger.ms": 2, "log_level": 0}
        return Producer(settings | dotted(config))

    def send(self, topic: str, *values: bytes | None, **config: Any) -> list[tuple[int, int]]:
        """Produce values, and give the (partition, offset) of each in the order of their acknowledgement."""
        return self.send_records(topic, [{"value": value} for value in values], **config)

    def send_records(self, topic: str, records: Iterable[dict[str, Any]], **config: Any) -> list[tuple[int, int]]:
        places, errors = self.try_to_send(topic, records, **config)
        assert errors == []
        return places

    def try_to_send(
        self, topic: str, records: Iterable[dict[str, Any]], **config: Any
    ) -> tuple[list[tuple[int, int]], list[str]]:
        """The places of what was acknowledged and the names of the errors of what was not."""
        places: list[tuple[int, int]] = []
        errors: list[str] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error.name())
            else:
                places.append((message.partition() or 0, message.offset() or 0))

        producer = self.producer(**config)
        for record in records:
            producer.produce(topic, on_delivery=delivered, **record)
            producer.poll(0)
        assert producer.flush(PATIENCE) == 0
        return places, errors

    @contextmanager
    def consumer(self, group: str | None = None, **config: Any) -> Iterator[Consumer]:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": group or unique("group"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": 200,
            "topic.metadata.refresh.interval.ms": 1_000,
            "log_level": 0,
        }
        consumer = Consumer(settings | dotted(config))
        try:
            yield consumer
        finally:
            consumer.close()

    def read_all(self, topic: str, partitions: int = 1, **config: Any) -> list[Message]:
        """Everything that a topic holds now, to the end of each of its partitions."""
        with self.consumer(**{"enable_partition_eof": True, "fetch_wait_max_ms": 20} | config) as consumer:
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
            found: list[Message] = []
            open_ends = set(range(partitions))
            deadline = time.monotonic() + PATIENCE
            while open_ends:
                assert time.monotonic() < deadline, f"no end of partitions {open_ends} of {topic}"
                first = consumer.poll(0.2)
                for message in () if first is None else (first, *consumer.consume(499, timeout=0)):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_ends.discard(message.partition() or 0)
                    else:
                        raise KafkaException(error)
            return found

    def watermarks(self, topic: str, partition: int = 0) -> tuple[int, int]:
        with self.consumer() as consumer:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=8)

    def committed(self, group: str, topic: str, partition: int = 0) -> TopicPartition:
        with self.consumer(group) as consumer:
            return consumer.committed([TopicPartition(topic, partition)], timeout=8)[0]


def dotted(config: dict[str, Any]) -> dict[str, Any]:
    """Settings as keyword arguments: `enable_idempotence` is `enable.idempotence`."""
    return {key if key.endswith("_cb") else key.replace("_", "."): value for key, value in config.items()}


def read(consumer: Consumer, count: int, patience: float = PATIENCE) -> list[Message]:
    """The next `count` records; an error that the broker sends is raised."""
    found: list[Message] = []
    deadline = time.monotonic() + patience
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} records came"
        message = consumer.poll(0.1)
        if message is None:
            continue
        error = message.error()
        if error is None:
            found.append(message)
        elif error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
    return found


def partitions_of(consumer: Consumer) -> list[int]:
    return sorted(place.partition for place in consumer.assignment())


def refusal(action: Callable[[], object]) -> str:
    """The name of the error that the broker answers with."""
    try:
        action()
    except KafkaException as error:
        return str(error.args[0].name())
    raise AssertionError("it was not refused")
