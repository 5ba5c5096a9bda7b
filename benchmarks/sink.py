"""Ingest into Delta, against a consumer that does not even look, and against two stream processors that write Delta.

All read the same topic of feedback events of about 600 bytes from the same broker, in turn, in one run, one process
each (faust the first tenth of it, which takes it as long as the whole takes the others); the clock runs from the
assignment of partitions (the others': from their first record) to the last commit. Ours validates every event, dedupes,
and commits rows and offsets together; what the others do and leave out is in `benchmarks/sink_peers.py`. A loaded
machine shows in the ratios of wall time; those of CPU time are beside them.

quixstreams holds confluent-kafka back and can't be in one environment with the rest. Its ratio is left out unless
it lies in a folder of its own:

    pip install --no-deps --target build/peers quixstreams==3.28.1 rocksdict==0.3.29 jsonlines==4.0.0 \\
        jsonpath-ng==1.16.0 ply==3.11 authlib joserfc cachetools orjson

With `--commits N`, instead of all this: N commits of 20 rows with upkeep running beside; the median time of a commit in
the first and in the last tenth, and the process's memory after each.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.result import Result, median_ratio
from infra.local.broker import EmbeddedBroker
from infra.local.topics import create_topics
from schemas import tables, topics
from schemas.connection import KafkaConnection
from schemas.envelope import encode, new_event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from streams.adapters.lake import Move, open_table
from streams.ingest import Ingest
from streams.metrics import Metrics
from streams.settings import StreamSettings
from streams.upkeep import Keeper

EVENTS = 300_000
FAUST_EVENTS = EVENTS // 10
ROUNDS = 3
COMMENT = "The answer was right, but it took me a while to find the sentence that matters; " * 2
PEERS = Path("build/peers")
ROWS_PER_COMMIT = 20
PEER_SECONDS = 300.0
LOG_MINUTES = 0.4
"""Ingest makes a commit a second and keeps 10 minutes of log; this makes some 25, and so keeps as many entries."""

Took = tuple[float, float]
"""Seconds of wall time and of CPU time."""


def run(commits: int | None = None) -> Result:
    """Ratios `raw`, `quix` and `faust`: our events per second as a multiple of theirs."""
    return _race() if commits is None else _flat(commits)


def _race() -> Result:
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker" / "data") as broker:
        kafka = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        create_topics(kafka)
        size = _fill(kafka)
        racers: dict[str, Callable[[Path, int], Took]] = {
            "raw": lambda _, number: _raw(kafka, number),
            "ingest": lambda at, number: _ingest(kafka, at, number),
            "faust": lambda at, _: _peer("faust", kafka, at, FAUST_EVENTS),
        }
        if PEERS.is_dir():
            racers["quix"] = lambda at, _: _peer("quix", kafka, at, EVENTS)
        took: dict[str, list[Took]] = {name: [] for name in racers}
        for number in range(ROUNDS):
            for name, race in racers.items():
                at = Path(folder) / f"{name}-{number}"
                at.mkdir()
                took[name].append(race(at, number))
    return _result(took, size)


def _result(took: dict[str, list[Took]], size: float) -> Result:
    events = {name: FAUST_EVENTS if name == "faust" else EVENTS for name in took}
    rates = {name: [events[name] / wall for wall, _ in rounds] for name, rounds in took.items()}
    cpu = {name: [events[name] / seconds for _, seconds in rounds] for name, rounds in took.items()}
    others = [name for name in took if name != "ingest"]
    details: dict[str, float | str] = {"events": float(EVENTS), "bytes_per_event": size}
    details |= {f"{name}_events_per_second": max(found) for name, found in rates.items()}
    details |= {f"{name}_cpu_us_per_event": 1e6 / max(found) for name, found in cpu.items()}
    details |= {f"{name}_ratio_of_cpu": median_ratio(cpu["ingest"], cpu[name]) for name in others}
    if "quix" not in took:
        details["quix"] = f"not in {PEERS}: see benchmarks/sink.py"
    return Result("sink", {name: median_ratio(rates["ingest"], rates[name]) for name in others}, details)


def _fill(kafka: KafkaConnection) -> float:
    producer = Producer({**kafka.client_config(), "linger.ms": 50, "queue.buffering.max.messages": EVENTS + 1})
    size = 0
    for number in range(EVENTS):
        comment = Feedback(
            response_id=new_response_id(), kind=FeedbackKind.COMMENT, text=COMMENT, user_id=f"user-{number % 997}"
        )
        message = encode(new_event(comment, source="benchmark"))
        size += len(message.value) + sum(len(n) + len(v) for n, v in message.headers)
        producer.produce(topics.FEEDBACK.name, message.value, message.key, headers=list(message.headers))
    producer.flush()
    return size / EVENTS


def _raw(kafka: KafkaConnection, number: int) -> Took:
    consumer = Consumer({
        **kafka.client_config(), "group.id": f"raw-{number}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.queue.backoff.ms": 10, "queued.min.messages": 200_000,
    })  # fmt: skip
    consumer.assign([TopicPartition(topics.FEEDBACK.name, p, 0) for p in range(topics.FEEDBACK.partitions)])
    began, cpu, got = time.perf_counter(), time.process_time(), 0
    while got < EVENTS:
        got += len(consumer.consume(5_000, timeout=1.0))
    took = time.perf_counter() - began, time.process_time() - cpu
    consumer.close()
    return took


def _ingest(kafka: KafkaConnection, data: Path, number: int) -> Took:
    settings = StreamSettings(data=data, kafka=kafka, group=f"benchmark-{number}")
    metrics, stop = Metrics(), threading.Event()
    ingest = Ingest(settings, metrics, stop)
    stored = metrics.rows.labels("feedback")
    while len(ingest.assigned) < sum(t.partitions for t in topics.ALL if t.table):
        ingest.step()
    assert stored._value.get() == 0, "stored before the clock was started"
    began, cpu = time.perf_counter(), time.process_time()
    runner = threading.Thread(target=ingest.run)
    runner.start()
    while stored._value.get() < EVENTS:  # prometheus-client has no public way to read a counter
        time.sleep(0.005)
    took = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    runner.join()
    return took


def _peer(name: str, kafka: KafkaConnection, at: Path, events: int) -> Took:
    command = [sys.executable, "-m", "benchmarks.sink_peers", name, kafka.bootstrap_servers, str(at), str(events)]
    path = os.pathsep.join((str(PEERS.resolve()), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True, timeout=PEER_SECONDS
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["cpu_seconds"]


def _flat(commits: int) -> Result:
    """Ratio `last_tenth`: the median commit of the last tenth, as a multiple of that of the first."""
    with tempfile.TemporaryDirectory() as folder:
        settings = StreamSettings(data=Path(folder), upkeep_seconds=60.0, keep_bronze_log_minutes=LOG_MINUTES)
        stop = threading.Event()
        keeper = Keeper(settings, Metrics(), stop)
        keeper.own(topics.FEEDBACK.name, 0)
        keeper.start()
        seconds, memory = _commit(settings, keeper, commits)
        stop.set()
        keeper.join()
        entries = len(list((Path(folder) / "lake" / tables.FEEDBACK.path / "_delta_log").iterdir()))
    tenth = max(1, commits // 10)
    first, last = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
    details: dict[str, float | str] = {
        "commits": float(commits),
        "first_tenth_milliseconds": first * 1000,
        "last_tenth_milliseconds": last * 1000,
        "slowest_milliseconds": max(seconds) * 1000,
        "memory_mb_after_first_tenth": memory[tenth - 1],
        "memory_mb_at_half": memory[commits // 2],
        "memory_mb_at_the_end": memory[-1],
        "log_entries": float(entries),
    }
    return Result("sink", {"last_tenth": last / first, "memory": memory[-1] / memory[tenth - 1]}, details)


def _commit(settings: StreamSettings, keeper: Keeper, commits: int) -> tuple[list[float], list[float]]:
    table, process = open_table(settings.lake, tables.FEEDBACK), psutil.Process()
    seconds, memory = [], []
    for number in range(commits):
        low = number * ROWS_PER_COMMIT
        rows = table.arrow([_row(low + n) for n in range(ROWS_PER_COMMIT)])
        began = time.perf_counter()
        table.append(rows, {"flat": Move(low or None, low + ROWS_PER_COMMIT)})
        seconds.append(time.perf_counter() - began)
        memory.append(process.memory_info().rss / (1 << 20))
        keeper.committed(tables.FEEDBACK.name)
    return seconds, memory


def _row(offset: int) -> dict[str, object]:
    said = Feedback(response_id=new_response_id(), kind=FeedbackKind.COMMENT, text=COMMENT)
    return tables.event_row(
        new_event(said, source="benchmark"), partition=0, offset=offset, ingested_at=datetime.now(UTC)
    )
