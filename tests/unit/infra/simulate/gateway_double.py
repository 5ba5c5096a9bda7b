"""A small real HTTP server that answers as the gateway does, and misbehaves when told to."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class GatewayDouble:
    """`busy`: the next so many feedback requests get 503; `dropped`: so many are taken and their answer is lost."""

    url: str = ""
    texts: tuple[str, ...] = ("We are open from nine to five.", "Whatever. Go away", "Thank you, please ask again.")
    busy: int = 0
    dropped: int = 0
    refuse: int | None = None
    unknown: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serve() -> Iterator[GatewayDouble]:
    """The server on a free port, for as long as the block runs."""
    double = GatewayDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: no delayed acknowledgement

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            with double.lock:
                self._route(raw)

        def _route(self, raw: bytes) -> None:
            try:
                body = json.loads(raw)
            except ValueError:
                return self._bad("malformed")
            if double.refuse is not None:
                return self._send(double.refuse, {"error": {"message": "no", "type": "server_error", "code": "no"}})
            return self._chat(body) if self.path == "/v1/chat/completions" else self._feedback(body)

        def _chat(self, body: dict[str, Any]) -> None:
            if not body["messages"]:
                return self._bad("empty")
            version = body["model"].partition(":")[2] or "base"
            if version == double.unknown:
                return self._send(404, {"error": {"message": "no such model"}})
            double.requests.append(body)
            text = double.texts[len(double.requests) % len(double.texts)]
            return self._send(
                200,
                {
                    "id": f"chatcmpl-{len(double.requests):032x}",
                    "model": f"thumbwheel:{version}",
                    "choices": [{"message": {"role": "assistant", "content": text}}],
                },
            )

        def _feedback(self, body: dict[str, Any]) -> None:
            if not body["response_id"].startswith("chatcmpl-"):
                return self._bad("id")
            if double.busy:
                double.busy -= 1
                return self._send(503, {"error": {"message": "busy"}}, {"retry-after": "0"})
            double.feedback.append(body)
            if double.dropped:
                double.dropped -= 1
                self.close_connection = True
                return None
            return self._send(200, {"id": body["id"]})

        def _bad(self, why: str) -> None:
            double.bad[why] += 1
            self._send(400, {"error": {"message": why}})

        def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"content-length": str(len(raw))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the tests look at what was recorded."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
