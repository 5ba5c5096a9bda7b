"""A log that moves from one broker to another keeps its offsets."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from infra.cli.app import app
from infra.demo.lake import Lake
from infra.demo.watch import Watcher
from infra.local.broker import EmbeddedBroker
from infra.local.copying import PADDING_KEY, UnreadableHeaders, copy_log
from infra.local.topics import create_topics
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.envelope import encode, new_event
from schemas.errors import SettingsError
from schemas.versions import ModelVersion, VersionState
from tests.integration.streams_kit import until

SINCE = int(time.time() * 1000) - 60_000  # what is older than a topic keeps would be gone at once
Seen = list[tuple[int, bytes | None, bytes | None, int, object]]


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with EmbeddedBroker(tmp_path / "old" / "data") as old, EmbeddedBroker(tmp_path / "new" / "data") as new:
        create_topics(KafkaConnection(bootstrap_servers=old.bootstrap_servers))
        yield old.bootstrap_servers, new.bootstrap_servers


def send(servers: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for number, value in enumerate(values):
        producer.produce(topic, value, b"key", 0, timestamp=SINCE + number, headers=[("ce_id", value)])
    assert producer.flush(10) == 0


def read(servers: str, topic: str) -> Seen:
    """Everything in partition 0, as it lies there."""
    soon = {"enable.partition.eof": True, "fetch.wait.max.ms": 20}
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "t", **soon})
    found: Seen = []
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        consumer.assign([TopicPartition(topic, 0, low)])
        while (message := consumer.poll(10)) is not None:
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                break
            found.append((message.offset(), message.key(), message.value(), message.timestamp()[1], message.headers()))
    finally:
        consumer.close()
    return found


def delete_before(servers: str, topic: str, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    next(iter(admin.delete_records([TopicPartition(topic, 0, offset)]).values())).result(10)


def kafka(servers: str) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=servers)


def test_events_keep_offset_key_time_and_headers_though_older_ones_are_gone(brokers: tuple[str, str]) -> None:
    old, new = brokers
    send(old, topics.FEEDBACK.name, b"0", b"1", b"2", b"3")
    delete_before(old, topics.FEEDBACK.name, 2)
    done = {copied.topic: copied for copied in copy_log(kafka(old), kafka(new))}
    assert [offset for offset, *_ in read(new, topics.FEEDBACK.name)] == [2, 3]
    assert read(new, topics.FEEDBACK.name) == read(old, topics.FEEDBACK.name)
    assert (done[topics.FEEDBACK.name].events, done[topics.FEEDBACK.name].padded) == (2, 2)


def test_a_copy_that_was_interrupted_is_taken_up(brokers: tuple[str, str]) -> None:
    old, new = brokers
    send(old, topics.FEEDBACK.name, b"0", b"1")
    copy_log(kafka(old), kafka(new))
    send(old, topics.FEEDBACK.name, b"2")
    copy_log(kafka(old), kafka(new))
    assert [value for _, _, value, *_ in read(new, topics.FEEDBACK.name)] == [b"0", b"1", b"2"]


def test_a_target_with_other_events_is_refused(brokers: tuple[str, str]) -> None:
    old, new = brokers
    create_topics(kafka(new))
    send(new, topics.FEEDBACK.name, b"other")
    with pytest.raises(SettingsError, match="another log"):
        copy_log(kafka(old), kafka(new))


FOREIGN = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Name(str):
    def encode(self, *_):
        return b"bad\\xff\\xfename"

async def send():
    producer = AIOKafkaProducer(bootstrap_servers=sys.argv[1])
    await producer.start()
    await producer.send_and_wait(sys.argv[2], b"v", b"k", 0, headers=[(Name("x"), b"y")])
    await producer.stop()

asyncio.run(send())
"""


def send_unreadable(servers: str, topic: str) -> None:
    """A message with a header whose name is not UTF-8, as a producer in another language may send it."""
    told = os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"}
    subprocess.run([sys.executable, "-c", FOREIGN, servers, topic], env=told, check=True, timeout=60)


def test_a_message_with_unreadable_headers_stops_the_copy_or_is_left_out_on_demand(
    brokers: tuple[str, str], tmp_path: Path
) -> None:
    old, new = brokers
    topic = topics.FEEDBACK.name
    send(old, topic, *(b"%d" % n for n in range(100)))  # what runs often is run otherwise by the interpreter
    send_unreadable(old, topic)
    send(old, topic, b"after")
    with pytest.raises(UnreadableHeaders, match=rf"stopped at {topic}/0, offset 100: a header's name is not UTF-8"):
        copy_log(kafka(old), kafka(new))
    assert len(read(new, topic)) == 100, "what comes before is copied"
    arguments = ["topics", "copy", "--from", old, "--bootstrap-servers", new, "--data", str(tmp_path)]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, UnreadableHeaders)
    told = CliRunner().invoke(app, [*arguments, "--skip-unreadable"])
    assert told.exit_code == 0
    assert f"1 messages of {topic} were left out" in " ".join(told.output.split())
    assert "0/100" in told.output
    copied = read(new, topic)
    assert [offset for offset, *_ in copied] == list(range(102))
    assert [(key, value) for _, key, value, *_ in copied[99:]] == [
        (b"key", b"99"), (PADDING_KEY, None), (b"key", b"after")
    ]  # fmt: skip


def test_the_watcher_of_the_demo_passes_over_such_a_message(brokers: tuple[str, str], tmp_path: Path) -> None:
    servers, _ = brokers
    version = ModelVersion(version="v1", state=VersionState.REGISTERED, base_model="tiny", actor="trainer")
    send_unreadable(servers, topics.MODEL_VERSIONS.name)
    key, value, headers = encode(new_event(version, source="test"))
    producer = Producer({"bootstrap.servers": servers})
    producer.produce(topics.MODEL_VERSIONS.name, value, key, 0, headers=list(headers))
    assert producer.flush(10) == 0
    watcher, stop = Watcher(kafka(servers), Lake(tmp_path / "lake")), threading.Event()
    runner = threading.Thread(target=watcher.run, args=(stop,))
    runner.start()
    until(lambda: "v1" in str(watcher.seen.progress), "the version")
    stop.set()
    runner.join()


def test_the_command_tells_what_it_copied(brokers: tuple[str, str], tmp_path: Path) -> None:
    old, new = brokers
    send(old, topics.OUTPUTS.name, b"0", b"1")
    arguments = ["topics", "copy", "--from", old, "--bootstrap-servers", new, "--data", str(tmp_path)]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert "every event has the offset that it had" in told.output
    assert [value for _, _, value, *_ in read(new, topics.OUTPUTS.name)] == [b"0", b"1"]
