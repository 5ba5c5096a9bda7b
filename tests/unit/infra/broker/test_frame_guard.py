"""The walk over a request agrees with kio where that decodes it, and refuses what claims more than there is."""

import dataclasses
import io
import struct
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from infra.broker.api.table import ROWS
from infra.broker.frame_guard import MAX_ITEMS, entity_in, is_array, walk_of

SPOKEN = [(row.key, version) for row in ROWS for version in range(row.lowest, row.highest + 1)]
VALUES = {
    "bool": True,
    "uuid": UUID(int=7),
    "error_code": ErrorCode.none,
    "timedelta_i32": timedelta(seconds=1),
    "timedelta_i64": timedelta(seconds=1),
    "string": "text",
    "bytes": b"bytes",
    "records": b"records",
}


def sample(kind: Any) -> Any:
    """An entity with two elements in each array and something in each field."""
    return kind(**{field.name: sample_of(field) for field in dataclasses.fields(kind)})


def sample_of(field: "dataclasses.Field[Any]") -> Any:
    entity = entity_in(field.type)
    one = VALUES.get(field.metadata.get("kafka_type", ""), 1) if entity is None else sample(entity)
    return (one, one) if is_array(field.type) else one


def encoded(key: int, version: int) -> bytes:
    buffer, asked = io.BytesIO(), sample(load_request_schema(key, version))
    entity_writer(type(asked))(buffer, asked)
    return buffer.getvalue()


@pytest.mark.parametrize(("key", "version"), SPOKEN)
def test_it_ends_where_kio_ends(key: int, version: int) -> None:
    frame = encoded(key, version)
    kind = load_request_schema(key, version)
    _, size = entity_reader(kind)(frame, 0)
    assert walk_of(kind)(frame, 0) == size == len(frame)


@pytest.mark.parametrize(("key", "version"), SPOKEN)
def test_every_cut_is_refused(key: int, version: int) -> None:
    frame = encoded(key, version)
    for length in range(len(frame)):
        with pytest.raises(ValueError, match="missing"):
            walk_of(load_request_schema(key, version))(frame[:length], 0)


def test_a_count_that_the_frame_can_not_hold_is_refused_in_both_encodings() -> None:
    metadata = load_request_schema(3, 1)
    with pytest.raises(ValueError, match="missing"):
        walk_of(metadata)(struct.pack(">i", 2**31 - 1), 0)
    with pytest.raises(ValueError, match="missing"):
        walk_of(load_request_schema(3, 12))(b"\xff\xff\xff\xff\x7f", 0)


def test_more_elements_than_anybody_asks_for_are_refused_though_they_are_there() -> None:
    frame = struct.pack(">i", MAX_ITEMS + 1) + b"\0\0" * (MAX_ITEMS + 1)
    with pytest.raises(ValueError, match="up to"):
        walk_of(load_request_schema(3, 1))(frame, 0)


@settings(deadline=None)
@given(st.sampled_from(SPOKEN), st.binary(max_size=64))
def test_what_it_lets_pass_kio_reads_within_the_frame(spoken: tuple[int, int], frame: bytes) -> None:
    kind = load_request_schema(*spoken)
    try:
        end = walk_of(kind)(frame, 0)
    except ValueError:
        return
    try:
        _, size = entity_reader(kind)(frame, 0)
    except Exception:  # noqa: BLE001 - kio may be stricter: text that is no UTF-8, numbers out of range
        return
    assert size == end
