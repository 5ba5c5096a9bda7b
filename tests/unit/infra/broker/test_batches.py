import struct

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from infra.broker.batches import Record, build, check, patched, read_header, varint
from infra.broker.errors import BrokerError
from infra.broker.records import records_of

# One record, key "k", value "v", at time 5: length 8 (zigzag 16), attributes 0, timestamp delta 0, offset delta 0,
# key length 1 (2), "k", value length 1 (2), "v", no headers.
RECORD = bytes([16, 0, 0, 0, 2]) + b"k" + bytes([2]) + b"v" + bytes([0])
CHECKED = struct.pack(">hiqqqhii", 0, 0, 5, 5, -1, -1, -1, 1) + RECORD
BY_HAND = struct.pack(">qiibI", 0, 49 + len(RECORD), 0, 2, crc32c(CHECKED)) + CHECKED


def refusal(data: bytes) -> ErrorCode:
    with pytest.raises(BrokerError) as caught:
        check(data, 0, read_header(data))
    return caught.value.code


def test_a_batch_built_is_the_one_written_by_hand():
    assert build([Record(0, 5, b"k", b"v")]) == BY_HAND


def test_the_header_says_what_was_written_by_hand():
    header = read_header(BY_HAND)
    assert (header.base_offset, header.size, header.count, header.max_timestamp) == (0, 61 + 9, 1, 5)
    assert (header.last_offset, header.codec, header.producer_id) == (0, 0, -1)


def test_a_header_is_read_from_the_middle_of_a_buffer():
    assert read_header(b"xyz" + BY_HAND, 3) == read_header(BY_HAND)


def test_every_wrong_byte_under_the_checksum_is_noticed():
    for at in range(21, len(BY_HAND)):
        wrong = bytearray(BY_HAND)
        wrong[at] ^= 1
        assert refusal(bytes(wrong)) is ErrorCode.corrupt_message, at


def test_every_shorter_length_is_refused():
    for length in range(len(BY_HAND)):
        assert refusal(BY_HAND[:length]) is ErrorCode.corrupt_message, length


@pytest.mark.parametrize("magic", [0, 1, 3])
def test_other_formats_are_refused_by_name(magic: int):
    assert refusal(BY_HAND[:16] + bytes([magic]) + BY_HAND[17:]) is ErrorCode.unsupported_for_message_format


@pytest.mark.parametrize(("delta", "count"), [(-1, 1), (0, 2), (0, -1), (2**31 - 1, -(2**31))])
def test_counts_that_contradict_the_offsets_are_refused(delta: int, count: int):
    data = BY_HAND[:23] + struct.pack(">i", delta) + BY_HAND[27:57] + struct.pack(">i", count) + BY_HAND[61:]
    assert refusal(data) is ErrorCode.corrupt_message


def test_the_place_in_the_log_is_outside_the_checksum():
    stored = patched(BY_HAND, base_offset=812, log_append_time=None)
    assert stored == struct.pack(">q", 812) + BY_HAND[8:]
    check(stored, 0, read_header(stored))


def test_log_append_time_is_stamped_on_the_batch_and_holds_for_its_records():
    stored = patched(BY_HAND, base_offset=3, log_append_time=99)
    header = read_header(stored)
    check(stored, 0, header)
    assert (header.uses_log_append_time, header.max_timestamp, header.base_timestamp) == (True, 99, 5)
    assert records_of(stored) == [Record(3, 99, b"k", b"v")]


def test_sequence_numbers_start_again_after_two_to_the_31():
    header = read_header(build([Record(0, 1, None, b"")] * 3, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2))
    assert header.last_sequence == 0


def test_records_without_a_time_get_the_given_one():
    times = [
        record.timestamp
        for record in records_of(build([Record(0, -1, None, b""), Record(0, 9, None, b"")], timestamp_ms=4))
    ]
    assert times == [4, 9]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (64, "8001"), (-65, "8101"), (300, "d804")]
)
def test_varints_by_hand(value: int, expected: str):
    assert varint(value).hex() == expected


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_at_all_raise_anything_else(data: bytes):
    try:
        check(data, 0, read_header(data))
    except BrokerError:
        return
    raise AssertionError("random bytes passed for a batch")
