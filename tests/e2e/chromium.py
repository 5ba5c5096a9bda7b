"""Drives a headless Chromium through its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--hide-scrollbars", "--window-size=500,300", "--remote-debugging-port=0",
)  # fmt: skip
KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " ")}


class PageError(Exception):
    """What a page's script threw."""


class Chromium:
    """A running browser. Every context is like another user: storage and cookies of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self.thrown: list[str] = []

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        return await reply

    def event(self, session: str, method: str) -> asyncio.Future[None]:
        """What comes true when the event next happens."""
        future = asyncio.get_running_loop().create_future()
        self._events.setdefault((session, method), []).append(future)
        return future

    async def read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answer(self._replies.pop(said["id"]), said)
                continue
            if said["method"] == "Runtime.exceptionThrown":
                self.thrown.append(json.dumps(said["params"]["exceptionDetails"]))
            for future in self._events.pop((said.get("sessionId", ""), said["method"]), []):
                future.set_result(None)

    @staticmethod
    def _answer(reply: asyncio.Future[dict[str, Any]], said: dict[str, Any]) -> None:
        if reply.cancelled():
            return
        if "error" in said:
            reply.set_exception(PageError(said["error"]["message"]))
        else:
            reply.set_result(said["result"])

    @asynccontextmanager
    async def context(self) -> AsyncIterator["Context"]:
        made = await self.call("Target.createBrowserContext")
        try:
            yield Context(self, made["browserContextId"])
        finally:
            await self.call("Target.disposeBrowserContext", **made)


class Context:
    def __init__(self, browser: Chromium, id: str) -> None:
        self._browser = browser
        self._id = id

    async def page(self, url: str, *, before: str = "") -> "Page":
        """A window of its own, loaded. `before` is a script that runs before any of the page's."""
        call = self._browser.call
        # A window, not a tab: a tab that another one covers is a page that was left.
        made = await call("Target.createTarget", url="about:blank", browserContextId=self._id, newWindow=True)
        attached = await call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        page = Page(self._browser, made["targetId"], attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Accessibility"):
            await page.call(f"{domain}.enable")
        if before:
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        await page.go(url)
        return page


class Page:
    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **parameters)

    async def go(self, url: str) -> None:
        loaded = self._browser.event(self._session, "Page.loadEventFired")
        await self.call("Page.navigate", url=url)
        await loaded

    async def reload(self) -> None:
        loaded = self._browser.event(self._session, "Page.loadEventFired")
        await self.call("Page.reload")
        await loaded

    async def run(self, script: str) -> Any:
        """The value that an expression comes to, promises waited for; raises `PageError`."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise PageError(said["exceptionDetails"]["exception"].get("description", "thrown"))
        return said["result"].get("value")

    async def press(self, key: str) -> None:
        code, number, text = KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def offline(self, offline: bool) -> None:
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=offline, **conditions)

    async def accessible(self) -> list[dict[str, Any]]:
        """What a screen reader sees: role, name and properties of each node that has them."""
        tree = await self.call("Accessibility.getFullAXTree")
        return [
            {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
            | {p["name"]: p["value"].get("value") for p in node.get("properties", [])}
            for node in tree["nodes"]
            if not node["ignored"]
        ]

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        await self._browser.call("Target.closeTarget", targetId=self._target)


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Chromium]:
    """A browser of its own, whose profile is in `folder`."""
    assert PROGRAM is not None
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *ARGUMENTS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        address = await _address(process)
        drain = asyncio.create_task(_drain(process))
        async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=0) as socket:
            browser = Chromium(socket)
            reader = asyncio.create_task(browser.read())
            yield browser
            reader.cancel()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    await drain


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on " in line:
            return line.decode().rsplit(" ", 1)[1].strip()
    raise RuntimeError("chromium ended before it listened")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(1 << 16):
        pass
