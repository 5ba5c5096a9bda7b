"""Frames to requests and responses to frames, by kio's schemas of the protocol.

A handler speaks one version of its request, the newest in its `Spoken` row. Older versions are translated field by
field: what an old request lacks gets the protocol's default, what an old response does not know is left out. Where the
shape changed beyond that (one group became many), the older range is a row of its own.

    frame ─► header ─► row of (API key, version) ─► guard ─► kio ─► newest version ─► handler
    frame ◄── header ◄─────────────────────────────────────── kio ◄─ asked version ◄─────┘
"""

# kio finds its entity classes by name at run time, so their types are not known here.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin

from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map
from kio.serial import entity_reader, entity_writer

from infra.broker.frame_guard import entity_in, walk_of

KEYS = {name: key for key, name in api_key_map.items()}
API_VERSIONS = KEYS["api_versions"]
PRODUCE = KEYS["produce"]
HEADER_START = 8
"""API key, API version, correlation id: what every request begins with."""


class BadFrame(Exception):
    """Bytes that are no request we speak; the connection that sent them is closed."""


class UnknownVersion(BadFrame):
    """An ApiVersions request of a version we don't speak: the one case that has an answer (KIP-511)."""

    def __init__(self, correlation_id: int) -> None:
        super().__init__("an unknown version of ApiVersions")
        self.correlation_id = correlation_id


@dataclass(frozen=True)
class Spoken:
    """Versions `lowest` to `highest` of one API, as kio names it, and who answers them.

    `handler` speaks the highest. `advertised` is a lower bound told to clients instead of the true one.
    """

    api: str
    lowest: int
    highest: int
    handler: str
    advertised: int | None = None

    @property
    def key(self) -> int:
        """The API key."""
        return KEYS[self.api]

    def load(self) -> None:
        """Load the schemas of the version that the handler speaks."""
        load_request(self.key, self.highest)
        load_response(self.key, self.highest)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as its handler sees it; `version` is the one that was asked, and is answered."""

    key: int
    version: int
    correlation_id: int
    client_id: str
    body: Any


class Wire:
    """Reads and writes the versions of its rows."""

    def __init__(self, rows: tuple[Spoken, ...]) -> None:
        self.rows = rows
        self._row = {(row.key, v): row for row in rows for v in range(row.lowest, row.highest + 1)}

    def spoken(self) -> dict[int, tuple[int, int]]:
        """Lowest and highest version by API key, as ApiVersions tells them."""
        found: dict[int, tuple[int, int]] = {}
        for row in self.rows:
            low = row.lowest if row.advertised is None else row.advertised
            known = found.get(row.key, (low, row.highest))
            found[row.key] = (min(known[0], low), max(known[1], row.highest))
        return found

    def read(self, frame: bytes) -> tuple[Spoken, Request]:
        """The row and the request of a frame (without its length); raises `BadFrame`."""
        if len(frame) < HEADER_START:
            raise BadFrame(f"a request of {len(frame)} bytes has no header")
        key = int.from_bytes(frame[0:2], signed=True)
        version = int.from_bytes(frame[2:4], signed=True)
        row = self._row.get((key, version))
        if row is None:
            if key == API_VERSIONS:
                raise UnknownVersion(int.from_bytes(frame[4:8], signed=True))
            raise BadFrame(f"version {version} of API {key} is not spoken here")
        try:
            return row, _read(row, key, version, frame)
        # kio raises what the bytes lead it to: short buffers, bad UTF-8, numbers beyond enums.
        except Exception as error:
            raise BadFrame(f"no request of API {key} version {version}: {type(error).__name__}: {error}") from error


def _read(row: Spoken, key: int, version: int, frame: bytes) -> Request:
    asked = load_request(key, version)
    header, start = entity_reader(asked.__header_schema__)(frame, 0)
    walk_of(asked)(frame, start)
    # Bytes may be left over, as Kafka lets them be: librdkafka's Metadata has some.
    body, _ = entity_reader(asked)(frame, start)
    check_arrays(asked)(body)
    return Request(
        key,
        version,
        header.correlation_id,
        header.client_id or "",
        translator(asked, load_request(key, row.highest))(body),
    )


def write(key: int, version: int, correlation_id: int, response: Any) -> bytes:
    """The frame of a response, its length included."""
    answered = load_response(key, version)
    chunks = _Chunks()
    buffer = cast(Any, chunks)  # kio asks for a file or a stream, and calls `write` only
    header = answered.__header_schema__
    entity_writer(header)(buffer, header(correlation_id=correlation_id))
    entity_writer(answered)(buffer, translator(type(response), answered)(response))
    return b"".join((sum(map(len, chunks)).to_bytes(4), *chunks))


class _Chunks(list[bytes]):
    """A list that kio can write to."""

    def write(self, chunk: bytes) -> int:
        self.append(chunk)
        return len(chunk)


@cache
def load_request(key: int, version: int) -> Any:
    """kio's class of a request."""
    return load_request_schema(key, version)


@cache
def load_response(key: int, version: int) -> Any:
    """kio's class of a response."""
    return load_response_schema(key, version)


@cache
def check_arrays(kind: Any) -> Callable[[Any], None]:
    """A function that raises ValueError for an entity with no array where there must be one; kio lets that pass."""
    inner = {field.name: entity_in(field.type) for field in dataclasses.fields(kind)}
    needed = [f.name for f in dataclasses.fields(kind) if get_origin(f.type) is tuple]
    nested = [(name, check_arrays(entity)) for name, entity in inner.items() if entity is not None]

    def check(entity: Any) -> None:
        for name in needed:
            if getattr(entity, name) is None:
                raise ValueError(f"{name} must be an array, though an empty one")
        for name, check_one in nested:
            value = getattr(entity, name)
            for item in value if isinstance(value, tuple) else (() if value is None else (value,)):
                check_one(item)

    return check


@cache
def translator(source: Any, target: Any) -> Callable[[Any], Any]:
    """A function from entities of one version to those of another."""
    if source is target:
        return lambda entity: entity
    known = {field.name: field for field in dataclasses.fields(source)}
    copied: list[str] = []
    nested: list[tuple[str, Callable[[Any], Any]]] = []
    added: dict[str, Any] = {}
    for field in dataclasses.fields(target):
        if field.name not in known:
            if field.default is dataclasses.MISSING:
                added[field.name] = _empty(field.type)
            continue
        inner = entity_in(field.type)
        if inner is None:
            copied.append(field.name)
        else:
            nested.append((field.name, _each(translator(entity_in(known[field.name].type), inner))))

    def translate(entity: Any) -> Any:
        values = {name: getattr(entity, name) for name in copied}
        values.update((name, convert(getattr(entity, name))) for name, convert in nested)
        return target(**values, **added)

    return translate


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def converted(value: Any) -> Any:
        if value is None:
            return None
        return tuple(map(convert, value)) if isinstance(value, tuple) else convert(value)

    return converted


def _empty(annotation: Any) -> Any:
    """What the protocol takes for a field that an older version lacks and that has no default of its own."""
    if isinstance(annotation, UnionType) and NoneType in get_args(annotation):
        return None
    if get_origin(annotation) is tuple:
        return ()
    if annotation is ErrorCode:
        return ErrorCode.none
    for kind, empty in ((bool, False), (int, 0), (str, ""), (bytes, b""), (timedelta, timedelta(0))):
        if isinstance(annotation, type) and issubclass(annotation, kind):
            return empty
    raise TypeError(f"no default for {annotation}")
