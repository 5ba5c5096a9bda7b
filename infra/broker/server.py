"""Connections: frames in, responses out in their order.

    client ─► length, frame ─► Wire.read ─► handler ─► Wire.write ─► client
                 │                │            └── Produce: appended at once; its answer waits in line for the disk
                 │                │                others: one at a time, after the answers before them
                 └ too long ──────┴ no request ─► the connection is closed, and no other one notices

Back-pressure: at most `PIPELINE` produce requests of a connection wait for the disk; while its socket takes no more
(a slow client), nothing further is read from it.
"""

import asyncio
import contextlib
import errno
import logging
import resource
from collections.abc import Awaitable, Callable
from typing import Any

from kio.schema.errors import ErrorCode

from infra.broker.api.caller import Caller
from infra.broker.api.table import ROWS, Handlers, api_versions_response
from infra.broker.node import Node
from infra.broker.wire import API_VERSIONS, PRODUCE, BadFrame, Request, UnknownVersion, Wire, write
from schemas.errors import SettingsError

logger = logging.getLogger(__name__)
PIPELINE = 32
READ_AHEAD = 1024 * 1024
LAST_WORD_SECONDS = 1.0
"""For what a client asked before it left: a commit is made, a long poll is not waited for."""


class Server:
    """All connections to one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handlers = Handlers(node)
        self._wire = Wire(ROWS)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def start(self) -> None:
        """Listen; raises `SettingsError` for an address that can't be had."""
        _allow_many_files()
        options = self._node.options
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Protocol(asyncio.StreamReader(limit=READ_AHEAD), self._accept),
                options.host,
                options.port,
                backlog=1024,
            )
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
            raise SettingsError(
                f"port {options.port} on {options.host} {why}; stop what listens there or choose another --port"
            ) from error

    async def warm_up(self) -> None:
        """Load what the first requests of each kind will need."""
        await self._handlers.warm_up()

    async def close(self) -> None:
        """Take no more, and end what is open: what was not answered was not acknowledged."""
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._node.metrics.connections.set(len(self._connections))
        try:
            if len(self._connections) <= self._node.options.max_connections:
                await _Connection(self._node, self._wire, self._handlers, reader, writer).run()
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            self._node.metrics.connections.set(len(self._connections))
            writer.transport.abort()


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's own, and a word to the connection when its client is gone while a request of it is parked."""

    gone: Callable[[], None] = staticmethod(lambda: None)

    def eof_received(self) -> bool | None:
        keep = super().eof_received()
        self.gone()
        return keep

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone()


class _Connection:
    """One client."""

    def __init__(
        self,
        node: Node,
        wire: Wire,
        handlers: Handlers,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._node, self._wire, self._handlers = node, wire, handlers
        self._reader, self._writer = reader, writer
        peer = writer.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._line: asyncio.Queue[tuple[Request, Awaitable[Any]]] = asyncio.Queue(PIPELINE)
        self._parked: asyncio.Future[Any] | None = None
        self._left = False

    async def run(self) -> None:
        """Until the client goes, or sends what is no request."""
        protocol = self._writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        protocol.gone = self._gone
        answering = asyncio.create_task(self._answer_in_line())
        try:
            while (frame := await self._frame()) is not None:
                await self._handle(frame)
            await self._line.join()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BadFrame as error:
            self._node.metrics.refused.inc()
            logger.warning("a connection is closed: %s", error, extra={"client": self._host})
        finally:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

    def _gone(self) -> None:
        """Nobody waits any more for a long poll or a rebalance; what was produced before is stored all the same."""
        self._left = True
        if self._parked is not None:
            self._parked.cancel()

    async def _frame(self) -> bytes | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(4), signed=True)
        except asyncio.IncompleteReadError:
            return None
        if not 0 < size <= self._node.options.max_request_bytes:
            raise BadFrame(f"a frame of {size} bytes; up to {self._node.options.max_request_bytes} are taken")
        return await self._reader.readexactly(size)

    async def _handle(self, frame: bytes) -> None:
        try:
            row, request = self._wire.read(frame)
        except UnknownVersion as error:
            refusal = api_versions_response(ErrorCode.unsupported_version)
            await self._send(write(API_VERSIONS, 0, error.correlation_id, refusal))
            return
        answer = self._handlers.of(row)(request.body, Caller(request.client_id, self._host, request.version))
        if request.key == PRODUCE:
            # A task: it goes on to its end though the connection may not.
            await self._line.put((request, asyncio.ensure_future(answer)))
            return
        await self._line.join()
        self._parked = asyncio.ensure_future(answer)
        if self._left:
            asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._parked.cancel)
        await self._answer(request, self._parked)
        self._parked = None

    async def _answer_in_line(self) -> None:
        while True:
            request, answer = await self._line.get()
            try:
                await self._answer(request, answer)
            finally:
                self._line.task_done()

    async def _answer(self, request: Request, answer: Awaitable[Any]) -> None:
        try:
            response = await answer
            self._node.metrics.requests.labels(request.key).inc()
            if response is not None:
                await self._send(write(request.key, request.version, request.correlation_id, response))
        except asyncio.CancelledError:
            if not self._left:
                raise
        except ConnectionError:
            self._writer.transport.abort()
        # A fault of ours costs the connection that met it, not the broker.
        except Exception:
            logger.exception("a request failed", extra={"api": request.key, "version": request.version})
            self._writer.transport.abort()

    async def _send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()


def _allow_many_files() -> None:
    """As many descriptors as we may have: segments and connections each take one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
