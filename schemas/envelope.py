"""CloudEvents 1.0 on Kafka: binary mode written, structured mode read as well.

Binary mode: attributes are headers with the prefix `ce_`, the value is the JSON payload. Structured mode: a
`content-type` that begins with `application/cloudevents`, and the value holds attributes and `data` together.
https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import to_json

from schemas.errors import InvalidEvent
from schemas.ids import is_traceparent, new_event_id
from schemas.messages import Payload

SPEC_VERSION = "1.0"
MAX_VALUE_BYTES = 1_000_000
_REQUIRED = ("specversion", "id", "source", "type", "time")

P = TypeVar("P", bound=Payload, covariant=True)

Headers = Iterable[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Event(Generic[P]):
    """A payload in its envelope. `id` is stable under retry: the same event sent twice counts once."""

    id: str
    source: str
    time: datetime
    data: P
    traceparent: str | None = None


class Message(NamedTuple):
    """What goes to Kafka: key, value and headers, without topic and partition."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def new_event(
    data: P,
    *,
    source: str,
    id: str | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> Event[P]:
    """An event that happens now, unless told when; `id` is a fresh UUIDv7 unless the caller has a stable one."""
    return Event(id or new_event_id(), source, time or datetime.now(UTC), data, traceparent)


def type_name(payload: type[Payload]) -> str:
    """The CloudEvents `type`, which is the topic's name too."""
    return f"thumbwheel.{payload.schema_name}.v1"


def data_schema(payload: type[Payload]) -> str:
    """The CloudEvents `dataschema` of a payload."""
    return f"urn:thumbwheel:schema:{payload.schema_name}:v1"


def encode(event: Event[Payload]) -> Message:
    """The event as a Kafka message in binary mode. Decoders know the headers' order (`streams.adapters.decoders`)."""
    data = event.data
    version, kind, schema, content = _constant_headers(type(data))
    key = data.partition_key.encode()
    headers = [
        version,
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        kind,
        ("ce_time", _timestamp(event.time)),
        ("ce_subject", key),
        schema,
        content,
    ]
    if event.traceparent:
        headers.append(("traceparent", event.traceparent.encode()))
    return Message(key, to_json(data, exclude_none=True), headers)


@functools.cache
def _constant_headers(payload: type[Payload]) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", type_name(payload).encode()),
        ("ce_dataschema", data_schema(payload).encode()),
        ("content-type", b"application/json"),
    )


def _timestamp(moment: datetime) -> bytes:
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat().removesuffix("+00:00").encode() + b"Z"


def decode(payload: type[P], value: bytes | None, headers: Headers) -> Event[P]:
    """The event in a Kafka message of either mode; raises `InvalidEvent` with a countable reason.

    Tolerant on read: fields that this release doesn't know are passed over.
    """
    if not value:
        raise InvalidEvent("empty_value", "the message has no value; tombstones are no events")
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidEvent("oversize", f"the value has {len(value)} bytes, more than the {MAX_VALUE_BYTES} allowed")
    texts = _header_texts(headers)
    if texts.get("content-type", "").lower().startswith("application/cloudevents"):
        attributes, data = _structured(value)
    else:
        attributes, data = {n.removeprefix("ce_"): t for n, t in texts.items()}, value
    return _assemble(payload, attributes, data)


def _header_texts(headers: Headers) -> dict[str, str]:
    try:
        return {name.lower(): (raw or b"").decode() for name, raw in headers}
    except UnicodeDecodeError as error:
        raise InvalidEvent("not_utf8", f"a header is not UTF-8: {error}") from error


def _structured(value: bytes) -> tuple[dict[str, str], bytes]:
    try:
        whole = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("malformed_json", f"the structured event is not JSON: {error}") from error
    if not isinstance(whole, dict) or "data" not in whole:
        raise InvalidEvent("missing_data", "the structured event is no object with a data field")
    fields = cast(dict[str, Any], whole)
    return {n: str(v) for n, v in fields.items() if n != "data"}, json.dumps(fields["data"]).encode()


def _assemble(payload: type[P], attributes: Mapping[str, str], data: bytes) -> Event[P]:
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise InvalidEvent("missing_attribute", f"the CloudEvents attributes {', '.join(missing)} are missing")
    if attributes["specversion"] != SPEC_VERSION:
        raise InvalidEvent("spec_version", f"specversion is {attributes['specversion']!r}, expected {SPEC_VERSION!r}")
    if attributes["type"] != type_name(payload):
        raise InvalidEvent("wrong_type", f"type is {attributes['type']!r}, this topic holds {type_name(payload)!r}")
    traceparent = attributes.get("traceparent")
    return Event(
        id=_bounded(attributes["id"]),
        source=attributes["source"],
        time=_time(attributes["time"]),
        data=_payload(payload, data),
        traceparent=traceparent if traceparent and is_traceparent(traceparent) else None,
    )


def _bounded(event_id: str) -> str:
    if len(event_id) > 200:
        raise InvalidEvent("bad_id", f"the event id has {len(event_id)} characters, more than the 200 allowed")
    return event_id


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidEvent("bad_time", f"ce_time {text!r} is no RFC 3339 time") from error
    if moment.tzinfo is None:
        raise InvalidEvent("bad_time", f"ce_time {text!r} has no time zone")
    return moment.astimezone(UTC)


def _payload(payload: type[P], data: bytes) -> P:
    try:
        return payload.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = "malformed_json" if first["type"] == "json_invalid" else "invalid_payload"
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InvalidEvent(reason, f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}") from error
