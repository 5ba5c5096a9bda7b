"""Around every request: an id, a trace, the time it took, and a last net that turns a surprise into an error object."""

import os
import re
import time

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.ids import is_traceparent, new_traceparent
from serving.adapters.metrics import GatewayMetrics
from serving.api.refusals import refusal

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,200}")
_KNOWN = frozenset({
    "/v1/chat/completions", "/v1/feedback", "/v1/feedback/batch", "/v1/outputs", "/v1/models",
    "/healthz", "/readyz", "/metrics",
})  # fmt: skip


def _new_request_id(traceparent: str, shared: bool) -> bytes:
    """A fresh id; the random part of a trace that began with this request will do, and saves asking for more."""
    return b"req-" + (os.urandom(16).hex() if shared else traceparent[3:35]).encode()


class Observe:
    """ASGI middleware; puts `request_id` and `traceparent` into the request's state."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics
        # To look a metric up by its labels costs more than to count: few routes and statuses, looked up once.
        self._requests: dict[tuple[str, int], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given, trace = headers.get(b"x-request-id", b""), headers.get(b"traceparent", b"").decode("latin-1")
        traceparent = trace if trace and is_traceparent(trace) else new_traceparent()
        request_id = given if given and _REQUEST_ID.fullmatch(given) else _new_request_id(traceparent, bool(trace))
        state = scope.setdefault("state", {})
        state["request_id"], state["traceparent"] = request_id.decode(), traceparent
        started, status = time.perf_counter(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except Exception as error:  # noqa: BLE001 - the outermost frame: the client gets an error object whatever happened
            if not status:
                await refusal(error)(scope, receive, tagged)
        finally:
            route = scope["path"] if scope["path"] in _KNOWN else "other"
            self._count(route, status or 499, time.perf_counter() - started)

    def _count(self, route: str, status: int, seconds: float) -> None:
        requests = self._requests.get((route, status))
        if requests is None:
            requests = self._requests[route, status] = self._metrics.requests.labels(route, str(status))
        duration = self._durations.get(route)
        if duration is None:
            duration = self._durations[route] = self._metrics.duration.labels(route)
        requests.inc()
        duration.observe(seconds)
