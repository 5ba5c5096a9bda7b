"""Reading a request's body within a bound, and noticing when the client goes away."""

from starlette.requests import ClientDisconnect, Request

from serving.core.wire import RequestRefused


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body; raises `RequestRefused` (413) as soon as it is larger, also where its length was not announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
    except ClientDisconnect as error:
        raise RequestRefused("the client left before the body was complete", code="incomplete_body") from error
    return bytes(body)


async def gone(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> RequestRefused:
    return RequestRefused(
        f"the body is larger than the {max_bytes} bytes allowed", code="request_too_large", status=413
    )
