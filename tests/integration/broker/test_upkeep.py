"""What the broker does by itself: old records go, and of a compacted topic each key keeps its latest record."""

import time

import pytest

from tests.integration.broker.kit import BrokerProcess, Kit, until

pytestmark = pytest.mark.timeout(120)
FAST = {"segment_ms": "300", "segment_bytes": "10240"}
COMPACT = FAST | {
    "cleanup_policy": "compact",
    "min_cleanable_dirty_ratio": "0.01",
    "max_compaction_lag_ms": "300",
    "min_compaction_lag_ms": "0",
    "delete_retention_ms": "300",
}
WITHIN = 45.0


def fill_compacted(kit: Kit, topic: str) -> None:
    """Ten rounds of twenty keys, then the end of k0; and what makes the last segment a closed one."""
    for turn in range(10):
        records = [{"key": b"k%d" % n, "value": b"%d " % turn + b"x" * 300} for n in range(20)]
        kit.send_records(topic, records)
    kit.send_records(topic, [{"key": b"k0", "value": None}])
    time.sleep(0.5)
    kit.send_records(topic, [{"key": b"last", "value": b"1"}])


def table(kit: Kit, topic: str) -> dict[bytes | None, bytes | None]:
    return {m.key(): m.value() for m in kit.read_all(topic)}


def test_compaction_keeps_the_latest_of_each_key_where_it_was(kit: Kit) -> None:
    topic = kit.topic(**COMPACT)
    fill_compacted(kit, topic)
    until(lambda: len(kit.read_all(topic)) < 60, "most old records are gone", every=0.2, patience=WITHIN)
    expected = {b"k%d" % n: b"9 " + b"x" * 300 for n in range(1, 20)} | {b"last": b"1"}
    assert {key: value for key, value in table(kit, topic).items() if value is not None} == expected
    offsets = {m.key(): m.offset() for m in kit.read_all(topic)}
    assert [offsets[b"k%d" % n] for n in range(1, 20)] == [180 + n for n in range(1, 20)]
    assert (offsets[b"last"], kit.watermarks(topic)[1]) == (201, 202)


def test_the_mark_of_a_deleted_key_goes_too_in_the_end(kit: Kit) -> None:
    topic = kit.topic(**COMPACT)
    kit.send_records(topic, [{"key": b"gone", "value": b"x"}, {"key": b"gone", "value": None}])
    turn = iter(range(1_000))

    def gone() -> bool:
        # New segments come only with new records, and only a closed one is cleaned.
        kit.send_records(topic, [{"key": b"stays", "value": b"%d" % next(turn)}])
        return b"gone" not in table(kit, topic)

    until(gone, "no trace of the key is left", every=0.2, patience=WITHIN)


def test_a_compacted_topic_refuses_records_without_a_key(kit: Kit) -> None:
    topic = kit.topic(**COMPACT)
    places, errors = kit.try_to_send(topic, [{"value": b"x"}], message_timeout_ms=5_000)
    assert (places, errors) == ([], ["INVALID_RECORD"])


def test_compressed_records_are_compacted_and_readable_afterwards(kit: Kit) -> None:
    """All four codecs side by side: each turn waits until its segments may be closed."""
    topics = {codec: kit.topic(**COMPACT) for codec in ("gzip", "snappy", "lz4", "zstd")}
    for turn in range(6):
        records = [{"key": b"k%d" % n, "value": b"%d " % turn + b"y" * 300} for n in range(20)]
        for codec, topic in topics.items():
            kit.send_records(topic, records, compression_type=codec)
        time.sleep(0.4)
    expected = {b"k%d" % n: b"5 " + b"y" * 300 for n in range(20)} | {b"last": b"1"}
    for topic in topics.values():
        kit.send_records(topic, [{"key": b"last", "value": b"1"}])
    for codec, topic in topics.items():
        until(
            lambda topic=topic: len(kit.read_all(topic)) < 60, f"most old records of {codec} are gone",
            every=0.2, patience=WITHIN,
        )  # fmt: skip
        assert table(kit, topic) == expected, codec


def test_records_older_than_the_retention_go_and_the_offsets_stay(kit: Kit) -> None:
    topic = kit.topic(retention_ms="1000", **FAST)
    kit.send(topic, *[b"y" * 500] * 100, batch_num_messages=10)
    time.sleep(1.2)
    (place,) = kit.send(topic, b"new")
    assert place == (0, 100)
    until(lambda: kit.watermarks(topic)[0] >= 50, "the old half is gone", every=0.2, patience=WITHIN)
    first, end = kit.watermarks(topic)
    assert end == 101
    assert [m.offset() for m in kit.read_all(topic)] == list(range(first, 101)) or kit.watermarks(topic)[0] > first


def test_when_everything_has_expired_the_next_record_goes_on_counting(kit: Kit) -> None:
    topic = kit.topic(retention_ms="500", **FAST)
    kit.send(topic, *[b"y" * 500] * 30, batch_num_messages=10)
    until(lambda: kit.watermarks(topic) == (30, 30), "everything is gone", every=0.2, patience=WITHIN)
    assert kit.send(topic, b"next") == [(0, 30)]


def test_records_beyond_the_allowed_bytes_go(kit: Kit) -> None:
    topic = kit.topic(retention_bytes="20000", segment_bytes="10240")
    for _ in range(10):
        kit.send(topic, *[b"y" * 1_000] * 10)
    until(lambda: kit.watermarks(topic)[0] >= 50, "the old half is gone", every=0.2, patience=WITHIN)
    first, end = kit.watermarks(topic)
    # 20,000 bytes are at least 19 records, and a segment goes only as a whole.
    assert (end, first <= 100 - 19) == (100, True)


def test_producers_and_consumers_go_on_while_it_cleans(kit: Kit) -> None:
    topic = kit.topic(**COMPACT)
    producer = kit.producer(enable_idempotence=True)
    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    began, number = time.monotonic(), 0
    with kit.consumer() as consumer:
        consumer.subscribe([topic])
        offsets: list[int] = []
        while time.monotonic() - began < 5:
            producer.produce(topic, b"%d" % number, b"k%d" % (number % 10), on_delivery=delivered)
            number += 1
            producer.poll(0)
            message = consumer.poll(0.005)
            if message is not None:
                assert message.error() is None, message.error()
                offsets.append(message.offset() or 0)
        assert producer.flush(20) == 0
    assert (failed, offsets == sorted(set(offsets)), len(offsets) > 50) == ([], True, True)


def test_what_was_cleaned_stays_so_after_a_restart(server: BrokerProcess, kit: Kit) -> None:
    topic = kit.topic(**COMPACT)
    fill_compacted(kit, topic)
    until(lambda: len(kit.read_all(topic)) < 60, "most old records are gone", every=0.2, patience=WITHIN)
    before = {key: value for key, value in table(kit, topic).items() if value is not None}
    server.kill()
    server.start()
    assert {key: value for key, value in table(kit, topic).items() if value is not None} == before
    assert kit.send_records(topic, [{"key": b"k1", "value": b"after"}]) == [(0, 202)]
