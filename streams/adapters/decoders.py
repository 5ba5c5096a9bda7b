"""Fast decoders, derived from the pydantic models: one definition of an event serves all.

    headers, value ──fast way──► record            what the fast way accepts, the slow way accepts, as the same row
                       └─ any doubt ──slow way──► record, or `InvalidEvent` with pydantic's reason

(`streams.adapters.batches` goes the fast way with many at once.)

The fast way is a msgspec struct with the model's fields, bounds, patterns, enums and nested models; the models' own
`mode="after"` validators run on it as they stand. It answers only where it is certain: a field it doesn't know, an odd
header, whatever msgspec refuses and whatever a validator says no to goes the slow way (`schemas.envelope.decode`),
which alone decides what is refused, and why. A model with anything that this file doesn't know how to derive has
no fast way at all. `tests/unit/streams/adapters/test_decoders.py` holds both ways to the same verdict.
"""

import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Annotated, Any, Literal, Union

import annotated_types as bounds
import msgspec
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.envelope import MAX_VALUE_BYTES, SPEC_VERSION, data_schema, decode, type_name
from schemas.errors import InvalidEvent
from schemas.ids import is_traceparent
from schemas.messages import Payload

PLAIN_CONTENT = b"application/json"
_ATTRIBUTES = frozenset({"specversion", "id", "source", "type", "time", "subject", "dataschema", "traceparent"})
_KNOWN = frozenset({*(f"ce_{name}" for name in _ATTRIBUTES - {"traceparent"}), "traceparent", "content-type"})
WRITTEN = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema", "content-type",
)  # fmt: skip
_CONFIG = frozenset({"frozen", "extra", "allow_inf_nan", "title", "protected_namespaces"})
_SIMPLE = (str, int, float, bool)
# What means the same to Python's `re` and to the Rust engine that pydantic uses, but for the `$` at the end.
_COMMON_PATTERN = re.compile(r"\^(?:[A-Za-z0-9_-]|\[[A-Za-z0-9_-]+\]|\{\d+(?:,\d*)?\})+\$")

_PREFIXED = re.compile(r"\^(?P<prefix>[A-Za-z0-9_-]*)(?P<group>\[[A-Za-z0-9_-]+\])\{(?P<times>\d+)\}\\Z")

Headers = Sequence[tuple[str, bytes | None]]


class Record(msgspec.Struct, gc=False):
    """An event on its way to its row.

    `time` is the event's in UTC as `YYYY-MM-DDThh:mm:ss.ffffffZ`, which Arrow reads in a tenth of the time that it
    takes for a datetime. `data` has the payload's fields as attributes: a pydantic model or its twin.
    """

    id: str
    source: str
    time: str
    traceparent: str | None
    data: Any
    offset: int


class Underivable(TypeError):
    """A model with something that the fast way can't promise to see as pydantic does."""


class Decoder:
    """Decodes the events of one topic."""

    def __init__(self, payload: type[Payload]) -> None:
        self._payload = payload
        self._type = type_name(payload).encode()
        self._version = SPEC_VERSION.encode()
        self._constant = (self._version, self._type, data_schema(payload).encode(), PLAIN_CONTENT)
        self._json = fast_decoder(payload)

    @property
    def has_fast_way(self) -> bool:
        return self._json is not None

    def decode(self, value: bytes | None, headers: Headers, offset: int) -> Record:
        """The record of a message; raises `InvalidEvent` with a countable reason."""
        return self.fast(value, headers, offset) or self.slow(value, headers_of(headers), offset)

    def fast(self, value: bytes | None, headers: Any, offset: int) -> Record | None:
        """The record where there is no doubt about it, else None."""
        if self._json is None or not value or len(value) > MAX_VALUE_BYTES:
            return None
        try:
            return self._ours(value, headers, offset) if len(headers) == 8 else self._theirs(value, headers, offset)
        except Exception:  # noqa: BLE001 - whatever it is, the slow way judges it
            return None

    def _ours(self, value: bytes, headers: Any, offset: int) -> Record | None:
        """With the very headers that `schemas.envelope.encode` writes: a third of the time of looking for each."""
        (a, version), (b, event_id), (c, source), (d, kind), (e, time), (f, subject), (g, schema), (h, content) = (
            headers
        )
        if (a, b, c, d, e, f, g, h) != WRITTEN or (version, kind, schema, content) != self._constant:
            return self._theirs(value, headers, offset)
        if not 0 < len(event_id) <= 200 or not source or not subject.isascii():
            return None
        assert self._json is not None
        return Record(event_id.decode(), source.decode(), _utc(time.decode()), None, self._json.decode(value), offset)

    def _theirs(self, value: bytes, headers: Any, offset: int) -> Record | None:
        found: dict[str, bytes] = dict(headers)
        if found["ce_type"] != self._type or found["ce_specversion"] != self._version:
            return None
        event_id, source = found["ce_id"].decode(), found["ce_source"].decode()
        if not event_id or len(event_id) > 200 or not source or not _plain_headers(found, headers):
            return None
        assert self._json is not None
        time, traceparent = _utc(found["ce_time"].decode()), traceparent_of(found.get("traceparent"))
        return Record(event_id, source, time, traceparent, self._json.decode(value), offset)

    def slow(self, value: bytes | None, headers: Headers, offset: int) -> Record:
        """The same by the pydantic model; raises `InvalidEvent`."""
        try:
            event = decode(self._payload, value, headers)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            # Bytes that break a decoder in a way it doesn't foresee are data, too.
            raise InvalidEvent("undecodable", f"{type(error).__name__}: {error}") from error
        return Record(event.id, event.source, _canonical(event.time), event.traceparent, event.data, offset)


def headers_of(found: Any) -> Headers:
    """A message's headers as pairs of text and bytes, whatever the client made of them (none: None)."""
    pairs = typing.cast(Iterable[tuple[str, str | bytes | None]], found or ())
    return [(n, v.encode() if isinstance(v, str) else v) for n, v in pairs]


def _plain_headers(found: Mapping[str, bytes | None], headers: Sequence[Any]) -> bool:
    """Whether the headers are ours, each once and in ASCII, or certainly none of our business."""
    if len(found) != len(headers) or found.get("content-type", PLAIN_CONTENT) != PLAIN_CONTENT:
        return False
    if not found.keys() <= _KNOWN and not all(_is_foreign(name, found[name]) for name in found.keys() - _KNOWN):
        return False
    subject, schema = found.get("ce_subject"), found.get("ce_dataschema")
    return (subject is None or subject.isascii()) and (schema is None or schema.isascii())


def _is_foreign(name: str, value: bytes | None) -> bool:
    """Whether a header that we don't know can't be taken for one that we do."""
    return name == name.lower() and name.removeprefix("ce_") not in _ATTRIBUTES and (value or b"").isascii()


def traceparent_of(raw: bytes | None) -> str | None:
    """The trace context in a header, where it is one."""
    text = raw.decode() if raw else ""
    return text if text and is_traceparent(text) else None


def _utc(text: str) -> str:
    """A time in the canonical form; raises `ValueError` for what is none, or has no zone."""
    moment = datetime.fromisoformat(text)
    if len(text) == 27 and text[4:20:3] == "--T::." and text[26] == "Z":
        return text
    if moment.tzinfo is None:
        raise ValueError(text)
    return _canonical(moment)


def _canonical(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def fast_decoder(payload: type[Payload]) -> "msgspec.json.Decoder[Any] | None":
    """A decoder of the model's twin; None where it has none."""
    try:
        return msgspec.json.Decoder(derive(payload))
    except Underivable:
        return None


@dataclass(frozen=True, slots=True)
class Unchecked:
    """The twin of a model without the checks of its own (those of models inside of it are made): whoever decodes many
    makes them on all at once. `patterns` are of `re`, by field; a field that is None has every pattern."""

    twin: type[msgspec.Struct]
    patterns: Mapping[str, str]
    validators: Sequence[Callable[[Any], Any]]


def derive(model: type[BaseModel]) -> type[msgspec.Struct]:
    """The twin of a model as a msgspec struct; raises `Underivable`."""
    fields, patterns = _fields(model)
    return _struct(model, fields, _checks(validators_of(model), patterns))


def derive_unchecked(model: type[BaseModel]) -> Unchecked:
    """The twin, and apart from it what it would check; raises `Underivable`."""
    fields, patterns = _fields(model)
    return Unchecked(_struct(model, fields, {}), patterns, validators_of(model))


def validators_of(model: type[BaseModel]) -> Sequence[Callable[[Any], Any]]:
    """The model's own validators. These read attributes; one that does more fails, and so sends the event the slow
    way."""
    return [v.func for v in model.__pydantic_decorators__.model_validators.values()]


def _struct(model: type[BaseModel], fields: Sequence[Any], namespace: dict[str, Any]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        model.__name__,
        fields,
        namespace=namespace,
        kw_only=True,
        frozen=True,
        gc=False,
        # pydantic passes over what it doesn't know, but reads it, and may find it no JSON: msgspec only skips it.
        forbid_unknown_fields=True,
    )


def _check(model: type[BaseModel]) -> None:
    """Raises `Underivable` for a model that does more than its fields and its validators say."""
    found = model.__pydantic_decorators__
    odd = found.validators or found.field_validators or found.root_validators
    if odd or any(v.info.mode != "after" for v in found.model_validators.values()):
        raise Underivable(f"{model.__name__} has validators of other kinds than after the model")
    if set(model.model_config) - _CONFIG or model.model_config.get("allow_inf_nan") is not False:
        raise Underivable(f"{model.__name__} is configured in a way that has no counterpart")
    own = (model.__init__, model.model_post_init, model.__get_pydantic_core_schema__.__func__)
    plain = (BaseModel.__init__, BaseModel.model_post_init, BaseModel.__get_pydantic_core_schema__.__func__)
    if own != plain or model.__private_attributes__:
        raise Underivable(f"{model.__name__} has code of its own at its construction")


def _checks(validators: Sequence[Callable[[Any], Any]], patterns: Mapping[str, str]) -> dict[str, Any]:
    """What is run on each struct: checks of patterns, and the model's validators as they stand."""
    fitting = tuple((attrgetter(name), matcher(pattern)) for name, pattern in patterns.items())

    def __post_init__(self: Any) -> None:  # noqa: N807 - what msgspec calls
        for text_of, fits in fitting:
            text = text_of(self)
            if text is not None and not fits(text):
                raise ValueError(text)
        for validate in validators:
            if validate(self) is not self:
                raise ValueError("a validator made another object")

    return {"__post_init__": __post_init__} if validators or patterns else {}


def _fields(model: type[BaseModel]) -> tuple[list[Any], dict[str, str]]:
    """The twin's fields, and the patterns of those that have one."""
    _check(model)
    patterns: dict[str, str] = {}
    return [_field(name, info, patterns) for name, info in model.model_fields.items()], patterns


def _field(name: str, info: FieldInfo, patterns: dict[str, str]) -> Any:
    if info.alias or info.validation_alias or info.default_factory or info.discriminator or info.annotation is None:
        raise Underivable(f"field {name} is more than a name, a type, bounds and a plain default")
    kind, pattern = _without_pattern(_kind(info.annotation, info.metadata))
    if pattern is not None:
        patterns[name] = pattern
    if info.default is PydanticUndefined:
        return name, kind
    return name, kind, info.default


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> Any:
    """The annotation as msgspec takes it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], [*_flat(arguments[1:]), *metadata])
    meta = _meta(metadata)
    if origin in (Union, types.UnionType):
        kinds = [a for a in arguments if a is not type(None)]
        if len(kinds) != 1 or len(arguments) != 2:
            raise Underivable(f"a choice between types: {annotation}")
        return _kind(kinds[0], metadata) | None
    if origin is Literal and all(type(a) is str for a in arguments) and not meta:
        return annotation
    plain = _plain(annotation, origin, arguments)
    return Annotated[plain, msgspec.Meta(**meta)] if meta else plain


def _plain(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    """A type without its bounds."""
    if annotation in _SIMPLE:
        return annotation
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple[_kind(arguments[0]), ...]
    if origin is dict and arguments[0] is str:
        return dict[str, _kind(arguments[1])]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return derive(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum) and all(type(m.value) is str for m in annotation):
        return annotation
    raise Underivable(f"no counterpart of {annotation}")


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for part in metadata:
        if isinstance(part, FieldInfo):
            if part.alias or part.default is not PydanticUndefined or part.default_factory:
                raise Underivable("a field inside of a type that is more than bounds")
            yield from part.metadata
        else:
            yield part


def _meta(metadata: Iterable[Any]) -> dict[str, Any]:
    """Bounds and pattern; of two bounds of one side the tighter one."""
    found: dict[str, Any] = {}
    for part in metadata:
        if isinstance(part, (bounds.Ge, bounds.Gt)):
            _tighten(found, part, max)
        elif isinstance(part, (bounds.Le, bounds.Lt)):
            _tighten(found, part, min)
        elif isinstance(part, bounds.MinLen):
            found["min_length"] = max(part.min_length, found.get("min_length", 0))
        elif isinstance(part, bounds.MaxLen):
            found["max_length"] = min(part.max_length, found.get("max_length", part.max_length))
        elif vars(part).keys() == {"pattern"} and "pattern" not in found:
            found["pattern"] = python_pattern(part.pattern)
        else:
            raise Underivable(f"no counterpart of {part}")
    return found


def _tighten(found: dict[str, Any], part: Any, tighter: Callable[[Any, Any], Any]) -> None:
    strict, loose = ("gt", "ge") if tighter is max else ("lt", "le")
    name = strict if isinstance(part, (bounds.Gt, bounds.Lt)) else loose
    bound = getattr(part, name)
    other = strict if name == loose else loose
    held = found.get(name, found.get(other))
    if held is None or (tighter(bound, held) == bound and (bound != held or name == strict)):
        found.pop(other, None)
        found[name] = bound


def _without_pattern(kind: Any) -> tuple[Any, str | None]:
    """A field's type, and apart from it the pattern of its text: ours is faster than msgspec's."""
    optional = typing.get_origin(kind) in (Union, types.UnionType)
    inner = typing.get_args(kind)[0] if optional else kind
    if typing.get_origin(inner) is not Annotated or typing.get_args(inner)[0] is not str:
        return kind, None
    meta = typing.get_args(inner)[1]
    if meta.pattern is None:
        return kind, None
    rest = {"min_length": meta.min_length, "max_length": meta.max_length}
    plain: Any = Annotated[str, msgspec.Meta(**rest)] if any(v is not None for v in rest.values()) else str
    return (plain | None if optional else plain), meta.pattern


def python_pattern(pattern: str) -> str:
    """A pattern of pydantic's engine as Python's `re` takes it: there `$` also matches before a last line feed."""
    if not _COMMON_PATTERN.fullmatch(pattern):
        raise Underivable(f"a pattern that two engines may see differently: {pattern}")
    return pattern.removesuffix("$") + r"\Z"


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text has a pattern. For a prefix before so many of some characters, without an engine."""
    found = prefixed(pattern)
    if found is None:
        compiled = re.compile(pattern)
        return lambda text: compiled.search(text) is not None
    prefix, characters, length = found[0].decode(), found[1].decode(), found[2]
    begin = len(prefix)
    # What is left when all of its characters are taken from both ends is nothing, if it has no others.
    return lambda text: len(text) == length and text[:begin] == prefix and not text[begin:].strip(characters)


def prefixed(pattern: str) -> tuple[bytes, bytes, int] | None:
    """Prefix, characters and length of a text, where its pattern is a prefix before so many of some characters."""
    found = _PREFIXED.fullmatch(pattern)
    if found is None:
        return None
    prefix = found["prefix"].encode()
    characters = bytes(c for c in range(128) if re.fullmatch(found["group"], chr(c)))
    return prefix, characters, len(prefix) + int(found["times"])
