"""Records the answers that an `openai` client gets, without touching what the host application sees.

    host ─create()─► wrapped create ─► openai's own create ─► provider
      ▲                    │
      └──── the answer ────┴── afterwards, in the background ──► Output event

The client's own methods are replaced on the instance, so it stays what it was: `isinstance`, streaming helpers and
types work. Whatever is not understood (tools, images, raw responses, another library's objects) goes through untouched
and unrecorded. Every step of ours is guarded: a bug in here is logged and costs a recording, never the host's call.
"""

import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast

from thumbwheel_client.errors import InvalidEvent
from thumbwheel_client.events import MAX_MODEL, Message, Output, purposes_of
from thumbwheel_client.ids import is_response_id, new_event_id, new_response_id
from thumbwheel_client.throttle import Throttle
from thumbwheel_client.trace import current_traceparent
from thumbwheel_client.verbs import EXTRA, extras_of, token_in

logger = logging.getLogger(__name__)

Record = Callable[[Output, bool], None]
"""Takes an answer; the flag says that it may be the garbage collector who calls, so that no lock may be waited for."""
T = TypeVar("T")

MAX_COMPLETION = 200_000
MAX_LIMIT = 1_000_000
"""Tokens. What the gateway takes as a limit; a provider's odd values are left out, not sent to be refused."""
_METHODS = ("create", "parse")
_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def wrap(client: object, record: Record) -> None:
    """Have `record` called with each answer that this client gets from elsewhere. A second time changes nothing."""
    guard = _Guard()
    completions = guard.run(lambda: cast(Any, client).chat.completions, None)
    if completions is None:
        logger.error("can't wrap a %s: it has no chat.completions; its answers are not recorded", type(client).__name__)
        return
    for name in _METHODS:
        guard.run(functools.partial(_replace, completions, name, record, guard), None)


def _replace(completions: Any, name: str, record: Record, guard: "_Guard") -> None:
    original = getattr(completions, name, None)
    if original is None or getattr(original, "thumbwheel_wrapped", False):
        return
    make = _wrapped_async if _is_async(original) else _wrapped
    wrapped = make(original, record, guard)
    wrapped.thumbwheel_wrapped = True
    setattr(completions, name, wrapped)


def _is_async(method: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(method))


def _wrapped(original: Callable[..., Any], record: Record, guard: "_Guard") -> Any:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        watch = guard.run(lambda: Watch(kwargs, record, guard), None)
        answer = original(*args, **kwargs)
        if watch is not None:
            guard.run(lambda: watch.see(answer), None)
        return answer

    return call


def _wrapped_async(original: Callable[..., Awaitable[Any]], record: Record, guard: "_Guard") -> Any:
    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        watch = guard.run(lambda: Watch(kwargs, record, guard), None)
        answer = await original(*args, **kwargs)
        if watch is not None:
            guard.run(lambda: watch.see(answer), None)
        return answer

    return call


class _Guard:
    """Runs what must not disturb the host's call."""

    def __init__(self) -> None:
        self._throttle = Throttle(3600.0)

    def run(self, step: Callable[[], T], otherwise: T) -> T:
        """What `step` gives; `otherwise` where it fails, which is logged once an hour."""
        try:
            return step()
        except InvalidEvent as error:
            logger.debug("an answer is not recorded: %s", error)
        except Exception as error:  # noqa: BLE001 - the host's call must work even if this code doesn't
            if self._throttle.allows(type(error).__name__):
                logger.error("an answer is not recorded, and its call goes on: %s: %s", type(error).__name__, error)
        return otherwise


@dataclass(slots=True)
class Part:
    """One choice of an answer, as far as it has come. `whole` is False where it holds more than text."""

    response_id: str = field(default_factory=new_response_id)
    pieces: list[str] = field(default_factory=list[str])
    length: int = 0
    finish_reason: str | None = None
    whole: bool = True

    def add(self, text: object) -> None:
        if isinstance(text, str):
            self.pieces.append(text)
            self.length += len(text)
        elif text is not None:
            self.whole = False
        if self.length > MAX_COMPLETION:
            self.whole, self.pieces = False, []


class Watch:
    """One call of the host's: what was asked and when, and what came."""

    def __init__(self, asked: Mapping[str, Any], record: Record, guard: _Guard) -> None:
        self._asked = asked
        self._record = record
        self._guard = guard
        self._started = time.monotonic()
        self._trace = current_traceparent()
        self._request_id = new_event_id()
        self._parts: dict[int, Part] = {}
        self._usage: object = None
        self._model: object = None
        self._gateways = False
        self._finished = False
        self._forgotten = False

    def see(self, answer: Any) -> None:
        """Look at what the call gave: a whole answer, a stream, or something that is left alone."""
        if isinstance(getattr(answer, "choices", None), list):
            self._whole(answer)
        elif hasattr(answer, "_iterator") and hasattr(answer, "__anext__"):
            self._tap(answer, self._pieces_async(answer, answer._iterator))
        elif hasattr(answer, "_iterator") and hasattr(answer, "__next__"):
            self._tap(answer, self._pieces(answer, answer._iterator))

    def _whole(self, answer: Any) -> None:
        if _from_gateway(answer):
            return
        self._model, self._usage = answer.model, answer.usage
        for choice in answer.choices:
            part = self._parts.setdefault(int(choice.index), Part())
            message = choice.message
            part.add(message.content)
            part.finish_reason = choice.finish_reason
            part.whole = part.whole and message.content is not None and not _more_than_text(message)
            if self._wanted():
                _mark(choice, part.response_id)
        if self._parts and self._wanted():
            _mark(answer, self._first().response_id)
        self._finish()

    def _tap(self, stream: Any, pieces: object) -> None:
        """Let the stream's pieces pass by us. It ends for us at its end, when it is closed, or when it is forgotten.

        Not when a loop over it ends: the host may go on with the rest in another one."""
        stream._iterator = pieces
        close = stream.close
        if _is_async(close):

            async def close_async() -> None:
                await close()
                self._guard.run(self._finish, None)

            stream.close = close_async
        else:

            def close_sync() -> None:
                close()
                self._guard.run(self._finish, None)

            stream.close = close_sync
        if self._wanted():
            self._parts[0] = Part()
            _mark(stream, self._parts[0].response_id)

    def _pieces(self, stream: Any, inner: Iterator[Any]) -> Iterator[Any]:
        try:
            for chunk in inner:
                self._guard.run(functools.partial(self._piece, stream, chunk), None)
                yield chunk
        except GeneratorExit:
            self._forgotten = True
            raise
        finally:
            self._guard.run(self._finish, None)

    async def _pieces_async(self, stream: Any, inner: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for chunk in inner:
                self._guard.run(functools.partial(self._piece, stream, chunk), None)
                yield chunk
        except GeneratorExit:
            self._forgotten = True
            raise
        finally:
            self._guard.run(self._finish, None)

    def _piece(self, stream: Any, chunk: Any) -> None:
        if self._gateways or _from_gateway(chunk):
            self._of_the_gateway(stream, chunk)
            return
        self._model = chunk.model or self._model
        self._usage = getattr(chunk, "usage", None) or self._usage
        for choice in chunk.choices:
            part = self._parts.setdefault(int(choice.index), Part())
            part.add(choice.delta.content)
            part.finish_reason = choice.finish_reason or part.finish_reason
            part.whole = part.whole and not _more_than_text(choice.delta)
            if self._wanted():
                _mark(choice, part.response_id)
        if self._parts and self._wanted():
            _mark(chunk, self._first().response_id)

    def _of_the_gateway(self, stream: Any, chunk: Any) -> None:
        """The gateway records it: the stream's id for feedback is the gateway's."""
        if not self._gateways:
            _mark(stream, chunk.id)
        self._gateways = True
        self._parts.clear()
        token = token_in(chunk)
        if token:
            object.__setattr__(stream, "thumbwheel_token", token)

    def _first(self) -> Part:
        return self._parts[min(self._parts)]

    def _wanted(self) -> bool:
        """Whether the host let the answer be stored: `store=False` says no, here as at the gateway."""
        return self._asked.get("store") is not False

    def _finish(self) -> None:
        """Record what came, once; a stream from which nothing came is no answer."""
        if self._finished or self._gateways:
            return
        self._finished = True
        if not self._wanted():
            return
        seconds = time.monotonic() - self._started
        shared = self._request_id if len(self._parts) > 1 else None
        parts = [part for _, part in sorted(self._parts.items()) if part.whole and part.pieces]
        for part in parts:
            self._guard.run(functools.partial(self._record_part, part, seconds, shared, alone=len(parts) == 1), None)

    def _record_part(self, part: Part, seconds: float, shared: str | None, *, alone: bool) -> None:
        output = _output(self._asked, part, model=self._model, usage=self._usage if alone else None)
        whole = replace(output, latency_seconds=seconds, request_id=shared, traceparent=self._trace)
        self._record(whole, self._forgotten)


def _from_gateway(answer: Any) -> bool:
    """Whether a Thumbwheel gateway gave it: an id of its form, which others have too, and one of its own fields."""
    named = any(name.startswith(EXTRA) for name in extras_of(answer))
    return named and isinstance(answer.id, str) and is_response_id(answer.id)


def _more_than_text(message: Any) -> bool:
    """Whether an answer, or a piece of one, calls tools, speaks or refuses in a field of its own."""
    names = ("tool_calls", "function_call", "audio", "refusal")
    return any(getattr(message, name, None) for name in names)


def _mark(answer: Any, response_id: str) -> None:
    """Have the object carry our id, without it becoming one of its fields: dumps and comparisons stay as they were."""
    object.__setattr__(answer, "thumbwheel_id", response_id)


def _output(asked: Mapping[str, Any], part: Part, *, model: object, usage: Any) -> Output:
    """The event; raises `InvalidEvent` for a conversation with more than text in it."""
    metadata = _metadata(asked.get("metadata"))
    user = asked.get("safety_identifier") or asked.get("user")
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    return Output(
        response_id=part.response_id,
        model=str(model or asked.get("model") or "unknown")[:MAX_MODEL],
        messages=_messages(asked.get("messages")),
        completion="".join(part.pieces),
        user=user if isinstance(user, str) and user else None,
        purposes=_purposes(metadata),
        metadata=metadata or None,
        temperature=_number(asked.get("temperature"), 2.0),
        top_p=_number(asked.get("top_p"), 1.0) or None,
        max_completion_tokens=limit if isinstance(limit, int) and 0 < limit <= MAX_LIMIT else None,
        finish_reason="stop" if part.finish_reason == "stop" else "length",
        prompt_tokens=getattr(usage, "prompt_tokens", None),
        completion_tokens=getattr(usage, "completion_tokens", None),
    )


def _messages(given: object) -> tuple[Message, ...]:
    if not isinstance(given, Iterable):
        raise InvalidEvent("there are no messages")
    return tuple(_message(message) for message in cast(Iterable[object], given))


def _message(given: object) -> Message:
    """One turn, of a dict or of an answer's own message object."""
    turn = cast(Mapping[str, object], given) if isinstance(given, Mapping) else _Fields(given)
    role = _ROLES.get(str(turn.get("role")))
    if role is None or turn.get("tool_calls") or turn.get("function_call"):
        raise InvalidEvent(f"a message of role {turn.get('role')!r} holds more than text")
    return Message(role, _content(turn.get("content")))


class _Fields:
    """An object's attributes, as a mapping gives its values."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def get(self, name: str) -> object:
        return getattr(self._thing, name, None)


def _content(content: object) -> str:
    """The text of a message's content, whole or in parts; raises `InvalidEvent` for anything but text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [
            cast(Mapping[str, object], part) for part in cast(Sequence[object], content) if isinstance(part, Mapping)
        ]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        if len(texts) == len(cast(Sequence[object], content)) and all(isinstance(text, str) for text in texts):
            return "\n".join(cast(list[str], texts))
    raise InvalidEvent("a message holds more than text")


def _metadata(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        return {}
    pairs = cast(Mapping[object, object], given).items()
    return {name: value for name, value in pairs if isinstance(name, str) and isinstance(value, str)}


def _purposes(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """What `metadata.purposes` says, as in a request to the gateway: a comma list, or `none`."""
    text = metadata.get("purposes")
    if text is None:
        return None
    return purposes_of([name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"])


def _number(given: object, most: float) -> float | None:
    number = float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else None
    return number if number is not None and 0 <= number <= most else None
