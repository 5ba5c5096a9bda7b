"""Sequences of idempotent producers, by hand: what a client sees when a request or its answer was lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.broker.kit import BrokerProcess, Kit
from tests.integration.broker.wire import Wire, batch, produce, produced, producer_id


@pytest.fixture
def wire(server: BrokerProcess) -> Iterator[Wire]:
    with Wire(server.port) as connection:
        yield connection


def values(kit: Kit, topic: str) -> list[bytes | None]:
    return [m.value() for m in kit.read_all(topic)]


def test_every_producer_gets_an_id_of_its_own(wire: Wire) -> None:
    assert len({producer_id(wire) for _ in range(50)}) == 50


def test_a_batch_sent_again_is_answered_with_its_old_offset_and_not_stored_again(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(), producer_id(wire)
    assert produced(wire.call(produce(topic, batch(b"a", b"b", producer=(me, 0, 0))))) == ("none", 0)
    assert produced(wire.call(produce(topic, batch(b"c", producer=(me, 0, 2))))) == ("none", 2)
    assert produced(wire.call(produce(topic, batch(b"a", b"b", producer=(me, 0, 0))))) == ("none", 0)
    assert values(kit, topic) == [b"a", b"b", b"c"]


def test_a_gap_in_the_sequence_is_refused(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(), producer_id(wire)
    wire.call(produce(topic, batch(b"a", producer=(me, 0, 0))))
    assert produced(wire.call(produce(topic, batch(b"c", producer=(me, 0, 2)))))[0] == "out_of_order_sequence_number"
    assert produced(wire.call(produce(topic, batch(b"b", producer=(me, 0, 1))))) == ("none", 1)
    assert values(kit, topic) == [b"a", b"b"]


def test_the_last_five_batches_are_remembered(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(), producer_id(wire)
    for number in range(6):
        wire.call(produce(topic, batch(b"%d" % number, producer=(me, 0, number))))
    again = [produced(wire.call(produce(topic, batch(b"%d" % n, producer=(me, 0, n))))) for n in range(1, 6)]
    assert again == [("none", n) for n in range(1, 6)]
    older, _ = produced(wire.call(produce(topic, batch(b"0", producer=(me, 0, 0)))))
    assert older in ("duplicate_sequence_number", "out_of_order_sequence_number")
    assert values(kit, topic) == [b"%d" % n for n in range(6)]


def test_an_older_epoch_is_refused_and_a_newer_one_begins_at_zero(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(), producer_id(wire)
    wire.call(produce(topic, batch(b"a", producer=(me, 0, 0))))
    assert produced(wire.call(produce(topic, batch(b"b", producer=(me, 1, 0))))) == ("none", 1)
    assert produced(wire.call(produce(topic, batch(b"c", producer=(me, 0, 1)))))[0] == "invalid_producer_epoch"
    assert produced(wire.call(produce(topic, batch(b"d", producer=(me, 2, 5)))))[0] == "out_of_order_sequence_number"
    assert values(kit, topic) == [b"a", b"b"]


def test_each_partition_counts_for_itself(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(2), producer_id(wire)
    for partition in (0, 1):
        answer = wire.call(produce(topic, batch(b"a", producer=(me, 0, 0)), partition=partition))
        assert produced(answer) == ("none", 0)


def test_the_sequence_goes_on_at_zero_after_its_largest_number(kit: Kit, wire: Wire) -> None:
    topic, me = kit.topic(), producer_id(wire)
    largest = 2**31 - 1
    # A producer that the broker does not know (its state has expired) may begin anywhere.
    first, _ = produced(wire.call(produce(topic, batch(b"a", producer=(me, 0, largest)))))
    assert first == "none"
    assert produced(wire.call(produce(topic, batch(b"b", producer=(me, 0, 0))))) == ("none", 1)
    assert values(kit, topic) == [b"a", b"b"]


def test_a_damaged_batch_is_refused(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    good = batch(b"payload")
    damaged = good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]
    assert produced(wire.call(produce(topic, damaged)))[0] == "corrupt_message"
    assert produced(wire.call(produce(topic, good))) == ("none", 0)


def test_the_formats_of_before_2017_are_refused(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    answer, _ = produced(wire.call(produce(topic, batch(b"old", magic=1))))
    assert answer in ("unsupported_for_message_format", "invalid_record", "corrupt_message")
    assert kit.watermarks(topic) == (0, 0)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_producer_is_remembered_through_a_restart(tmp_path: Path, end: str) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        kit = Kit(server.bootstrap)
        topic = kit.topic()
        with Wire(server.port) as wire:
            me = producer_id(wire)
            for number in range(3):
                wire.call(produce(topic, batch(b"%d" % number, producer=(me, 0, number))))
        server.kill() if end == "kill" else server.stop()
        server.start()
        with Wire(server.port) as wire:
            assert produced(wire.call(produce(topic, batch(b"2", producer=(me, 0, 2))))) == ("none", 2)
            gap, _ = produced(wire.call(produce(topic, batch(b"9", producer=(me, 0, 9)))))
            assert gap == "out_of_order_sequence_number"
            assert produced(wire.call(produce(topic, batch(b"3", producer=(me, 0, 3))))) == ("none", 3)
            assert producer_id(wire) != me
        assert values(kit, topic) == [b"0", b"1", b"2", b"3"]
