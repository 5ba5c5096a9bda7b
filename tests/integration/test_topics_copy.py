"""A log that moves from one broker to another keeps its offsets."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from infra.cli.app import app
from infra.local.broker import EmbeddedBroker
from infra.local.copying import copy_log
from infra.local.topics import create_topics
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.errors import SettingsError

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
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "t", "enable.partition.eof": True})
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


def test_the_command_tells_what_it_copied(brokers: tuple[str, str], tmp_path: Path) -> None:
    old, new = brokers
    send(old, topics.OUTPUTS.name, b"0", b"1")
    arguments = ["topics", "copy", "--from", old, "--bootstrap-servers", new, "--data", str(tmp_path)]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert "every event has the offset that it had" in told.output
    assert [value for _, _, value, *_ in read(new, topics.OUTPUTS.name)] == [b"0", b"1"]
