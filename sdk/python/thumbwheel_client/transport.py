"""Events over HTTP. What a request holds and what an answer means are pure functions; the two classes at the end do no
more than send, one in a thread and one in a task."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, cast

import httpx

from thumbwheel_client.errors import SettingsError
from thumbwheel_client.events import Event, Feedback, Output, to_json
from thumbwheel_client.outcomes import Alone, Outcome, Recorded, Rejected, Retry
from thumbwheel_client.privacy import Redacting, redacted
from thumbwheel_client.retry import is_busy, is_worth_a_retry, retry_after

MAX_BATCH = 100


class Transport(Protocol):
    """Sends what a thread hands it. `send` never raises for what the network or the service does."""

    def run(self, events: Sequence[Event]) -> int:
        """How many of the leading events can go in one request; at least 1."""
        ...

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        """Send them in one request; what came of each."""
        ...

    def close(self) -> None: ...

    def after_fork(self) -> None:
        """In a forked child: let go of connections that are the parent's."""
        ...


class AsyncTransport(Protocol):
    """The same for a task."""

    def run(self, events: Sequence[Event]) -> int: ...

    async def send(self, events: Sequence[Event]) -> list[Outcome]: ...

    async def close(self) -> None: ...

    def after_fork(self) -> None:
        """In a forked child: let go of connections that are the parent's."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom. The key is in no repr and no log."""

    url: str
    api_key: str | None
    timeout: float

    def __repr__(self) -> str:
        return f"Target({self.shown!r})"

    @property
    def shown(self) -> str:
        """The URL without a user's name and password, for logs."""
        url = httpx.URL(self.url)
        return str(url.copy_with(username=None, password=None)) if url.userinfo else self.url

    def options(self) -> dict[str, Any]:
        """What both kinds of httpx client are made with."""
        headers = {"user-agent": user_agent(), "content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return {"base_url": self.url, "headers": headers, "timeout": self.timeout, "follow_redirects": False}


def target(url: str | None, api_key: str | None, timeout: float) -> Target:
    """Where to send to; raises `SettingsError`. `url` may end in /v1, as an OpenAI client's does, or not."""
    if not url:
        raise SettingsError("no URL: pass url= or set THUMBWHEEL_URL to the gateway's, such as http://127.0.0.1:8000")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise SettingsError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError(f"{url!r} is no URL of a gateway; it looks like https://thumbwheel.example")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise SettingsError("the API key has characters that no key has; is there a line break at its end?")
    if timeout <= 0:
        raise SettingsError(f"timeout must be more than 0 seconds, not {timeout:g}")
    return Target(url.rstrip("/").removesuffix("/v1"), api_key or None, timeout)


def user_agent() -> str:
    """What the service's logs see."""
    try:
        return f"thumbwheel-client/{version('thumbwheel-client')} python"
    except PackageNotFoundError:  # used from a source folder
        return "thumbwheel-client python"


@dataclass(frozen=True, slots=True)
class Request:
    """One POST."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def run(events: Sequence[Event]) -> int:
    """How many leading events go together: feedback of one trace, as a request has only one `traceparent`."""
    first = events[0]
    if not isinstance(first, Feedback):
        return 1
    count = 1
    for event in events[1:MAX_BATCH]:
        if not isinstance(event, Feedback) or event.traceparent != first.traceparent:
            break
        count += 1
    return count


def request_for(events: Sequence[Event]) -> Request:
    """The request that carries these events, which `run` said go together."""
    first = events[0]
    trace = {"traceparent": first.traceparent} if first.traceparent else {}
    if len(events) > 1:
        items = [feedback_body(event) for event in events if isinstance(event, Feedback)]
        return Request("/v1/feedback/batch", to_json({"items": items}), trace)
    headers = trace | {"idempotency-key": first.id} if _is_header(first.id) else trace
    if isinstance(first, Feedback):
        return Request("/v1/feedback", to_json(feedback_body(first)), headers)
    return Request("/v1/outputs", to_json(output_body(first)), headers)


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def feedback_body(event: Feedback) -> dict[str, object]:
    """The body of `POST /v1/feedback`. It says when that was, however long it has waited to be sent."""
    return _without_none(
        {
            "response_id": event.response_id,
            "kind": event.kind.value,
            "text": event.text,
            "user": event.user,
            "id": event.id,
            "purposes": event.purposes,
            "occurred_at": event.occurred_at,
            "token": event.token,
        }
    )


def output_body(event: Output) -> dict[str, object]:
    """The body of `POST /v1/outputs`. Purposes travel in the metadata, as they do in a request for an answer."""
    metadata = dict(event.metadata or {})
    if event.purposes is not None:
        metadata["purposes"] = ",".join(event.purposes) or "none"
    usage = None
    if event.prompt_tokens is not None and event.completion_tokens is not None:
        usage = {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens}
    return _without_none(
        {
            "response_id": event.response_id,
            "model": event.model,
            "messages": [{"role": m.role, "content": m.content} for m in event.messages],
            "completion": event.completion,
            "user": event.user,
            "metadata": metadata or None,
            "temperature": event.temperature,
            "top_p": event.top_p,
            "max_completion_tokens": event.max_completion_tokens,
            "finish_reason": event.finish_reason,
            "usage": usage,
            "latency_seconds": event.latency_seconds,
        }
    )


def _without_none(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def outcomes_of(count: int, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> list[Outcome]:
    """What an answer says of the `count` events of its request."""
    if 200 <= status < 300:
        return _acknowledged(count, status, body)
    reason = f"{status} {_message(body)}".strip()
    if is_worth_a_retry(status):
        if count > 1 and not is_busy(status):
            return [Alone()] * count
        return [Retry(reason, retry_after(headers, now), service=is_busy(status))] * count
    if count > 1 and status not in (401, 403):
        return [Alone()] * count
    return [Rejected(reason, status)] * count


def _acknowledged(count: int, status: int, body: bytes) -> list[Outcome]:
    """Of a success: only an answer in our own form counts. A captive portal says 200 too."""
    stranger: list[Outcome] = [Retry(f"{status}, but not with the answer of a Thumbwheel gateway")] * count
    answer = _json(body)
    if count == 1:
        return [Recorded()] if answer.get("status") == "recorded" else stranger
    results = answer.get("results")
    if not isinstance(results, list) or len(cast(list[object], results)) != count:
        return stranger
    return [_result(item) for item in cast(list[object], results)]


def _result(item: object) -> Outcome:
    fields = cast(dict[str, object], item) if isinstance(item, dict) else {}
    if fields.get("status") == "recorded":
        return Recorded()
    error = fields.get("error")
    details = cast(dict[str, object], error) if isinstance(error, dict) else {}
    if details.get("type") in (None, "server_error", "rate_limit_error"):
        return Alone()  # its own request will say whether and when to try again
    return Rejected(f"{details.get('code')}: {details.get('message')}")


def _message(body: bytes) -> str:
    """The error message in OpenAI's form, cut to a line; nothing where it has another form."""
    error = _json(body).get("error")
    if not isinstance(error, dict):
        return ""
    details = cast(dict[str, object], error)
    return " ".join(f"{details.get('code')}: {details.get('message')}".split())[:300]


def _json(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, object], value) if isinstance(value, dict) else {}


def _unreachable(error: Exception, to: Target, count: int) -> list[Outcome]:
    words = str(error) or type(error).__name__
    return [Retry(f"can't reach {to.shown}: {words}")] * count


class HttpTransport:
    """Over one httpx client, which is opened with the first request."""

    def __init__(self, to: Target, *, redactor: Redacting | None = None) -> None:
        self._to = to
        self._redactor = redactor
        self._client: httpx.Client | None = None

    def run(self, events: Sequence[Event]) -> int:
        return run(events)

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        request = request_for([redacted(event, self._redactor) for event in events])
        if self._client is None:
            self._client = httpx.Client(**self._to.options())
        try:
            response = self._client.post(request.path, content=request.body, headers=request.headers)
        except httpx.HTTPError as error:
            return _unreachable(error, self._to, len(events))
        return outcomes_of(len(events), response.status_code, response.headers, response.content, datetime.now(UTC))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def after_fork(self) -> None:
        self._client = None


class AsyncHttpTransport:
    """The same with an asynchronous client, which belongs to the loop that it was opened in."""

    def __init__(self, to: Target, *, redactor: Redacting | None = None) -> None:
        self._to = to
        self._redactor = redactor
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, events: Sequence[Event]) -> int:
        return run(events)

    async def send(self, events: Sequence[Event]) -> list[Outcome]:
        request = request_for([redacted(event, self._redactor) for event in events])
        client = self._opened()
        try:
            response = await client.post(request.path, content=request.body, headers=request.headers)
        except httpx.HTTPError as error:
            return _unreachable(error, self._to, len(events))
        return outcomes_of(len(events), response.status_code, response.headers, response.content, datetime.now(UTC))

    def _opened(self) -> httpx.AsyncClient:
        """The client of this loop; one of a loop that has ended can't be used, nor closed any more."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = httpx.AsyncClient(**self._to.options()), loop
        return self._client

    async def close(self) -> None:
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    def after_fork(self) -> None:
        self._client = None
