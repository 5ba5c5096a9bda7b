"""The browser library in a real browser: what arrives, what waits, what is given up, and what a person sees."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest
import pytest_asyncio
import uvicorn

from schemas.consent import Purpose
from schemas.feedback import Feedback
from serving.adapters.keys import new_api_key
from serving.api.gateway import Gateway
from serving.api.routes import create_app
from serving.core.access import Caller, Scope
from tests.e2e.chromium import PROGRAM, Chromium, Context, Page, chromium
from tests.e2e.feedback_site import Answer, GatewayDouble, gateway_double, site
from tests.unit.serving.fakes import BaseOnly, MemoryLog, Parrot, gatekeeper
from tests.unit.serving.fakes import gateway as make_gateway

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine: apt-get install chromium"),
]
TOKEN = "header.claims.signature"
ANSWER = f"chatcmpl-{'0a' * 16}"
QUEUE = "Object.keys(localStorage).filter((key) => key.startsWith('thumbwheel.item.')).length"
UUID7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
EXPIRED = Answer(401, "token_expired")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
fixture = pytest_asyncio.fixture(loop_scope="module")


@module_fixture
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@module_fixture
async def pages() -> AsyncIterator[str]:
    async with site() as address:
        yield address


@fixture
async def gateway() -> AsyncIterator[GatewayDouble]:
    async with gateway_double() as double:
        yield double


@fixture
async def user(browser: Chromium) -> AsyncIterator[Context]:
    """A user with empty storage; no page of theirs may have thrown anything at its host."""
    browser.thrown.clear()
    async with browser.context() as context:
        yield context
    assert browser.thrown == []


async def opened(user: Context, pages: str, gateway: GatewayDouble, *, before: str = "", strict: bool = False) -> Page:
    """A page on which `feedback` is bound to an answer."""
    page = await user.page(f"{pages}/pages/expose.html", before=before)
    await bind(page, gateway, strict=strict)
    return page


async def bind(page: Page, gateway: GatewayDouble, *, strict: bool = False) -> None:
    options = json.dumps({"url": gateway.url, "token": TOKEN, "strict": strict})
    await page.run(f"window.feedback = sdk.thumbwheel({options}); 0")


async def test_a_thumb_arrives_with_its_token_and_a_time_ordered_id(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    outcome = await page.run("feedback.thumbsUp('friendly')")
    [body] = gateway.recorded
    moment = datetime.fromisoformat(body.pop("occurred_at"))
    assert body == {"id": outcome["id"], "kind": "thumbs_up", "text": "friendly", "token": TOKEN}
    assert UUID7.match(outcome["id"])
    assert moment == datetime.fromtimestamp((uuid.UUID(outcome["id"]).int >> 80) / 1000, UTC)
    assert outcome["status"] == "recorded"
    assert await page.run(QUEUE) == 0


async def test_every_method_says_its_kind_in_the_order_of_the_calls(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    outcomes = await page.run(
        "Promise.all([feedback.thumbsUp(), feedback.thumbsDown(), feedback.withdraw(), feedback.comment('c'),"
        " feedback.correct('d'), feedback.flag(), feedback.copied(), feedback.edited('e'), feedback.regenerated()])"
    )
    assert gateway.kinds == [
        "thumbs_up", "thumbs_down", "withdrawal", "comment", "correction", "flag", "copy", "edit", "regenerate",
    ]  # fmt: skip
    assert {outcome["status"] for outcome in outcomes} == {"recorded"}


async def test_no_cookie_is_sent_and_no_permission_is_asked_of_another_origin(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    await page.run("document.cookie = 'session=secret'")  # cookies know hosts, not ports: it would go there too
    await page.run("feedback.thumbsUp()")
    [request] = gateway.requests
    assert request.method == "POST"
    assert request.headers["Content-Type"].startswith("text/plain")
    assert request.headers["Origin"] == pages
    assert "Cookie" not in request.headers


async def test_what_could_not_be_sent_is_sent_in_order_once_the_gateway_is_back(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    await gateway.stop()
    began = datetime.fromtimestamp(await page.run("Date.now()") / 1000, UTC)
    said = [await page.run(f"feedback.{call}") for call in ("thumbsDown()", "comment('wrong day')", "withdraw()")]
    clicked = datetime.fromtimestamp(await page.run("Date.now()") / 1000, UTC)
    assert {outcome["status"] for outcome in said} == {"waiting"}
    assert await page.run(QUEUE) == 3
    await gateway.start()
    await gateway.until(lambda g: len(g.recorded) == 3)
    assert [body["id"] for body in gateway.recorded] == [outcome["id"] for outcome in said]
    assert gateway.kinds == ["thumbs_down", "comment", "withdrawal"]
    given = [datetime.fromisoformat(body["occurred_at"]) for body in gateway.recorded]
    assert given == sorted(set(given))
    assert began <= given[0] <= given[-1] <= clicked


async def test_a_browser_that_is_online_again_sends_at_once_what_waited(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    await page.run("Math.random = () => 3000; 0")  # the next attempt by itself would be in fifty minutes
    await page.offline(True)
    said = await page.run("Promise.all([feedback.thumbsUp(), feedback.copied()])")
    assert {outcome["code"] for outcome in said} == {"unreachable"}
    assert gateway.requests == []
    await page.offline(False)
    await gateway.until(lambda g: g.kinds == ["thumbs_up", "copy"])


async def test_a_reload_keeps_the_queue_and_the_next_page_sends_it(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    await gateway.stop()
    outcome = await page.run("feedback.correct('On Monday.')")
    await page.reload()
    assert await page.run(QUEUE) == 1
    await gateway.start()
    await gateway.until(lambda g: len(g.recorded) == 1)
    assert gateway.recorded[0]["id"] == outcome["id"]
    assert gateway.recorded[0]["text"] == "On Monday."


async def test_of_two_tabs_one_sends_at_a_time_and_each_hears_what_became_of_its_own(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    tabs = [await opened(user, pages, gateway) for _ in range(2)]
    gateway.hold()
    for tab in tabs:
        await tab.run("window.said = Promise.all([feedback.thumbsUp(), feedback.copied(), feedback.flag()]); 0")
    await gateway.until(lambda g: g.in_flight == 1)
    gateway.release()
    outcomes = [outcome for tab in tabs for outcome in await tab.run("said")]
    assert gateway.most_in_flight == 1
    assert {outcome["status"] for outcome in outcomes} == {"recorded"}
    # A tab may look before the browser has told it what another one removed: sent again, and counted once by its id.
    assert {body["id"] for body in gateway.recorded} == {outcome["id"] for outcome in outcomes}


async def test_a_page_that_is_closed_at_once_leaves_a_beacon_and_the_next_page_makes_sure(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    gateway.hold()
    await page.run("void feedback.thumbsUp(); void feedback.comment('in a hurry')")
    await page.close()
    gateway.release()
    await gateway.until(lambda g: len(g.beacons) == 1)
    items = gateway.beacons[0]["items"]
    assert [(item["kind"], item["token"]) for item in items] == [("thumbs_up", TOKEN), ("comment", TOKEN)]
    beacon = next(request for request in gateway.requests if request.path == "/v1/feedback/batch")
    assert beacon.headers["Content-Type"].startswith("text/plain")
    assert {request.method for request in gateway.requests} == {"POST"}
    next_page = await opened(user, pages, gateway)
    await next_page.run("sdk.flush()")
    assert {body["id"] for body in gateway.recorded} == {item["id"] for item in items}
    assert await next_page.run(QUEUE) == 0


async def test_a_beacon_takes_what_fits_and_never_overtakes(user: Context, pages: str, gateway: GatewayDouble) -> None:
    page = await opened(user, pages, gateway)
    await gateway.stop()
    for call in ("comment('ä'.repeat(20_000))", "comment('ä'.repeat(20_000))", "thumbsUp()"):  # two bytes a letter
        await page.run(f"feedback.{call}")
    await page.run(
        "window.beacons = []; navigator.sendBeacon = (url, text) => { beacons.push(JSON.parse(text)); return true; };"
        "dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pagehide'))"
    )
    assert [[item["kind"] for item in beacon["items"]] for beacon in await page.run("beacons")] == [
        ["comment"],
        ["comment", "thumbs_up"],
    ]


async def test_an_expired_token_is_dropped_and_holds_up_nothing(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    gateway.answers = [EXPIRED]
    first, second = await page.run("Promise.all([feedback.thumbsUp(), feedback.thumbsDown()])")
    assert (first["status"], first["code"], first["httpStatus"]) == ("refused", "token_expired", 401)
    assert second["status"] == "recorded"
    assert len(gateway.requests) == 2
    assert await page.run(QUEUE) == 0


async def test_strict_rejects_what_is_refused_and_what_has_to_wait(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway, strict=True)
    gateway.answers = [EXPIRED]
    caught = "catch((error) => [error instanceof Error, error.status, error.code, error.message])"
    said = await page.run(f"feedback.thumbsUp().{caught}")
    assert said[:3] == [True, "refused", "token_expired"]
    assert said[3].endswith("is refused: said by the test: token_expired")
    await gateway.stop()
    assert (await page.run(f"feedback.thumbsUp().{caught}"))[1:3] == ["waiting", "unreachable"]
    await gateway.start()
    assert (await page.run("sdk.flush().then(() => feedback.thumbsUp())"))["status"] == "recorded"
    assert len(gateway.recorded) == 2


async def test_after_a_429_nobody_asks_before_the_moment_that_was_named(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page, other = [await opened(user, pages, gateway) for _ in range(2)]
    gateway.answers = [Answer(429, "rate_limited", {"Retry-After": "3000"})]
    first = await page.run("feedback.thumbsUp()")
    assert (first["status"], first["code"]) == ("waiting", "rate_limited")
    later = [await page.run("feedback.copied()"), await other.run("feedback.flag()")]
    assert [outcome["code"] for outcome in later] == ["waiting_to_retry"] * 2
    assert len(gateway.requests) == 1
    await page.run("localStorage.setItem('thumbwheel.not-before', Date.now()); sdk.flush()")
    assert gateway.kinds == ["thumbs_up", "copy", "flag"]


async def test_a_gateway_out_of_order_is_asked_again(user: Context, pages: str, gateway: GatewayDouble) -> None:
    page = await opened(user, pages, gateway)
    gateway.answers = [Answer(503, "broker_unavailable"), Answer(500, "internal_error")]
    assert (await page.run("feedback.thumbsUp()"))["status"] == "waiting"
    await gateway.until(lambda g: len(g.recorded) == 1)
    assert len(gateway.requests) == 3


async def test_the_queue_keeps_the_newest_hundred_and_what_is_younger_than_a_week(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway)
    await gateway.stop()
    body = json.dumps({"url": gateway.url, "body": {"kind": "copy"}})
    old = "thumbwheel.item.01700000-0000-7000-8000-000000000000"  # 2018
    await page.run(f"localStorage.setItem({old!r}, {body!r})")
    await page.run("Promise.all(Array.from({ length: 103 }, (_, n) => feedback.comment(`${n}`)))")
    assert await page.run(QUEUE) == 100
    await gateway.start()
    await page.run("sdk.flush()")
    assert [body["text"] for body in gateway.recorded] == [str(n) for n in range(3, 103)]


async def test_what_is_not_ours_in_the_queue_is_thrown_away(user: Context, pages: str, gateway: GatewayDouble) -> None:
    page = await opened(user, pages, gateway)
    for key, text in {"a": "{", "b": "null", "c": "7"}.items():
        await page.run(f"localStorage.setItem('thumbwheel.item.{key}', {text!r})")
    assert (await page.run("feedback.thumbsUp()"))["status"] == "recorded"
    assert await page.run(QUEUE) == 0


NO_STORAGE = """
Object.defineProperty(window, "localStorage", { get() { throw new DOMException("no", "SecurityError"); } });
delete Navigator.prototype.locks;
delete window.BroadcastChannel;
"""


async def test_where_the_page_may_keep_nothing_the_queue_lives_as_long_as_the_page(
    user: Context, pages: str, gateway: GatewayDouble
) -> None:
    page = await opened(user, pages, gateway, before=NO_STORAGE)
    await gateway.stop()
    assert (await page.run("feedback.thumbsUp()"))["status"] == "waiting"
    await gateway.start()
    await page.run("Promise.all([feedback.copied(), sdk.flush(), sdk.flush()])")
    await gateway.until(lambda g: len(g.recorded) == 2)
    assert gateway.kinds == ["thumbs_up", "copy"]
    assert gateway.most_in_flight == 1


async def test_thumbs_work_by_keyboard_and_tell_a_screen_reader_their_state(
    user: Context, pages: str, gateway: GatewayDouble, tmp_path: Path
) -> None:
    page = await user.page(f"{pages}/pages/thumbs.html?{urlencode({'gateway': gateway.url, 'token': TOKEN})}")
    assert await pressed(page) == [("Good answer", "false"), ("Bad answer", "false")]
    await page.press("Tab")
    await page.press(" ")
    assert await pressed(page) == [("Good answer", "true"), ("Bad answer", "false")]
    await page.screenshot(tmp_path / "up.png")
    await page.press("Tab")
    await page.press("Enter")
    assert await pressed(page) == [("Good answer", "false"), ("Bad answer", "true")]
    await page.press("Enter")
    assert await pressed(page) == [("Good answer", "false"), ("Bad answer", "false")]
    await gateway.until(lambda g: len(g.recorded) == 3)
    assert gateway.kinds == ["thumbs_up", "thumbs_down", "withdrawal"]
    groups = [node for node in await page.accessible() if node["role"] == "group"]
    assert [group["name"] for group in groups] == ["Rate this answer"]
    assert await page.run("refusedByPolicy") == []
    assert (tmp_path / "up.png").stat().st_size > 0


async def pressed(page: Page) -> list[tuple[str, Any]]:
    buttons = [node for node in await page.accessible() if "utton" in node["role"]]
    return [(button["name"], button.get("pressed")) for button in buttons]


async def test_a_thumb_that_is_refused_does_not_stay_pressed(user: Context, pages: str, gateway: GatewayDouble) -> None:
    page = await user.page(f"{pages}/pages/thumbs.html?{urlencode({'gateway': gateway.url, 'token': TOKEN})}")
    gateway.answers = [EXPIRED]
    await page.press("Tab")
    await page.press("Enter")
    await page.run("new Promise((done) => setInterval(() => results.length && done(), 10))")
    assert await page.run("results") == ["refused"]
    assert await pressed(page) == [("Good answer", "false"), ("Bad answer", "false")]


async def test_the_gateway_itself_takes_thumbs_and_beacons_of_a_page_that_it_allows(user: Context, pages: str) -> None:
    held = new_api_key(name="app", scopes=(Scope.CHAT,), tenant="acme", rate=None, expires=None, now=datetime.now(UTC))
    door = gatekeeper(held[0], origins=frozenset({pages}))
    made = make_gateway(Parrot(), keeper=BaseOnly(), door=door)
    log = cast(MemoryLog, made.feedback)
    token = door.token(ANSWER, caller=Caller(held[0], open=False), user="user-7", purposes=(Purpose.TRAINING,))
    async with served(made) as url:
        page = await user.page(f"{pages}/pages/expose.html")
        bound = "sdk.thumbwheel({{ url: {!r}, token: {!r} }})".format
        outcome = await page.run(f"{bound(url, token)}.correct('Mail ann@example.org.')")
        assert (outcome["status"], outcome["responseId"]) == ("recorded", ANSWER)
        refused = await page.run(f"{bound(url, token[:-4] + 'AAAA')}.thumbsUp()")
        assert (refused["status"], refused["code"]) == ("refused", "token_invalid")
        # Without an answer in time the item stays in the queue; what the page leaves behind is a beacon.
        await page.run("window.fetch = () => new Promise(() => {}); 0")
        await page.run(f"void {bound(url, token)}.thumbsDown()")
        await page.close()
        while len(log.events) < 2:
            await asyncio.sleep(0.02)
    said = [cast(Feedback, event.data) for event in log.events]
    assert [(one.kind.value, one.text) for one in said] == [("correction", "Mail [EMAIL_1]."), ("thumbs_down", None)]
    assert {(one.response_id, one.user_id, one.tenant) for one in said} == {(ANSWER, "user-7", "acme")}
    assert {one.purposes for one in said} == {(Purpose.TRAINING,)}
    assert log.events[0].id == outcome["id"]


@asynccontextmanager
async def served(made: Gateway) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(made), port=0, log_level="error", lifespan="off"))
    running = asyncio.create_task(asyncio.to_thread(server.run))  # in a thread it leaves the signals alone
    while not (server.started and server.servers):
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
