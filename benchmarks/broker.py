"""The embedded broker against noida-db: produced and consumed records a second, and what it costs to have it running.

Both run at once, on data folders of their own, and are measured in turn, so that only one is at work at a time. Records
hold 1 KB, producers are idempotent and wait for all acknowledgements (ours after fdatasync, noida's from memory).
"""

import contextlib
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import noida
from benchmarks.result import Result, median_ratio
from infra.local.ports import free_port
from infra.local.tether import tethered

RECORDS = 60_000
ROUNDS = 5
PARTITIONS = 4
VALUE_BYTES = 1_024
IDLE_CONSUMERS, IDLE_SECONDS = 10, 8.0
LATENCY_SAMPLES = 400
# Metadata, version 1, of no topic: the smallest question that only a broker that is ready can answer.
METADATA = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)
CommandOf = Callable[[int, Path], list[str]]


def run(millions: float = 0.2) -> Result:
    """Ratios `produce` and `consume`; `millions` of records go through ours before its memory is read."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Broker(_our_command, Path(folder) / "ours"), Broker(noida.command, Path(folder) / "noida")
        with ours.running(), theirs.running():
            rates = [(_produce_and_consume(ours), _produce_and_consume(theirs)) for _ in range(ROUNDS + 1)][1:]
            details = _details("ours", ours) | _details("noida", theirs)
        starts = {
            f"{name}_start_to_metadata_ms": 1_000 * statistics.median(_start_seconds(one) for _ in range(5))
            for name, one in (
                ("ours", Broker(_our_command, Path(folder) / "ours-2")),
                ("noida", Broker(noida.command, Path(folder) / "noida-2")),
            )
        }
        memory = _memory(Broker(_our_command, Path(folder) / "ours-3"), round(millions * 1_000_000))
    produced, consumed = ([([a[i] for a, _ in rates], [b[i] for _, b in rates])] for i in (0, 1))
    speeds = {
        "ours_produced_per_second": statistics.median(produced[0][0]),
        "noida_produced_per_second": statistics.median(produced[0][1]),
        "ours_consumed_per_second": statistics.median(consumed[0][0]),
        "noida_consumed_per_second": statistics.median(consumed[0][1]),
    }
    ratios = {"produce": median_ratio(*produced[0]), "consume": median_ratio(*consumed[0])}
    return Result("broker", ratios, {**speeds, **details, **starts, **memory})


class Broker:
    """One of the two, as a process."""

    def __init__(self, command: CommandOf, data: Path) -> None:
        self.port, self.data = free_port(), data
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._command = command
        self.process: psutil.Popen

    @contextmanager
    def running(self) -> Iterator[float]:
        """Gives the seconds from its start to its first answer."""
        began = time.perf_counter()
        command = tethered(self._command(self.port, self.data))
        self.process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not _has_metadata(self.port):
                if self.process.poll() is not None or time.perf_counter() - began > 30:
                    sys.exit(f"the broker does not answer: {' '.join(command)}")
                time.sleep(0.002)
            yield time.perf_counter() - began
        finally:
            self.process.terminate()
            try:
                self.process.wait(60)
            except psutil.TimeoutExpired:
                self.process.kill()

    def topic(self, partitions: int = PARTITIONS) -> str:
        name = f"bench-{os.urandom(4).hex()}"
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)
        return name

    def delete(self, topic: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        admin.delete_topics([topic])[topic].result(20)

    def producer(self, **more: Any) -> Producer:
        settings = {"bootstrap.servers": self.bootstrap, "acks": "all", "enable.idempotence": True}
        return Producer(settings | {"linger.ms": 5, "queue.buffering.max.messages": RECORDS + 1} | more)

    def consumer(self, group: str, **more: Any) -> Consumer:
        settings = {"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False}
        return Consumer(settings | {"auto.offset.reset": "earliest"} | more)


def _our_command(port: int, data: Path) -> list[str]:
    return [sys.executable, "-m", "infra.broker", "--port", str(port), "--data", str(data)]


def _has_metadata(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(METADATA)
        return len(connection.recv(4)) == 4
    return False


def _start_seconds(broker: Broker) -> float:
    with broker.running() as seconds:
        return seconds


def _produce_and_consume(broker: Broker) -> tuple[float, float]:
    topic = broker.topic()
    rates = _produce_rate(broker, topic, RECORDS, os.urandom(VALUE_BYTES)), _consume_rate(broker, topic)
    broker.delete(topic)
    return rates


def _produce_rate(broker: Broker, topic: str, count: int, value: bytes) -> float:
    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    producer = broker.producer()
    producer.list_topics(topic)  # what a connection costs is not a rate
    began = time.perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
    left = producer.flush(300)
    seconds = time.perf_counter() - began
    if failed or left:
        sys.exit(f"{len(failed)} records failed, {left} were not acknowledged")
    return count / seconds


def _consume_rate(broker: Broker, topic: str) -> float:
    # noida answers a fetch with all that it has, whatever limit was asked for.
    greedy = {"queued.min.messages": 200_000, "fetch.queue.backoff.ms": 10, "receive.message.max.bytes": 1_000_000_000}
    consumer = broker.consumer("bench", **greedy)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    began, got = time.perf_counter(), 0
    while got < RECORDS:
        if time.perf_counter() - began > 120:
            sys.exit(f"only {got} of {RECORDS} records were consumed within two minutes")
        got += sum(message.error() is None for message in consumer.consume(5_000, timeout=1.0))
    seconds = time.perf_counter() - began
    consumer.close()
    return RECORDS / seconds


def _details(name: str, broker: Broker) -> dict[str, float | str]:
    return {
        f"{name}_idle_cpu_percent": _idle_cpu_percent(broker),
        f"{name}_latency_p50_ms": _latency_p50_ms(broker),
    }


def _idle_cpu_percent(broker: Broker) -> float:
    """Of one core, with ten members of one group on a topic where nothing happens."""
    topic, stop = broker.topic(IDLE_CONSUMERS), threading.Event()

    def wait_for_records() -> None:
        consumer = broker.consumer(f"idle-{topic}")
        consumer.subscribe([topic])
        while not stop.is_set():
            consumer.poll(0.5)
        consumer.close()

    threads = [threading.Thread(target=wait_for_records) for _ in range(IDLE_CONSUMERS)]
    for thread in threads:
        thread.start()
    time.sleep(6)  # until their group has settled
    before, began = broker.process.cpu_times(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    after, seconds = broker.process.cpu_times(), time.perf_counter() - began
    stop.set()
    for thread in threads:
        thread.join()
    return 100 * (after.user + after.system - before.user - before.system) / seconds


def _latency_p50_ms(broker: Broker) -> float:
    """From `produce` to `poll` in this one process, a record each few milliseconds."""
    topic = broker.topic(1)
    producer, consumer = broker.producer(**{"linger.ms": 0}), broker.consumer("latency")
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    consumer.poll(1.0)
    delays: list[float] = []
    for _ in range(LATENCY_SAMPLES):
        began = time.perf_counter()
        producer.produce(topic, b"x" * VALUE_BYTES)
        producer.poll(0)
        message = consumer.poll(5.0)
        if message is not None and message.error() is None:
            delays.append(time.perf_counter() - began)
        time.sleep(0.003)
    producer.flush(10)
    consumer.close()
    return 1_000 * statistics.median(delays)


def _memory(broker: Broker, records: int) -> dict[str, float | str]:
    """Resident megabytes after the first tenth of so many small records, and after all."""
    with broker.running():
        topic = broker.topic()
        _produce_rate(broker, topic, records // 10, b"x" * 100)
        early = broker.process.memory_info().rss
        _produce_rate(broker, topic, records - records // 10, b"x" * 100)
        late = broker.process.memory_info().rss
    return {"memory_records": float(records), "memory_first_tenth_mb": early / 1e6, "memory_all_mb": late / 1e6}
