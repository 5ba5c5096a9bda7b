"""Frames as no client would send them: whole requests of every kind, filled at random by their schema, then damaged."""

import dataclasses
import random
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from kio.index import KioIndexError, load_request_schema
from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map, schema_name_map

from tests.integration.broker.wire import batch, frame

EXTREMES = (0, -1, 1, 2**31 - 1, -(2**31), 2**16, 0x7FFFFF00, -2, 2**63 - 1, -(2**63))
NAMES = ("fuzz", "fuzz-a", "fuzz-b", "", ".", "..", "../../etc", "a/b", "\0", "x" * 300, "größe", "__consumer_offsets")
Offered = dict[int, range]
BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def any_frame(offered: Offered, luck: random.Random) -> bytes:
    """A well-formed request with a random content: mostly of what is offered, sometimes of any API and version."""
    if luck.random() < 0.8:
        key = luck.choice(sorted(offered))
        version = luck.choice(offered[key])
    else:
        key = luck.choice(sorted(api_key_map))
        version = luck.choice(sorted(schema_name_map[api_key_map[key]]))
    body = _entity(load_request_schema(key, version), luck)
    return frame(body, luck.randrange(2**31), luck.choice((None, "fuzz", "x" * 200)))


def corpus(size: int, offered: Offered, luck: random.Random) -> list[bytes]:
    """So many well-formed frames; what the schemas cannot write is left out."""
    frames: list[bytes] = []
    while len(frames) < size:
        try:
            frames.append(any_frame(offered, luck))
        except (KioIndexError, ValueError, TypeError, OverflowError, struct.error, NotImplementedError):
            continue  # a version that has only a response, or a value that its writer refuses
    return frames


def _entity(kind: type[Any], luck: random.Random) -> Any:
    return kind(**{f.name: _value(f.type, f.metadata.get("kafka_type", ""), luck) for f in dataclasses.fields(kind)})


def _value(kind: Any, written_as: str, luck: random.Random) -> Any:
    if get_origin(kind) is UnionType:
        if luck.random() < 0.2:
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is tuple:
        return tuple(_value(get_args(kind)[0], written_as, luck) for _ in range(luck.choice((0, 1, 1, 2, 5))))
    if dataclasses.is_dataclass(kind):
        return _entity(kind, luck)  # type: ignore[arg-type]
    return _primitive(written_as, luck)


def _primitive(written_as: str, luck: random.Random) -> Any:
    if written_as in BITS:
        half = 1 << (BITS[written_as] - 1)
        number = luck.choice((luck.choice(EXTREMES), luck.randrange(4), luck.randrange(-half, half)))
        return max(-half, min(half - 1, number))
    makers: dict[str, Callable[[], Any]] = {
        "uint16": lambda: luck.randrange(2**16),
        "bool": lambda: luck.random() < 0.5,
        "float64": luck.random,
        "string": lambda: luck.choice(NAMES),
        "bytes": lambda: luck.randbytes(luck.choice((0, 1, 60))),
        "records": lambda: luck.choice((b"", batch(b"fuzz", b"fuzz"), luck.randbytes(80), batch(b"z" * 3_000)[:-7])),
        "uuid": lambda: uuid.UUID(int=luck.getrandbits(128)),
        "error_code": lambda: luck.choice(list(ErrorCode)),
        "timedelta_i32": lambda: timedelta(milliseconds=luck.choice((0, 1, 50, 6_000, -1, 2**31 - 1))),
        "timedelta_i64": lambda: timedelta(milliseconds=luck.choice((0, 1, 50, -1))),
        "datetime_i64": lambda: datetime.fromtimestamp(luck.randrange(2**31), UTC),
    }
    return makers[written_as]()


def damaged(good: bytes, other: bytes, luck: random.Random) -> bytes:
    """A frame with one to three injuries; its length prefix is mended as often as not."""
    data = bytearray(good)
    for _ in range(luck.randrange(1, 4)):
        _injure(data, other, luck)
    if luck.random() < 0.8:
        data[0:4] = struct.pack(">i", max(0, len(data) - 4))
    return bytes(data)


def _injure(data: bytearray, other: bytes, luck: random.Random) -> None:
    at = luck.randrange(len(data)) if data else 0
    match luck.randrange(8):
        case 0:
            data[at : at + 1] = bytes([luck.randrange(256)])
        case 1:
            data[at : at + 1] = bytes([(data[at] if data else 0) ^ 1 << luck.randrange(8)])
        case 2:
            data[at : at + 4] = struct.pack(">i", luck.choice([e for e in EXTREMES if -(2**31) <= e < 2**31]))
        case 3:
            del data[at:]
        case 4:
            data += luck.randbytes(luck.randrange(1, 200))
        case 5:
            data[at:at] = data[at : at + luck.randrange(1, 40)]
        case 6:
            data[at:] = other[at:]
        case _:
            data[4:8] = struct.pack(">hh", luck.randrange(-2, 95), luck.randrange(-2, 20))


def noise(luck: random.Random) -> bytes:
    """Bytes that mean nothing, in a frame of the right length or in none."""
    data = luck.randbytes(luck.randrange(1, 400))
    return data if luck.random() < 0.5 else struct.pack(">i", len(data)) + data
