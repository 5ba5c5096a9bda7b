"""What the tests of the streams share: events to send, programs to run and kill, tables to look into."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from schemas.connection import KafkaConnection
from schemas.envelope import Event, Headers, encode, new_event, type_name
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id, prompt_id
from schemas.messages import ChatMessage
from schemas.outputs import Output
from schemas.tables import Table
from schemas.topics import BY_NAME
from streams.adapters.lake import LakeTable, latest, open_table
from streams.ingest import Ingest
from streams.metrics import Metrics
from streams.refine import Refine
from streams.settings import StreamSettings

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0


def output(question: str = "Where is my parcel?", answer: str | None = None, **more: Any) -> Output:
    prompt = (ChatMessage(role="user", content=question),)
    response_id = more.pop("response_id", None) or new_response_id()
    return Output(
        response_id=response_id,
        prompt_id=prompt_id(prompt),
        prompt=prompt,
        completion=answer or f"answer of {response_id}",
        version=more.pop("version", "base"),
        base_model="tiny",
        temperature=0.8,
        max_completion_tokens=20,
        finish_reason="stop",
        input_tokens=4,
        output_tokens=6,
        latency_seconds=0.1,
        **more,
    )


def feedback(response_id: str, kind: str, user: str = "ann", text: str | None = None) -> Feedback:
    return Feedback(response_id=response_id, kind=FeedbackKind(kind), user_id=user, text=text)


def event(data: Any, **more: Any) -> Event[Any]:
    return new_event(data, source="test", **more)


def until(
    condition: Callable[[], bool],
    what: str,
    *,
    doing: Callable[[], object] = lambda: time.sleep(0.2),
    patience: float = PATIENCE,
) -> None:
    """Wait for a condition; the bound only keeps a broken test from hanging."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain for: {what}"
        doing()


class Kit:
    """One broker, one data folder."""

    def __init__(self, bootstrap: str, data: Path) -> None:
        self.bootstrap, self.data = bootstrap, data
        self.settings = StreamSettings(
            data=data,
            kafka=KafkaConnection(bootstrap_servers=bootstrap),
            batch_seconds=0.05,
            retry_seconds=0.1,
            refine_seconds=0.1,
        )
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "message.max.bytes": 4_000_000}
        )

    def send(self, *events: Event[Any]) -> None:
        for one in events:
            key, value, headers = encode(one)
            self.send_raw(type_name(type(one.data)), value, headers, key=key, flush=False)
        self.flush()

    def send_raw(
        self, topic: str, value: bytes | None, headers: Headers = (), *, key: bytes = b"k", flush: bool = True
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, headers=list(headers))
                break
            except BufferError:
                self._producer.poll(0.1)
        if flush:
            self.flush()

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def ingest(self, **changes: Any) -> Ingest:
        return Ingest(self.settings.model_copy(update=changes), Metrics(), threading.Event())

    def refine(self, **changes: Any) -> Refine:
        return Refine(self.settings.model_copy(update=changes), Metrics(), threading.Event())

    def start(self, program: str, **more: str) -> subprocess.Popen[bytes]:
        """A program as a process of its own."""
        settings = {
            "DATA": str(self.data),
            "KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "BATCH_SECONDS": "0.05",
            "REFINE_SECONDS": "0.1",
            **more,
        }
        env = os.environ | {f"THUMBWHEEL_{name}": value for name, value in settings.items()}
        log = self.data / f"{program}.log"
        self.data.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            return subprocess.Popen([sys.executable, "-m", "streams", program], cwd=ROOT, env=env, stderr=out)

    def table(self, table: Table) -> LakeTable:
        return open_table(self.data / "lake", table)

    def rows(self, table: Table) -> pl.DataFrame:
        return self.table(table).all().collect()

    def latest(self, table: Table) -> pl.DataFrame:
        return latest(self.table(table))

    def read(self, topic: str) -> list[Message]:
        """Everything that a topic holds now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "kit",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        places = {(topic, p) for p in range(BY_NAME[topic].partitions if topic in BY_NAME else 1)}
        consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in places])
        found: list[Message] = []

        def take() -> None:
            first = consumer.poll(0.2)
            for message in () if first is None else (first, *consumer.consume(999, timeout=0)):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    places.discard((message.topic() or "", message.partition() or 0))

        until(lambda: not places, f"the end of {topic}", doing=take)
        consumer.close()
        return found


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and the exit code; never leaves the process behind."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(30)
    finally:
        process.kill()


def content(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows without their revision numbers, in an order of their own."""
    rows = frame.drop("revision").to_dicts() if "revision" in frame.columns else frame.to_dicts()
    return sorted(rows, key=str)
