import gzip
import struct

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from infra.broker.batches import HEADER_BYTES, Record, assemble, build, read_header
from infra.broker.errors import BrokerError
from infra.broker.records import compress, records_of

RECORDS = [
    Record(10, 1000, b"a", b"first" * 50, ((b"h", b"1"), (b"none", None))),
    Record(11, 999, None, b""),
    Record(12, 5000, b"", None),
]
PLAIN = build(RECORDS, base_offset=10)


def packed(codec: int, payload: bytes) -> bytes:
    return assemble(read_header(PLAIN)._replace(attributes=codec), payload)


def refusal(batch: bytes, **options: int) -> ErrorCode:
    with pytest.raises(BrokerError) as caught:
        records_of(batch, **options)
    return caught.value.code


@pytest.mark.parametrize("codec", range(5))
def test_records_come_back_from_every_codec_as_we_pack_them(codec: int):
    assert records_of(packed(codec, compress(PLAIN[HEADER_BYTES:], codec))) == RECORDS


def test_records_come_back_as_other_clients_pack_them():
    payload = PLAIN[HEADER_BYTES:]
    halves = payload[:100], payload[100:]
    blocks = [bytes(cramjam.snappy.compress_raw(half)) for half in halves]
    xerial = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
    assert records_of(packed(2, xerial)) == RECORDS
    assert records_of(packed(1, gzip.compress(halves[0]) + gzip.compress(halves[1]))) == RECORDS
    assert records_of(packed(3, bytes(cramjam.lz4.compress(payload)))) == RECORDS


def test_large_and_incompressible_payloads_survive_lz4():
    import random

    noise = random.Random(1).randbytes(5 * 2**20)
    batch = build([Record(0, 1, None, noise)])
    frame = assemble(read_header(batch)._replace(attributes=3), compress(batch[HEADER_BYTES:], 3))
    assert records_of(frame)[0].value == noise


@pytest.mark.parametrize("codec", range(1, 5))
def test_a_bomb_is_refused_before_it_is_unpacked(codec: int):
    bomb = packed(codec, compress(bytes(10_000_000), codec))
    assert refusal(bomb, limit=1_000_000) is ErrorCode.message_too_large


@pytest.mark.parametrize("codec", range(1, 5))
def test_what_was_never_compressed_is_corrupt(codec: int):
    assert refusal(packed(codec, b"\xff" * 40)) is ErrorCode.corrupt_message


@pytest.mark.parametrize("codec", range(1, 5))
def test_every_cut_through_compressed_records_is_refused(codec: int):
    whole = compress(PLAIN[HEADER_BYTES:], codec)
    essential = len(whole) - (4 if codec == 3 else 0)  # an lz4 frame's end mark may be missing
    for length in range(essential):
        assert refusal(packed(codec, whole[:length])) is ErrorCode.corrupt_message, length


def test_an_unknown_codec_is_refused_by_name():
    assert refusal(packed(5, b"")) is ErrorCode.unsupported_compression_type


def test_every_cut_through_plain_records_is_refused():
    payload = PLAIN[HEADER_BYTES:]
    for length in range(len(payload)):
        assert refusal(packed(0, payload[:length])) is ErrorCode.corrupt_message, length


def test_bytes_after_the_last_record_are_refused():
    assert refusal(packed(0, PLAIN[HEADER_BYTES:] + b"\0")) is ErrorCode.corrupt_message


@given(st.binary(max_size=100), st.integers(0, 7))
@settings(deadline=None)
def test_no_payload_raises_anything_but_a_refusal(payload: bytes, codec: int):
    try:
        records_of(packed(codec, payload))
    except BrokerError as error:
        assert error.code in (
            ErrorCode.corrupt_message,
            ErrorCode.unsupported_compression_type,
            ErrorCode.message_too_large,
        )


names = st.binary(max_size=5)
fields = st.none() | st.binary(max_size=300)
drawn = st.builds(
    Record, st.just(0), st.integers(0, 2**45), fields, fields, st.lists(st.tuples(names, fields), max_size=3).map(tuple)
)


@given(st.lists(drawn, min_size=1, max_size=20))
@settings(deadline=None)
def test_all_records_come_back_as_they_were_built(records: list[Record]):
    back = records_of(build(records))
    assert [(r.timestamp, r.key, r.value, r.headers) for r in back] == [
        (r.timestamp, r.key, r.value, r.headers) for r in records
    ]
    assert [r.offset for r in back] == list(range(len(records)))
