"""What this broker leaves out is refused in the protocol's own words, and what it has goes on working."""

import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from tests.integration.broker.kit import Kit, read, unique


def test_the_consumer_protocol_of_kafka_4_is_not_had_and_the_classic_one_works(kit: Kit) -> None:
    # librdkafka sees that the broker doesn't offer it, and waits without a word; by hand: see test_protocol.py.
    topic = kit.topic()
    kit.send(topic, *[b"%d" % n for n in range(3)])
    modern = Consumer({
        "bootstrap.servers": kit.bootstrap, "group.id": unique("modern"), "group.protocol": "consumer",
        "auto.offset.reset": "earliest", "log_level": 0,
    })  # fmt: skip
    modern.subscribe([topic])
    given = [message for message in modern.consume(1, timeout=1.5) if message.error() is None]
    began = time.monotonic()
    modern.close()
    assert (given, time.monotonic() - began < 5) == ([], True)
    with kit.consumer() as classic:
        classic.subscribe([topic])
        assert [m.value() for m in read(classic, 3)] == [b"0", b"1", b"2"]


def test_a_transactional_producer_is_refused_and_a_plain_one_works(kit: Kit) -> None:
    topic = kit.topic()
    producer = kit.producer(transactional_id=unique("tx"))
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(8)
    error: KafkaError = refused.value.args[0]
    assert error.code() != KafkaError._TIMED_OUT, "it waited in vain instead of being told"
    del producer
    assert kit.send(topic, b"x", enable_idempotence=True) == [(0, 0)]


def test_a_reader_of_committed_records_reads_what_has_no_transaction(kit: Kit) -> None:
    topic = kit.topic()
    kit.send(topic, b"a", b"b")
    found = kit.read_all(topic, isolation_level="read_committed")
    assert [m.value() for m in found] == [b"a", b"b"]
