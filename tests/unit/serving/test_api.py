"""The HTTP surface over a real engine, with the log in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.feedback import Feedback
from schemas.ids import prompt_id
from schemas.messages import ChatMessage
from schemas.outputs import Output
from schemas.versions import Board, VersionState
from serving.adapters.adapter_bank import WEIGHTS_FILE
from serving.adapters.engine_local import LocalEngine
from serving.api.gateway import Gateway
from serving.api.routes import create_app
from serving.keeper import VersionKeeper
from tests.unit.serving.conftest import write_adapter
from tests.unit.serving.fakes import MemoryLog, gateway

RESPONSE_ID = "chatcmpl-" + "0" * 32
ASK: dict[str, Any] = {"model": "thumbwheel", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@pytest.fixture
async def parts(engine: LocalEngine) -> AsyncIterator[Gateway]:
    made = gateway(engine)
    yield made
    cast(VersionKeeper, made.keeper).close()


@pytest.fixture
async def client(parts: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as made:
        yield made


def outputs(parts: Gateway) -> list[Output]:
    return [cast(Output, event.data) for event in cast(MemoryLog, parts.outputs).events]


def said(parts: Gateway) -> list[Feedback]:
    return [cast(Feedback, event.data) for event in cast(MemoryLog, parts.feedback).events]


async def settled(parts: Gateway) -> None:
    while not parts.keeper.settled:
        await asyncio.sleep(0.005)


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], bool(error["message"])) == (code, True)


async def test_an_answer_says_who_gave_it_and_is_recorded(client: httpx.AsyncClient, parts: Gateway) -> None:
    extras = {"user": "u1", "metadata": {"segment": "de"}, "seed": 3, "temperature": 0.5}
    response = await client.post("/v1/chat/completions", json=ASK | extras, headers={"x-request-id": "abc"})
    body = response.json()
    assert response.headers["thumbwheel-version"] == "base"
    assert response.headers["x-request-id"] == "abc"
    assert (body["object"], body["model"], body["thumbwheel::recorded"]) == ("chat.completion", "thumbwheel:base", True)
    [output] = outputs(parts)
    assert output.response_id == body["id"]
    assert output.completion == body["choices"][0]["message"]["content"]
    assert output.prompt_id == prompt_id([ChatMessage(role="user", content="hi")])
    assert (output.user_id, output.segment, output.seed, output.temperature) == ("u1", "de", 3, 0.5)
    assert (output.version, output.base_model, output.routing_probability) == ("base", "tiny", 1.0)
    assert output.output_tokens == body["usage"]["completion_tokens"]


async def test_a_stream_says_the_same_as_a_plain_answer_and_ends_with_usage(
    client: httpx.AsyncClient, parts: Gateway
) -> None:
    asked = ASK | {"temperature": 0}
    plain = (await client.post("/v1/chat/completions", json=asked)).json()
    streamed = await client.post(
        "/v1/chat/completions", json=asked | {"stream": True, "stream_options": {"include_usage": True}}
    )
    lines = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == plain["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == plain["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
    assert [output.completion for output in outputs(parts)] == [text, text]


async def test_an_answer_that_should_not_be_stored_is_not(client: httpx.AsyncClient, parts: Gateway) -> None:
    body = (await client.post("/v1/chat/completions", json=ASK | {"store": False})).json()
    assert body["thumbwheel::recorded"] is False
    assert outputs(parts) == []


async def test_an_answer_flows_while_the_log_is_down_and_says_that_it_is_not_recorded(
    client: httpx.AsyncClient, parts: Gateway
) -> None:
    cast(MemoryLog, parts.outputs).down = True
    response = await client.post("/v1/chat/completions", json=ASK)
    assert (response.status_code, response.json()["thumbwheel::recorded"]) == (200, False)


async def test_a_new_version_serves_and_the_old_one_can_be_pinned(
    client: httpx.AsyncClient, parts: Gateway, tmp_path: Path
) -> None:
    keeper, now = cast(VersionKeeper, parts.keeper), datetime.now(UTC)
    board = Board().apply(write_adapter(tmp_path, "v1", seed=1), now)
    keeper.follow(board)
    await settled(parts)
    assert (await client.post("/v1/chat/completions", json=ASK)).json()["model"] == "thumbwheel:v1"
    keeper.follow(board.apply(write_adapter(tmp_path, "v2", seed=2), now))
    await settled(parts)
    assert (await client.post("/v1/chat/completions", json=ASK | {"model": "tiny"})).json()["model"] == "thumbwheel:v2"
    for name in ("thumbwheel:v1", "thumbwheel:base"):
        response = await client.post("/v1/chat/completions", json=ASK | {"model": name})
        assert response.json()["model"] == name
    names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    assert names == ["thumbwheel", "tiny", "thumbwheel:base", "thumbwheel:v1", "thumbwheel:v2"]


async def test_a_pinned_version_is_loaded_when_it_is_asked_for(
    client: httpx.AsyncClient, parts: Gateway, tmp_path: Path
) -> None:
    event = write_adapter(tmp_path, "v1", seed=1).model_copy(update={"state": VersionState.REGISTERED})
    cast(VersionKeeper, parts.keeper).follow(Board().apply(event, datetime.now(UTC)))
    await settled(parts)
    assert parts.keeper.serving == "base"
    response = await client.post("/v1/chat/completions", json=ASK | {"model": "thumbwheel:v1"})
    assert response.json()["model"] == "thumbwheel:v1"


async def test_a_damaged_adapter_keeps_the_old_version_serving_and_readyz_says_so(
    client: httpx.AsyncClient, parts: Gateway, tmp_path: Path
) -> None:
    event = write_adapter(tmp_path, "v1", seed=1)
    (tmp_path / "v1" / WEIGHTS_FILE).write_bytes(b"not what was registered")
    cast(VersionKeeper, parts.keeper).follow(Board().apply(event, datetime.now(UTC)))
    await settled(parts)
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert "SHA-256" in ready.json()["checks"]["live_version"]["detail"]
    assert (await client.post("/v1/chat/completions", json=ASK)).json()["model"] == "thumbwheel:base"
    pinned = await client.post("/v1/chat/completions", json=ASK | {"model": "thumbwheel:v1"})
    assert_error(pinned, 503, "engine_unavailable")


async def test_feedback_is_acknowledged_once_the_log_has_it(client: httpx.AsyncClient, parts: Gateway) -> None:
    body = {"response_id": RESPONSE_ID, "kind": "thumbs_up", "user": "u1"}
    response = await client.post("/v1/feedback", json=body, headers={"idempotency-key": "k1"})
    assert response.status_code == 201
    assert response.json() == {"id": "k1", "response_id": RESPONSE_ID, "status": "recorded"}
    assert [(f.kind.value, f.user_id) for f in said(parts)] == [("thumbs_up", "u1")]
    assert cast(MemoryLog, parts.feedback).events[0].id == "k1"


async def test_feedback_is_refused_while_the_log_is_down(client: httpx.AsyncClient, parts: Gateway) -> None:
    cast(MemoryLog, parts.feedback).down = True
    response = await client.post("/v1/feedback", json={"response_id": RESPONSE_ID, "kind": "thumbs_up"})
    assert_error(response, 503, "log_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert (await client.get("/readyz")).json()["checks"]["broker"]["ok"] is False


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "thumbs_up"}, "missing_field"),
        ({"response_id": "7", "kind": "thumbs_up"}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "applause"}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "comment"}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "stars": 5}, "unknown_field"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "id": ""}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "occurred_at": "2026-11-21T10:00:00"}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "occurred_at": "yesterday"}, "invalid_value"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "occurred_at": 1795255200}, "invalid_type"),
        ({"response_id": RESPONSE_ID, "kind": "thumbs_up", "occurred_at": "0001-01-01T00:00:00+14:00"}, "too_old"),
    ],
)
async def test_bad_feedback_is_refused_by_name(client: httpx.AsyncClient, body: dict[str, object], code: str) -> None:
    assert_error(await client.post("/v1/feedback", json=body), 400, code)


async def test_feedback_that_waited_has_the_time_at_which_it_was_given(
    client: httpx.AsyncClient, parts: Gateway
) -> None:
    before = datetime.now(UTC)
    given = before - timedelta(hours=3)
    abroad = given.astimezone(timezone(timedelta(hours=-9)))
    body = {"response_id": RESPONSE_ID, "kind": "thumbs_up"}
    for more in ({"occurred_at": abroad.isoformat()}, {"occurred_at": "9999-12-31T23:59:59-14:00"}, {}):
        assert (await client.post("/v1/feedback", json=body | more)).status_code == 201
    items = [body | {"occurred_at": given.isoformat()}, body | {"occurred_at": "2020-01-01T00:00:00Z"}, body]
    results = (await client.post("/v1/feedback/batch", json={"items": items})).json()["results"]
    assert [result.get("status") or result["error"]["code"] for result in results] == [
        "recorded",
        "too_old",
        "recorded",
    ]
    after = datetime.now(UTC)
    times = [event.time for event in cast(MemoryLog, parts.feedback).events]
    assert (times[0], times[3]) == (given, given)
    assert all(before <= time <= after for time in (times[1], times[2], times[4]))


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    assert_error(await client.post("/v1/chat/completions", json=ASK | {"model": "gpt"}), 404, "model_not_found")


async def test_a_body_beyond_the_limit_is_refused_also_in_pieces(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    for path in ("/v1/chat/completions", "/v1/feedback"):
        assert_error(await client.post(path, content=b"x" * 30_000), 413, "request_too_large")
        assert_error(await client.post(path, content=pieces()), 413, "request_too_large")


async def test_a_prompt_beyond_the_context_is_refused(client: httpx.AsyncClient) -> None:
    long = ASK | {"messages": [{"role": "user", "content": "x" * 400}]}
    for asked in (long, long | {"stream": True}):
        assert_error(await client.post("/v1/chat/completions", json=asked), 400, "context_length_exceeded")


async def test_a_path_or_method_that_is_not_there_is_an_error_object(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/v2/whatever"), 404, "http_404")
    assert_error(await client.get("/v1/feedback"), 405, "http_405")


async def test_health_and_metrics_answer(client: httpx.AsyncClient, parts: Gateway) -> None:
    cast(VersionKeeper, parts.keeper).follow(Board())
    await settled(parts)
    await client.post("/v1/chat/completions", json=ASK)
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json()["status"] == "ready"
    page = (await client.get("/metrics")).text
    assert 'thumbwheel_requests_total{route="/v1/chat/completions",status="200"} 1.0' in page
    assert 'thumbwheel_live_version_info{version="base"} 1.0' in page


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
FIELDS = ["model", "messages", "temperature", "top_p", "stop", "seed", "metadata", "n", "stream_options", "id", "kind"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON_VALUES))
def test_no_body_whatever_leads_to_a_server_error(body: bytes | dict[str, object], engine: LocalEngine) -> None:
    async def post() -> None:
        made = gateway(engine)
        transport = httpx.ASGITransport(create_app(made))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client:
            bodies = [body] if isinstance(body, bytes) else [json.dumps(b).encode() for b in (body, ASK | body)]
            for path in ("/v1/chat/completions", "/v1/feedback"):
                for content in bodies:
                    response = await client.post(path, content=content)
                    assert response.status_code < 500
                    assert response.status_code < 300 or response.json()["error"]["code"]
        cast(VersionKeeper, made.keeper).close()

    asyncio.run(post())
