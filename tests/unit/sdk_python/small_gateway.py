"""A gateway of a hundred lines over a real socket: it speaks the HTTP surface that the SDK uses, and fails on demand.

`faults` are used up one a request, first those that came first: `status(503, retry_after=2)`, `CLOSE` (hang up without
an answer), `LOST` (record it, then hang up), `STALL` (answer once `release` is set). Also a provider of answers under
/openai/v1, and one whose answers are a gateway's own under /v1.
"""

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CLOSE, LOST, STALL = "close", "lost", "stall"
GATEWAYS_ID = "chatcmpl-" + "a" * 32
PROVIDERS_ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"


@dataclass(frozen=True)
class Status:
    """Answer with this instead."""

    status: int
    headers: Mapping[str, str]
    body: str


def status(code: int, *, retry_after: object = None, error: str = "told_to", body: str | None = None) -> Status:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    told = {"error": {"message": "as told", "type": "invalid_request_error", "param": None, "code": error}}
    return Status(code, headers, json.dumps(told) if body is None else body)


@dataclass
class Seen:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class SmallGateway:
    faults: deque[str | Status] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    feedback: dict[str, Any] = field(default_factory=dict)  # by id: a retry counts once
    outputs: dict[str, Any] = field(default_factory=dict)
    poison: str | None = None  # a text that this gateway breaks on: 500
    refused: str | None = None  # a text that it refuses: 400
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        outer = self

        class Handler(_Handler):
            gateway = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def texts(self) -> list[str]:
        return [item.get("text") for item in self.feedback.values()]

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/feedback":
            return self.one(body)
        if path == "/v1/feedback/batch":
            if any(self.poison == item.get("text") for item in body["items"] if self.poison):
                return 500, {"error": {"message": "broke", "type": "server_error", "code": "internal"}}
            return 200, {"results": [self.one(item)[1] for item in body["items"]]}
        if path == "/v1/outputs":
            self.outputs[body["response_id"]] = body
            return 201, {"response_id": body["response_id"], "status": "recorded"}
        return 404, {"error": {"message": "no such path", "type": "invalid_request_error", "code": "http_404"}}

    def one(self, item: Any) -> tuple[int, Any]:
        if self.poison is not None and item.get("text") == self.poison:
            return 500, {"error": {"message": "broke", "type": "server_error", "code": "internal"}}
        if self.refused is not None and item.get("text") == self.refused:
            error = {"message": "not this", "type": "invalid_request_error", "code": "invalid_value"}
            return 400, {"error": error}
        self.feedback.setdefault(item["id"], item)
        return 201, {"id": item["id"], "response_id": item["response_id"], "status": "recorded"}


class _Handler(BaseHTTPRequestHandler):
    gateway: SmallGateway
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        gateway = self.gateway
        if self.path.endswith("/chat/completions"):
            self.complete(body)
            return
        gateway.seen.append(Seen(self.path, {n.lower(): v for n, v in self.headers.items()}, body))
        gateway.arrived.release()
        fault = gateway.faults.popleft() if gateway.faults else None
        if fault == STALL:
            gateway.release.wait(60)
        elif fault == LOST:
            gateway.answer(self.path, body)
        if fault in (CLOSE, LOST):
            self.close_connection = True
            return
        if isinstance(fault, Status):
            self.reply(fault.status, fault.body.encode(), fault.headers)
            return
        code, answer = gateway.answer(self.path, body)
        self.reply(code, json.dumps(answer).encode(), {})

    def reply(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def complete(self, asked: Any) -> None:
        """Chat completions: a provider's, or (outside /openai) a gateway's own with its extra fields."""
        ours = not self.path.startswith("/openai")
        head = {"id": GATEWAYS_ID if ours else PROVIDERS_ID, "created": 1, "model": "small-1"}
        extras = {"thumbwheel::feedback_token": "token-1", "thumbwheel::recorded": True} if ours else {}
        if asked.get("stream"):
            self.stream(asked, head, extras)
            return
        message: dict[str, Any] = {"role": "assistant", "content": "Hello there", "refusal": None}
        if asked.get("tools"):
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            message |= {"content": None, "tool_calls": [call]}
        choices = [
            {"index": n, "message": message | ({} if n == 0 else {"content": f"Hello {n}"}), "finish_reason": "stop"}
            for n in range(asked.get("n") or 1)
        ]
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        body = head | {"object": "chat.completion", "choices": choices, "usage": usage} | extras
        self.reply(200, json.dumps(body).encode(), {})

    def stream(self, asked: Any, head: Any, extras: Any) -> None:
        pieces = [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo "}, {"content": "there"}]
        chunks = [_chunk(head, delta, None) for delta in pieces] + [_chunk(head, {}, "stop") | extras]
        chunks[0] |= extras
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            chunks.append(_chunk(head, {}, None) | {"choices": [], "usage": usage})
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.reply(200, body.encode(), {"content-type": "text/event-stream"})


def _chunk(head: Any, delta: Any, finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return head | {"object": "chat.completion.chunk", "choices": [choice]}
