"""What producers may count on: codecs, headers, timestamps, sizes, acknowledgements."""

import os
import time

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from tests.integration.broker.kit import Kit

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_whole_and_once_whatever_their_codec(kit: Kit, codec: str) -> None:
    topic = kit.topic(2)
    base = int(time.time() * 1000) - 60_000
    sent = [
        {
            "key": b"key-%d" % (n % 7),
            "value": b"%d " % n + b"x" * 200,
            "headers": [("first", b"1"), ("number", b"%d" % n), ("nothing", None)],
            "timestamp": base + n,
        }
        for n in range(300)
    ]
    kit.send_records(topic, sent, enable_idempotence=True, compression_type=codec)
    found = sorted(kit.read_all(topic, 2), key=lambda m: m.timestamp()[1])
    assert [(m.key(), m.value(), m.headers()) for m in found] == [(s["key"], s["value"], s["headers"]) for s in sent]
    assert [m.timestamp() for m in found] == [(TIMESTAMP_CREATE_TIME, base + n) for n in range(300)]
    assert len({(m.key(), m.partition()) for m in found}) == 7


def test_the_records_of_one_partition_keep_their_order(kit: Kit) -> None:
    topic = kit.topic()
    values = [b"%d" % n for n in range(2_000)]
    places = kit.send(topic, *values, enable_idempotence=True, batch_num_messages=50)
    assert places == [(0, n) for n in range(2_000)]
    assert [(m.offset(), m.value()) for m in kit.read_all(topic)] == list(enumerate(values))


def test_no_value_and_an_empty_value_are_two_things(kit: Kit) -> None:
    topic = kit.topic()
    records = [(b"a", None), (None, b"v"), (b"", b"")]
    kit.send_records(topic, [{"key": key, "value": value} for key, value in records])
    assert [(m.key(), m.value()) for m in kit.read_all(topic)] == records


def test_a_megabyte_fits(kit: Kit) -> None:
    topic, value = kit.topic(), os.urandom(999_800)
    kit.send(topic, value, message_max_bytes=2_000_000)
    assert [m.value() == value for m in kit.read_all(topic)] == [True]


def test_eight_megabytes_fit_where_the_topic_allows_them(kit: Kit) -> None:
    topic, value = kit.topic(max_message_bytes="10485760"), os.urandom(8_000_000)
    kit.send(topic, value, message_max_bytes=10_000_000)
    found = kit.read_all(topic, fetch_message_max_bytes=10_000_000)
    assert [m.value() == value for m in found] == [True]


def test_a_record_larger_than_a_fetch_asks_for_is_sent_nevertheless(kit: Kit) -> None:
    topic, value = kit.topic(), os.urandom(500_000)
    kit.send(topic, value, b"next")
    found = kit.read_all(topic, fetch_message_max_bytes=1_000, max_partition_fetch_bytes=1_000)
    assert [m.value() for m in found] == [value, b"next"]


def test_three_megabytes_are_refused_by_the_default_limit(kit: Kit) -> None:
    topic = kit.topic()
    sent = kit.try_to_send(topic, [{"value": os.urandom(3_000_000)}], message_max_bytes=10_000_000)
    assert sent == ([], ["MSG_SIZE_TOO_LARGE"])
    assert kit.watermarks(topic) == (0, 0)


def test_a_topic_may_keep_the_brokers_time_instead_of_the_producers(kit: Kit) -> None:
    topic = kit.topic(message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    kit.send_records(topic, [{"value": b"x", "timestamp": before - 100_000}] * 3)
    after = int(time.time() * 1000)
    kinds = [m.timestamp()[0] for m in kit.read_all(topic)]
    times = [m.timestamp()[1] for m in kit.read_all(topic)]
    assert kinds == [TIMESTAMP_LOG_APPEND_TIME] * 3
    assert all(before <= t <= after for t in times)


@pytest.mark.parametrize("codec", CODECS)
def test_the_brokers_time_is_set_in_compressed_batches_too(kit: Kit, codec: str) -> None:
    topic = kit.topic(message_timestamp_type="LogAppendTime")
    kit.send_records(topic, [{"value": b"x" * 50, "timestamp": 1_000}] * 20, compression_type=codec)
    found = kit.read_all(topic, check_crcs=True)
    assert [(m.value(), m.timestamp()[0]) for m in found] == [(b"x" * 50, TIMESTAMP_LOG_APPEND_TIME)] * 20


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_records_arrive_whatever_acknowledgement_was_asked_for(kit: Kit, acks: str) -> None:
    topic = kit.topic()
    kit.send(topic, *[b"%d" % n for n in range(10)], acks=acks)
    assert [m.value() for m in kit.read_all(topic)] == [b"%d" % n for n in range(10)]


def test_a_partition_that_exists_is_written_and_one_that_does_not_is_refused(kit: Kit) -> None:
    topic = kit.topic(3)
    assert kit.send_records(topic, [{"value": b"x", "partition": 2}]) == [(2, 0)]
    _, errors = kit.try_to_send(topic, [{"value": b"x", "partition": 7}], message_timeout_ms=2_000)
    assert errors == ["_UNKNOWN_PARTITION"]


def test_many_producers_share_one_partition_without_losing_each_other(kit: Kit) -> None:
    topic = kit.topic()
    producers = [kit.producer(enable_idempotence=True, linger_ms=0) for _ in range(8)]
    for number in range(100):
        for who, producer in enumerate(producers):
            producer.produce(topic, b"%d:%d" % (who, number))
    assert [producer.flush(20) for producer in producers] == [0] * 8
    values = [m.value() or b"" for m in kit.read_all(topic)]
    for who in range(8):
        assert [v for v in values if v.startswith(b"%d:" % who)] == [b"%d:%d" % (who, n) for n in range(100)]
