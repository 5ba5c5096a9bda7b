"""A dead letter on its way back: mended by hand or not, and judged as ingest will judge it before it is sent.

The document that an editor is given is JSON: headers as pairs, and the payload as JSON where it is JSON, else as text,
else in base64. A payload that was not touched goes back as the very bytes that came.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa

from schemas import tables, topics
from schemas.envelope import decode
from schemas.errors import InvalidEvent
from streams.adapters.dead_letters import Headers, Letter
from streams.adapters.lake import arrow_schema

RETRY_HEADER = "thumbwheel_retry_of"
_MAX_EVENT_ID = 200
_PAYLOADS = ("payload", "payload_text", "payload_base64")
_HELP = (
    "Mend headers and payload, save and leave. Give exactly one of payload (the event as JSON), payload_text and"
    " payload_base64. The payload of a structured CloudEvent is the whole event. Leave unchanged to give up."
)


class BadDocument(Exception):
    """What the editor left is no such document; the message says where."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Key, value and headers as they will be sent."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def original(letter: Letter) -> Outgoing:
    """The message as it came."""
    return Outgoing(letter.key, letter.value, letter.headers)


def refusal(topic: str, message: Outgoing) -> str | None:
    """Why ingest would make a dead letter of this message; None where it would become a row."""
    table = tables.BY_TOPIC.get(topic)
    if table is None or table.topic is None:
        return f"{topic} is no topic that ends in a table"
    try:
        event = decode(table.topic.payload, message.value, message.headers)
        row = tables.event_row(event, partition=0, offset=0, ingested_at=event.time)
        pa.Table.from_pylist([row], schema=arrow_schema(table))
    except InvalidEvent as error:
        return str(error)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError) as error:
        return f"undecodable: {type(error).__name__}: {error}"
    return None


def prepared(letter: Letter, message: Outgoing) -> Outgoing:
    """The message as it is sent: with an event id, with a key, and with the letter's id in a header of ours.

    An event id that is there stays, and one that is missing is the letter's: so however often a letter is sent, it
    counts once. Without a key it would come to any partition, where it is not known as the same event.
    """
    sent = _identified(message, letter.id)
    ours = [(name, value) for name, value in sent.headers if name.lower() != RETRY_HEADER]
    return replace(sent, key=_key(letter.topic, sent), headers=(*ours, (RETRY_HEADER, letter.id.encode())))


def document(letter: Letter) -> str:
    """The letter as the JSON text to edit."""
    sent = _identified(original(letter), letter.id)
    told = {"_": _HELP, "_why": f"{letter.reason}: {letter.detail}", "_topic": letter.topic}
    headers = [[name, _text_or_base64(value)] for name, value in sent.headers]
    return _json_bytes({**told, "headers": headers, **_shown_payload(sent.value)}, indent=2).decode() + "\n"


def read_document(text: str, letter: Letter) -> Outgoing:
    """The message that an edited document means; raises `BadDocument`."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"this is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadDocument("this is no JSON object")
    given = cast(dict[str, Any], fields)
    unknown = sorted(n for n in given if n not in (*_PAYLOADS, "headers") and not n.startswith("_"))
    if unknown:
        raise BadDocument(f"unknown fields: {', '.join(unknown)}")
    before = _identified(original(letter), letter.id)
    payload = {name: given[name] for name in _PAYLOADS if name in given}
    untouched = payload == _shown_payload(before.value)
    value = before.value if untouched else _read_payload(payload)
    return Outgoing(letter.key, value, _read_headers(given.get("headers")))


def _identified(message: Outgoing, event_id: str) -> Outgoing:
    headers = {name.lower(): value or b"" for name, value in message.headers}
    if headers.get("content-type", b"").lower().startswith(b"application/cloudevents"):
        return _identified_inside(message, event_id)
    if _usable(headers.get("ce_id", headers.get("id", b"")).decode(errors="replace")):
        return message
    others = tuple((name, value) for name, value in message.headers if name.lower() not in ("ce_id", "id"))
    return replace(message, headers=(*others, ("ce_id", event_id.encode())))


def _identified_inside(message: Outgoing, event_id: str) -> Outgoing:
    """A structured event carries its attributes in the value; one that can't be read stays as it is."""
    try:
        whole = json.loads(message.value or b"")
    except (ValueError, RecursionError):
        return message
    if not isinstance(whole, dict) or _usable(str(cast(dict[str, Any], whole).get("id") or "")):
        return message
    return replace(message, value=_json_bytes({**whole, "id": event_id}))


def _usable(event_id: str) -> bool:
    return 0 < len(event_id) <= _MAX_EVENT_ID


def _key(topic: str, message: Outgoing) -> bytes | None:
    if message.key is not None or topic not in topics.BY_NAME:
        return message.key
    try:
        event = decode(topics.BY_NAME[topic].payload, message.value, message.headers)
    except (InvalidEvent, ValueError, TypeError, OverflowError, RecursionError):
        return None  # it is not sent either
    return event.data.partition_key.encode()


def _shown_payload(value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"payload_text": None}
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(value).decode()}
    try:
        return {"payload": json.loads(text)}
    except (ValueError, RecursionError):
        return {"payload_text": text}


def _read_payload(payload: Mapping[str, Any]) -> bytes | None:
    if len(payload) != 1:
        raise BadDocument(f"give exactly one of {', '.join(_PAYLOADS)}")
    ((name, content),) = payload.items()
    if name == "payload":
        return _json_bytes(content)
    return None if content is None else _bytes(content if name == "payload_text" else {"base64": content}, name)


def _read_headers(given: object) -> Headers:
    """Pairs of a name and a text, null or `{"base64": ...}`."""
    if not isinstance(given, list):
        raise BadDocument("headers must be a list of [name, value]")
    return tuple(_read_header(pair, number) for number, pair in enumerate(cast(list[object], given), start=1))


def _read_header(pair: object, number: int) -> tuple[str, bytes | None]:
    if not isinstance(pair, list) or len(cast(list[object], pair)) != 2:
        raise BadDocument(f"header {number} is no [name, value]")
    name, value = cast(list[object], pair)
    if not isinstance(name, str):
        raise BadDocument(f"header {number}: its name is no string")
    _bytes(name, f"header {number}")
    return name, None if value is None else _bytes(value, f"header {number}")


def _bytes(value: object, where: str) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and set(cast(dict[str, object], value)) == {"base64"}:
            return base64.b64decode(str(cast(dict[str, object], value)["base64"]), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadDocument(f"{where}: {error}") from error
    raise BadDocument(f'{where} must be a string or {{"base64": "..."}}')


def _json_bytes(value: object, *, indent: int | None = None) -> bytes:
    """As readable as possible: only half a surrogate pair, which has no UTF-8, needs escapes."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()


def _text_or_base64(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
