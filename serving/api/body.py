"""Reading a request's body within a bound, and noticing when the client goes away."""

from starlette.requests import Request
from starlette.types import Receive

from serving.core.wire import RequestRefused


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body; raises `RequestRefused` (413) as soon as it is larger, also where its length was not announced."""
    return await read(request.receive, request.headers.get("content-length", ""), max_bytes)


async def read(receive: Receive, announced: str, max_bytes: int) -> bytes:
    """The same, of a plain ASGI request; `announced` is its content-length."""
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefused("the client left before the body was complete", code="incomplete_body")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def gone(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> RequestRefused:
    return RequestRefused(
        f"the body is larger than the {max_bytes} bytes allowed", code="request_too_large", status=413
    )
