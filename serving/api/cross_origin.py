"""Lets web pages of certain origins call `/v1/feedback`, and no other path.

CORS, as https://fetch.spec.whatwg.org/#http-cors-protocol has it. Never with credentials: a page proves itself by the
feedback token, not by a cookie.
"""

from collections.abc import Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/v1/feedback"
HEADERS = ("authorization", "content-type", "idempotency-key", "traceparent", "tracestate", "x-request-id")
_PREFLIGHT = {
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": ", ".join(HEADERS),
    "access-control-max-age": "600",
}


class CrossOrigin:
    """ASGI middleware around everything, so that a page can read an error as well."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._origins or scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        allowed = self._allowed(headers.get(b"origin", b"").decode("latin-1"))

        async def with_permission(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            # Without the header that allows the origin, the rest says nothing to a browser.
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, with_permission)
            return
        await self._app(scope, receive, with_permission)

    def _allowed(self, origin: str) -> list[tuple[bytes, bytes]]:
        # Without this a page can't read how long it is asked to wait.
        expose = (b"access-control-expose-headers", b"retry-after")
        if "*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), expose]
        # A cache in between must not give one origin's permission to another.
        vary = [(b"vary", b"Origin")]
        named = (b"access-control-allow-origin", origin.encode("latin-1"))
        return [*vary, named, expose] if origin in self._origins else vary
