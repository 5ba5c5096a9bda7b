"""Two small servers for the browser library: a site that has the page, and a gateway that can be out of order."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.core.records import FeedbackRequest
from serving.core.wire import RequestRefused, parse

ROOT = Path(__file__).parent.parent.parent
PAGES = Path(__file__).parent / "pages"
LIBRARY = ROOT / "sdk" / "javascript" / "thumbwheel.js"


@dataclass(frozen=True)
class Answer:
    """What the gateway says next."""

    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        error = {"message": f"said by the test: {self.code}", "type": "error", "code": self.code}
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


@dataclass
class GatewayDouble:
    """Reads feedback with the gateway's own parser, on an origin of its own, and remembers it.

    `answers` are used up before it records anything; while `held` it takes requests and answers none.
    """

    answers: list[Answer] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)
    recorded: list[dict[str, Any]] = field(default_factory=list)
    beacons: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._open.set()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def kinds(self) -> list[str]:
        return [body["kind"] for body in self.recorded]

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def start(self) -> None:
        """Listen, on the same port as before; the first time on one that is free."""
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, condition: Callable[["GatewayDouble"], bool]) -> None:
        """Wait until what has come in satisfies the condition."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        body = await request.text()
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self._tell()
        try:
            await self._open.wait()
            response = self._answer(request, body)
        finally:
            self.in_flight -= 1
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        await self._tell()
        return response

    def _answer(self, request: web.BaseRequest, text: str) -> web.Response:
        if request.path == "/v1/feedback/batch":
            self.beacons.append(json.loads(text))
            return web.json_response({"results": []})
        if self.answers:
            return self.answers.pop(0).response()
        try:
            parse(FeedbackRequest, text.encode())
        except RequestRefused as refused:
            return Answer(400, str(refused)).response()
        body = json.loads(text)
        self.recorded.append(body)
        said = {"id": body["id"], "response_id": body.get("response_id", "the token's"), "status": "recorded"}
        return web.json_response(said, status=201)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def gateway_double() -> AsyncIterator[GatewayDouble]:
    gateway = GatewayDouble()
    await gateway.start()
    try:
        yield gateway
    finally:
        gateway.release()
        await gateway.stop()


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """The address of a site with the pages and the library, under a strict Content Security Policy."""
    policy = "default-src 'none'; script-src 'self'; connect-src http://127.0.0.1:*"

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        path = LIBRARY if request.path == "/thumbwheel.js" else PAGES / Path(request.path).name
        if not path.is_file():
            return web.Response(status=404)
        return web.FileResponse(path, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})

    runner = web.ServerRunner(web.Server(serve), shutdown_timeout=0.1)
    await runner.setup()
    try:
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
