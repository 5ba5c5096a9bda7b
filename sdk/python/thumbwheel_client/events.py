"""What is sent: feedback on an answer, and answers that were given elsewhere. Closed and frozen; a mistake is an
`InvalidEvent` when the event is made, not when it is refused far away."""

import dataclasses
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias, cast

from thumbwheel_client.errors import InvalidEvent
from thumbwheel_client.ids import is_response_id, new_event_id, new_response_id
from thumbwheel_client.trace import is_traceparent

MAX_TEXT = 200_000
MAX_IDENTIFIER = 200
MAX_MESSAGES = 200
MAX_MODEL = 190
MAX_METADATA = 16
MAX_AT = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_MEANT = ("segment", "regenerates")

Purpose: TypeAlias = Literal["training", "labeling"]
PURPOSES: frozenset[str] = frozenset({"training", "labeling"})


class Kind(StrEnum):
    """A thumb, its withdrawal, words about the answer, or an implicit signal."""

    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    WITHDRAWAL = "withdrawal"
    COMMENT = "comment"
    CORRECTION = "correction"
    FLAG = "flag"
    COPY = "copy"
    EDIT = "edit"
    REGENERATE = "regenerate"


NEEDS_TEXT = frozenset({Kind.COMMENT, Kind.CORRECTION, Kind.EDIT})
THUMBS = frozenset({Kind.THUMBS_UP, Kind.THUMBS_DOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One thing said of one answer by one user. A later thumb of the same user replaces the earlier one.

    `id` is the idempotency key: the same id sent twice counts once. `at` is in Unix seconds. `purposes` is what the
    user agreed to (None: not asked; empty: a no to everything). `token` is the answer's feedback token, which stands
    in for an API key.
    """

    response_id: str
    kind: Kind
    text: str | None = None
    user: str | None = None
    purposes: tuple[str, ...] | None = None
    token: str | None = field(default=None, repr=False)
    traceparent: str | None = None
    id: str = field(default_factory=new_event_id)
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        _response_id(self.response_id)
        object.__setattr__(self, "kind", _kind(self.kind))
        _clean(self, "text")
        if self.kind in NEEDS_TEXT and not (self.text or "").strip():
            raise InvalidEvent(f"feedback of kind {self.kind.value} needs a non-empty text")
        _common(self)

    @property
    def occurred_at(self) -> str:
        """`at` in RFC 3339, in UTC."""
        return _moment(self.at)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An answer that was given elsewhere: by another provider, or by a model of the host application's own.

    `latency_seconds` runs from the request to the last token. Answers to one request share its `request_id`.
    """

    response_id: str = field(default_factory=new_response_id)
    model: str
    messages: tuple[Message, ...]
    completion: str
    user: str | None = None
    purposes: tuple[str, ...] | None = None
    metadata: Mapping[str, str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_completion_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_seconds: float | None = None
    request_id: str | None = None
    traceparent: str | None = None
    id: str = field(default_factory=new_event_id)
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        _response_id(self.response_id)
        _identifier("model", self.model, MAX_MODEL)
        _clean(self, "completion")
        _messages(self)
        for name in ("temperature", "top_p", "latency_seconds"):
            _number(name, getattr(self, name))
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidEvent(f"top_p must be more than 0 and at most 1, not {self.top_p!r}")
        object.__setattr__(self, "metadata", _metadata(self.metadata))
        for name in ("max_completion_tokens", "prompt_tokens", "completion_tokens"):
            _count(name, getattr(self, name))
        if self.request_id is not None:
            _identifier("request_id", self.request_id)
        _common(self)

    @property
    def occurred_at(self) -> str:
        """`at` in RFC 3339, in UTC."""
        return _moment(self.at)


Event: TypeAlias = Feedback | Output
_TYPES: Mapping[str, type[Feedback] | type[Output]] = {"feedback": Feedback, "output": Output}


def dumps(event: Event) -> bytes:
    """The event as one line of JSON, as the spool keeps it."""
    fields = {name: value for name, value in dataclasses.asdict(event).items() if value is not None}
    kind = "feedback" if isinstance(event, Feedback) else "output"
    return to_json({"type": kind} | fields)


def loads(body: bytes) -> Event:
    """The event in a line that `dumps` wrote, also an older or newer release's; raises `InvalidEvent`."""
    try:
        fields = cast(dict[str, Any], json.loads(body))
        cls = _TYPES[fields.pop("type")]
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in fields.items() if name in known}
        if values.get("purposes") is not None:
            values["purposes"] = tuple(values["purposes"])
        if "messages" in values:
            values["messages"] = tuple(Message(m["role"], m["content"]) for m in values["messages"])
        return cls(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidEvent(f"not an event of this SDK: {error}") from error


def to_json(fields: Mapping[str, object]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def purposes_of(given: Iterable[str] | str | None) -> tuple[str, ...] | None:
    """Purposes from what a caller gives: a collection of names, one name, or None; raises `InvalidEvent`."""
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = sorted({str(name) for name in names} - PURPOSES)
    if unknown:
        raise InvalidEvent(f"unknown purpose {unknown[0]!r}: there are training and labeling; an empty list means none")
    return tuple(dict.fromkeys(str(name) for name in names))


def _common(event: Event) -> None:
    if event.user is not None:
        _identifier("user", event.user)
    _identifier("id", event.id)
    if not isinstance(event.at, (int, float)) or isinstance(event.at, bool) or not 0 <= event.at <= MAX_AT:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidEvent(f"at must be a moment in Unix seconds, as time.time() gives it, not {event.at!r}")
    object.__setattr__(event, "purposes", purposes_of(event.purposes))
    if event.traceparent is not None and not is_traceparent(event.traceparent):
        object.__setattr__(event, "traceparent", None)  # it often comes from outside; it must not cost the feedback


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _response_id(value: object) -> None:
    if not isinstance(value, str) or not is_response_id(value):
        raise InvalidEvent(
            f"{value!r} is no response id of Thumbwheel's (chatcmpl- and 32 hex digits): for answers of others "
            "wrap the client that gives them, or call record()"
        )


def _kind(value: object) -> Kind:
    try:
        return Kind(cast(str, value))
    except ValueError:
        raise InvalidEvent(f"unknown kind {value!r}: there are {', '.join(kind.value for kind in Kind)}") from None


def _identifier(name: str, value: object, longest: int = MAX_IDENTIFIER) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise InvalidEvent(f"{name} must be a text of 1 to {longest} characters")
    if not _encodable(value):
        raise InvalidEvent(f"{name} has half of a surrogate pair in it: it is no text")


def _clean(event: Event, name: str) -> None:
    """Hold a text to its bounds; half a surrogate pair (from a cut emoji) becomes U+FFFD, as UTF-8 can't carry it."""
    value = getattr(event, name)
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidEvent(f"{name} must be a text, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise InvalidEvent(f"{name} has {len(value)} characters, more than the {MAX_TEXT} allowed")
    if not _encodable(value):
        object.__setattr__(event, name, whole_text(value))


def whole_text(value: str) -> str:
    """The text with each half of a surrogate pair replaced by U+FFFD."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _messages(output: Output) -> None:
    if not 1 <= len(output.messages) <= MAX_MESSAGES:
        raise InvalidEvent(f"an answer needs 1 to {MAX_MESSAGES} messages before it, not {len(output.messages)}")
    for message in output.messages:
        if message.role not in ("system", "user", "assistant"):
            raise InvalidEvent(f"unknown role {message.role!r}: there are system, user and assistant")
        if len(message.content) > MAX_TEXT:
            raise InvalidEvent(f"a message has {len(message.content)} characters, more than the {MAX_TEXT} allowed")
    if not all(_encodable(m.content) for m in output.messages):
        object.__setattr__(output, "messages", tuple(Message(m.role, whole_text(m.content)) for m in output.messages))


def _metadata(given: Mapping[str, str] | None) -> dict[str, str] | None:
    """The metadata as the gateway takes it. What doesn't fit is left out, the keys that mean something to it last:
    an odd label of the host's must not cost the answer."""
    pairs = {whole_text(n): whole_text(v) for n, v in (given or {}).items() if 1 <= len(n) <= 64 and len(v) <= 512}
    if not 1 <= len(pairs.get("segment", "default")) <= MAX_IDENTIFIER:
        del pairs["segment"]
    if not is_response_id(pairs.get("regenerates", "chatcmpl-" + "0" * 32)):
        del pairs["regenerates"]
    pairs.pop("purposes", None)  # a field of its own
    names = sorted(pairs, key=lambda name: name not in _MEANT)[: MAX_METADATA - 1]
    return {name: pairs[name] for name in names} or None


def _number(name: str, value: float | None) -> None:
    if value is not None and (isinstance(value, bool) or not math.isfinite(value) or value < 0):
        raise InvalidEvent(f"{name} must be a number of 0 or more, not {value!r}")


def _count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidEvent(f"{name} must be a whole number of 0 or more, not {value!r}")
