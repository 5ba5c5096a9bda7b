"""Walks a request before kio decodes it, and refuses lengths that its bytes can't hold.

kio reserves memory for as many elements as an array claims to have; a claim of some billions ends the process. So each
array's count and each string's length is held against what is left of the frame first. The walk follows the same
dataclasses that kio decodes into: a field's `kafka_type` tells its size, its tag where it is optional.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

import dataclasses
from collections.abc import Callable
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

FIXED = {
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "float64": 8,
    "bool": 1, "uuid": 16, "error_code": 2, "timedelta_i32": 4, "timedelta_i64": 8, "datetime_i64": 8,
}  # fmt: skip
MAX_ITEMS = 100_000
"""In one array. A request for so many topics or partitions is none that one node could have been asked."""

Walk = Callable[[bytes, int], int]
"""From a position in the frame to the one behind the field; raises ValueError."""


@cache
def walk_of(kind: Any) -> Walk:
    """The walk over one entity."""
    flexible = bool(kind.__flexible__)
    fields = [f for f in dataclasses.fields(kind) if "tag" not in f.metadata]
    walks = [_field(f, flexible=flexible) for f in fields]
    tagged = {f.metadata["tag"]: _field(f, flexible=flexible) for f in dataclasses.fields(kind) if "tag" in f.metadata}

    def walk(frame: bytes, at: int) -> int:
        for step in walks:
            at = step(frame, at)
        return _tags(frame, at, tagged) if flexible else at

    return walk


def entity_in(annotation: Any) -> Any:
    """The entity class inside an annotation like `tuple[Topic, ...] | None`."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return annotation
    return next((found for arg in get_args(annotation) if (found := entity_in(arg)) is not None), None)


def is_array(annotation: Any) -> bool:
    """Whether it is a tuple, perhaps of one that may be absent."""
    return get_origin(annotation) is tuple or any(get_origin(arg) is tuple for arg in get_args(annotation))


def _field(field: "dataclasses.Field[Any]", *, flexible: bool) -> Walk:
    entity, kafka_type = entity_in(field.type), field.metadata.get("kafka_type", "")
    if entity is not None:
        item, least = walk_of(entity), 1
        optional = not is_array(field.type) and NoneType in get_args(field.type) and "tag" not in field.metadata
        item = _maybe(item) if optional else item
    elif kafka_type in FIXED:
        item, least = _fixed(FIXED[kafka_type]), FIXED[kafka_type]
    else:
        item, least = _sized(2 if kafka_type == "string" else 4, flexible=flexible), 1
    if not is_array(field.type):
        return item
    return _array(item, least, flexible=flexible, fixed=kafka_type in FIXED)


def _fixed(size: int) -> Walk:
    return lambda frame, at: _within(frame, at + size)


def _sized(width: int, *, flexible: bool) -> Walk:
    """Strings, bytes and records: a length, then as much."""

    def walk(frame: bytes, at: int) -> int:
        length, at = _length(frame, at, width, flexible=flexible)
        return _within(frame, at + max(length, 0))

    return walk


def _array(item: Walk, least: int, *, flexible: bool, fixed: bool) -> Walk:
    def walk(frame: bytes, at: int) -> int:
        count, at = _length(frame, at, 4, flexible=flexible)
        if count <= 0:
            return at
        end = _within(frame, at + count * least)
        if fixed:
            return end
        if count > MAX_ITEMS:
            raise ValueError(f"an array of {count} elements; up to {MAX_ITEMS} are taken")
        for _ in range(count):
            at = item(frame, at)
        return at

    return walk


def _maybe(entity: Walk) -> Walk:
    """An entity that may be absent, after a byte that says so (KIP-893)."""

    def walk(frame: bytes, at: int) -> int:
        present = _within(frame, at + 1)
        return present if frame[at] > 127 else entity(frame, present)

    return walk


def _tags(frame: bytes, at: int, known: dict[int, Walk]) -> int:
    count, at = _varint(frame, at)
    for _ in range(count):
        tag, at = _varint(frame, at)
        size, at = _varint(frame, at)
        end = _within(frame, at + size)
        if tag in known and known[tag](frame, at) != end:
            raise ValueError(f"the tagged field {tag} is not as long as it says")
        at = end
    return at


def _length(frame: bytes, at: int, width: int, *, flexible: bool) -> tuple[int, int]:
    """A length (-1: absent), and where it ends."""
    if flexible:
        length, at = _varint(frame, at)
        return length - 1, at
    end = _within(frame, at + width)
    return int.from_bytes(frame[at:end], signed=True), end


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        end = _within(frame, at + 1)
        value |= (frame[at] & 0x7F) << shift
        if frame[at] < 0x80:
            return value, end
        at = end
    raise ValueError("a number of more than five bytes")


def _within(frame: bytes, end: int) -> int:
    if end > len(frame):
        raise ValueError(f"{end - len(frame)} bytes are missing")
    return end
