import pytest
from kio.schema.errors import ErrorCode

from infra.broker.batches import read_header
from infra.broker.errors import BrokerError
from infra.broker.producers import Noted, Producers
from tests.unit.infra.broker.storage_kit import numbered

LAST = 2**31 - 1


def send(producers: Producers, sequence: int, count: int = 1, *, offset: int = 0, epoch: int = 0) -> Noted | None:
    header = read_header(numbered(sequence, count, epoch=epoch))
    noted = producers.check(header)
    if noted is None:
        producers.note(header, offset, now_ms=1000)
    return noted


def refusal(producers: Producers, sequence: int, count: int = 1, *, epoch: int = 0) -> ErrorCode:
    with pytest.raises(BrokerError) as caught:
        producers.check(read_header(numbered(sequence, count, epoch=epoch)))
    return caught.value.code


def test_the_last_five_batches_are_answered_with_their_old_offsets():
    producers = Producers()
    for sequence in range(7):
        assert send(producers, sequence, offset=100 + sequence) is None
    for sequence in range(2, 7):
        assert send(producers, sequence) == (sequence, sequence, 100 + sequence, 100 + sequence, 1000)
    assert refusal(producers, 1) is ErrorCode.out_of_order_sequence_number


def test_a_gap_is_refused_and_the_next_in_order_is_not():
    producers = Producers()
    send(producers, 0, 3)
    assert refusal(producers, 4) is ErrorCode.out_of_order_sequence_number
    assert send(producers, 3) is None


def test_the_same_start_with_another_end_is_no_duplicate():
    producers = Producers()
    send(producers, 0, 3)
    assert refusal(producers, 0, 2) is ErrorCode.out_of_order_sequence_number


def test_a_producer_nothing_is_known_of_may_start_anywhere():
    assert send(Producers(), 812) is None


def test_an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero():
    producers = Producers()
    send(producers, 0, epoch=3)
    assert refusal(producers, 1, epoch=2) is ErrorCode.invalid_producer_epoch
    assert refusal(producers, 1, epoch=4) is ErrorCode.out_of_order_sequence_number
    assert send(producers, 0, epoch=4) is None
    assert refusal(producers, 1, epoch=3) is ErrorCode.invalid_producer_epoch


def test_after_the_greatest_sequence_comes_zero():
    producers = Producers()
    send(producers, LAST - 1, 2)
    assert refusal(producers, LAST) is ErrorCode.out_of_order_sequence_number
    assert send(producers, 0) is None


def test_a_batch_may_reach_across_the_greatest_sequence():
    producers = Producers()
    send(producers, LAST, 3, offset=50)  # LAST, 0, 1
    assert send(producers, LAST, 3) == (LAST, 1, 50, 52, 1000)
    assert send(producers, 2) is None


def test_a_snapshot_brings_everything_back():
    producers = Producers()
    for sequence in range(6):
        send(producers, sequence, offset=sequence)
    back = Producers.from_bytes(producers.to_bytes())
    assert back.to_bytes() == producers.to_bytes()
    assert send(back, 3) == (3, 3, 3, 3, 1000)
    assert refusal(back, 8) is ErrorCode.out_of_order_sequence_number


def test_a_damaged_snapshot_is_refused_wherever_the_damage_is():
    producers = Producers()
    send(producers, 0)
    snapshot = producers.to_bytes()
    for at in range(len(snapshot)):
        with pytest.raises(ValueError, match="damaged"):
            Producers.from_bytes(snapshot[:at] + bytes([snapshot[at] ^ 1]) + snapshot[at + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            Producers.from_bytes(snapshot[:at])


def test_silent_producers_are_forgotten():
    producers = Producers()
    send(producers, 0)
    assert producers.expire(1000 + 59, 60) == 0
    assert producers.expire(1000 + 60, 60) == 1
    assert len(producers) == 0
