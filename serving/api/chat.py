"""`POST /v1/chat/completions`, plain and streaming.

When a client leaves in the middle of a stream, what it was sent until then is recorded with the finish reason
"length": people stop answers that they dislike, and rate them. A plain answer that nobody received is not recorded.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from schemas.errors import ThumbwheelError
from serving.api.body import gone, read_body
from serving.api.exchange import Exchange, choose_route, open_exchange
from serving.api.gateway import asking_of, gateway_of
from serving.core import replies
from serving.core.access import Scope
from serving.core.errors import VersionNotLoaded
from serving.core.generation import Piece
from serving.core.wire import ChatRequest, parse

Pieces = AsyncGenerator[Piece]

CLIENT_LEFT = 499
"""Nginx's status for a client that went away; nobody gets to see it but the metrics."""


async def chat(request: Request) -> Response:
    gateway = gateway_of(request)
    caller = gateway.gatekeeper.admit(asking_of(request), Scope.CHAT)
    asked = parse(ChatRequest, await read_body(request, gateway.max_body_bytes))
    state = request.state
    exchange = open_exchange(gateway, asked, caller, request_id=state.request_id, traceparent=state.traceparent)
    if asked.stream:
        exchange, first, rest = await _begin(exchange)
        return StreamingResponse(
            _events(exchange, first, rest),
            media_type="text/event-stream",
            headers=_headers(exchange),
        )
    return await _plain(request, exchange)


async def _begin(exchange: Exchange) -> tuple[Exchange, Piece, Pieces]:
    """Generation up to the first piece, so that a refusal still has its own status.

    Tried twice: between routing and the engine the version's adapter may have been dropped from memory.
    """
    for last_try in (False, True):
        try:
            if exchange.route.pinned:
                await exchange.gateway.keeper.ensure(exchange.route.version)
            pieces = cast(Pieces, exchange.gateway.engine.generate(exchange.job))
            first = await anext(pieces)
        except VersionNotLoaded:
            if last_try:
                raise
            exchange = dataclasses.replace(exchange, route=choose_route(exchange.gateway, exchange.asked.model))
        else:
            exchange.gateway.metrics.first_token.observe(exchange.seconds())
            return exchange, first, pieces
    raise AssertionError("the second try either returns or raises")


async def _plain(request: Request, exchange: Exchange) -> Response:
    answering = asyncio.create_task(_whole(exchange))
    leaving = asyncio.create_task(gone(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return Response(status_code=CLIENT_LEFT)
        exchange, text, last = answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
    assert last.finish_reason is not None
    recorded = await exchange.record(text, last, last.finish_reason)
    body = replies.completion(exchange.head, text, last, recorded=recorded, token=exchange.token)
    return JSONResponse(body, headers=_headers(exchange))


async def _whole(exchange: Exchange) -> tuple[Exchange, str, Piece]:
    exchange, last, rest = await _begin(exchange)
    texts = [last.text]
    async with contextlib.aclosing(rest):
        async for last in rest:
            texts.append(last.text)
    return exchange, "".join(texts), last


async def _events(exchange: Exchange, first: Piece, rest: Pieces) -> AsyncIterator[bytes]:
    """The stream's server-sent events; records the answer when it ends, whichever way."""
    options = exchange.asked.stream_options
    include_usage = bool(options and options.include_usage)
    head, token, texts, last = exchange.head, exchange.token, list[str](), first
    complete = False
    try:
        yield replies.sse(replies.opening_chunk(head, token=token, include_usage=include_usage))
        async with contextlib.aclosing(rest):
            async for piece in _chain(first, rest):
                last = piece
                if piece.text:
                    texts.append(piece.text)
                    yield replies.sse(replies.text_chunk(head, piece.text, include_usage=include_usage))
        complete = True
        assert last.finish_reason is not None
        recorded = await exchange.record("".join(texts), last, last.finish_reason)
        closing = replies.closing_chunk(head, last, recorded=recorded, token=token, include_usage=include_usage)
        yield replies.sse(closing)
        if include_usage:
            yield replies.sse(replies.usage_chunk(head, last))
        yield replies.DONE
    except ThumbwheelError as error:
        # The status is sent already; OpenAI's clients raise on an error object inside the stream.
        complete = True
        yield replies.sse(replies.error(str(error), kind="server_error", code="engine_unavailable"))
    finally:
        if not complete and texts:
            exchange.record_abandoned("".join(texts), last)


async def _chain(first: Piece, rest: Pieces) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def _headers(exchange: Exchange) -> dict[str, str]:
    # A token that a cache keeps is a token that a stranger gets.
    return {"thumbwheel-version": exchange.route.version, "cache-control": "no-store"}
