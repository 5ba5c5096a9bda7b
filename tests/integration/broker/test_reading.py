"""Places in a log: by time, by number, by pattern, at its end."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from tests.integration.broker.kit import PATIENCE, Kit, read, unique


@pytest.fixture(scope="module")
def twenty(kit: Kit) -> str:
    """A topic with the records 0 to 19."""
    topic = kit.topic()
    kit.send(topic, *[b"%d" % n for n in range(20)])
    return topic


def listed(kit: Kit, topic: str, spec: OffsetSpec) -> int:
    (answer,) = kit.admin.list_offsets({TopicPartition(topic, 0): spec}).values()
    return int(answer.result(10).offset)


def test_the_first_and_the_next_offset_are_told(kit: Kit, twenty: str) -> None:
    assert listed(kit, twenty, OffsetSpec.earliest()) == 0
    assert listed(kit, twenty, OffsetSpec.latest()) == 20
    assert kit.watermarks(twenty) == (0, 20)


def test_the_offset_of_the_largest_timestamp_is_told(kit: Kit) -> None:
    topic = kit.topic()
    now = int(time.time() * 1000)
    kit.send_records(topic, [{"value": b"x", "timestamp": now + late} for late in (10, 900, 30)])
    assert listed(kit, topic, OffsetSpec.max_timestamp()) == 1


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_an_offset_is_found_by_its_time_within_a_batch_too(kit: Kit, codec: str) -> None:
    topic = kit.topic()
    base = (int(time.time()) - 3_600) * 1_000
    for chunk in range(5):
        records = [{"value": b"x", "timestamp": base + (chunk * 10 + n) * 1_000} for n in range(10)]
        kit.send_records(topic, records, compression_type=codec)
    # One record a second: the first at or after the time asked for; none after the last.
    asked = (base, base + 7_500, base + 25_000, base + 49_000, base + 10**9)
    with kit.consumer() as consumer:
        found = [consumer.offsets_for_times([TopicPartition(topic, 0, t)], timeout=8)[0].offset for t in asked]
    assert found in ([0, 8, 25, 49, -1], [0, 8, 25, 49, 50])


def test_a_consumer_can_go_back_and_forth(kit: Kit, twenty: str) -> None:
    with kit.consumer() as consumer:
        consumer.assign([TopicPartition(twenty, 0, OFFSET_BEGINNING)])
        read(consumer, 3)
        for place in (15, 2):
            consumer.seek(TopicPartition(twenty, 0, place))
            assert read(consumer, 1)[0].offset() == place


@pytest.mark.parametrize(("policy", "first"), [("earliest", 0), ("latest", 20)])
def test_beyond_the_end_a_consumer_begins_as_it_was_told(kit: Kit, policy: str, first: int) -> None:
    topic = kit.topic()
    kit.send(topic, *[b"%d" % n for n in range(20)])
    with kit.consumer(auto_offset_reset=policy, enable_partition_eof=True) as consumer:
        consumer.assign([TopicPartition(topic, 0, 5_000)])
        deadline = time.monotonic() + PATIENCE
        while (message := consumer.poll(0.1)) is None:
            assert time.monotonic() < deadline
        assert message.offset() == first


def test_beyond_the_end_a_consumer_that_wants_an_error_gets_one(kit: Kit, twenty: str) -> None:
    with kit.consumer(auto_offset_reset="error") as consumer:
        consumer.assign([TopicPartition(twenty, 0, 5_000)])
        with pytest.raises(KafkaException) as told:
            read(consumer, 1)
    assert told.value.args[0].code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


def test_from_the_end_only_what_is_new_is_read(kit: Kit, twenty: str) -> None:
    topic = kit.topic()
    kit.send(topic, b"old")
    with kit.consumer(enable_partition_eof=True) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
        deadline = time.monotonic() + PATIENCE
        while (message := consumer.poll(0.1)) is None or message.error() is None:
            assert time.monotonic() < deadline, "no end of the partition"
        kit.send(topic, b"new")
        assert read(consumer, 1)[0].value() == b"new"


def test_topics_are_found_by_a_pattern_and_reading_can_pause(kit: Kit) -> None:
    prefix = unique("found")
    topics = [f"{prefix}.{n}" for n in range(2)]
    for topic in topics:
        create(kit, topic)
        kit.send(topic, *[b"%d" % n for n in range(10)])
    with kit.consumer() as consumer:
        consumer.subscribe([f"^{prefix}.*"])
        found = read(consumer, 5)
        consumer.pause(consumer.assignment())
        assert consumer.poll(0.3) is None
        consumer.resume(consumer.assignment())
        found += read(consumer, 15)
    assert sorted((m.topic(), m.offset()) for m in found) == sorted((t, n) for t in topics for n in range(10))


def create(kit: Kit, topic: str) -> None:
    kit.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)


def test_the_end_of_a_partition_is_told(kit: Kit, twenty: str) -> None:
    with kit.consumer(enable_partition_eof=True) as consumer:
        consumer.assign([TopicPartition(twenty, 0, OFFSET_BEGINNING)])
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, "no end of the partition"
            message = consumer.poll(0.1)
            error = message.error() if message is not None else None
            if message is not None and error is not None:
                assert (error.code(), message.offset()) == (KafkaError._PARTITION_EOF, 20)
                return
