"""Around every request: an id, a trace, the time it took, and a last net that turns a surprise into an error object."""

import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.ids import is_traceparent, new_traceparent
from serving.adapters.metrics import GatewayMetrics
from serving.api.refusals import refusal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,200}")
_KNOWN = frozenset({"/v1/chat/completions", "/v1/feedback", "/v1/models", "/healthz", "/readyz", "/metrics"})


class Observe:
    """ASGI middleware; puts `request_id` and `traceparent` into the request's state."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given, trace = headers.get(b"x-request-id", ""), headers.get(b"traceparent", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        scope.setdefault("state", {}).update(
            request_id=request_id, traceparent=trace if is_traceparent(trace) else new_traceparent()
        )
        route = scope["path"] if scope["path"] in _KNOWN else "other"
        started, status = time.perf_counter(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except Exception as error:  # noqa: BLE001 - the outermost frame: the client gets an error object whatever happened
            if not status:
                await refusal(error)(scope, receive, tagged)
        finally:
            self._metrics.requests.labels(route, str(status or 499)).inc()
            self._metrics.duration.labels(route).observe(time.perf_counter() - started)
