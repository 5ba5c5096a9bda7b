"""Who gets in over HTTP, and what an answer and a piece of feedback say of them. The log is in memory."""

from typing import Any, cast

import httpx
import pytest

from schemas.consent import Purpose
from schemas.feedback import Feedback
from schemas.ids import prompt_id
from schemas.messages import ChatMessage
from schemas.outputs import Output
from serving.adapters.keys import new_api_key
from serving.adapters.redaction import INLINE_CHARACTERS
from serving.api.feedback import FeedbackEndpoint
from serving.api.gateway import Gateway
from serving.api.routes import create_app, routed
from serving.core.access import AccessMode, ApiKey, Scope
from serving.core.pseudonyms import pseudonym
from tests.unit.serving.fakes import BaseOnly, MemoryLog, Parrot, gatekeeper, gateway, token_keys
from tests.unit.serving.test_access_rules import NOW

TOKEN = "thumbwheel::feedback_token"
ASK: dict[str, Any] = {"model": "thumbwheel", "messages": [{"role": "user", "content": "hi"}]}
OTHER = "chatcmpl-" + "0" * 32
THUMB = {"response_id": OTHER, "kind": "thumbs_up"}
PAGE = "https://shop.example"


def key(*scopes: Scope, tenant: str | None = None, rate: int | None = None) -> tuple[ApiKey, dict[str, str]]:
    """A key, and the header that presents it."""
    made, text = new_api_key(name="app", scopes=scopes or tuple(Scope), tenant=tenant, rate=rate, expires=None, now=NOW)
    return made, {"authorization": f"Bearer {text}"}


def serve(
    *held: ApiKey, says: str = "fine", address: str = "127.0.0.1", **more: Any
) -> tuple[Gateway, httpx.AsyncClient]:
    made = gateway(Parrot(says), keeper=BaseOnly(), door=gatekeeper(*held, **more))
    transport = httpx.ASGITransport(create_app(made), client=(address, 50_000))
    return made, httpx.AsyncClient(transport=transport, base_url="http://gateway")


def outputs(made: Gateway) -> list[Output]:
    return [cast(Output, event.data) for event in cast(MemoryLog, made.outputs).events]


def said(made: Gateway) -> list[Feedback]:
    return [cast(Feedback, event.data) for event in cast(MemoryLog, made.feedback).events]


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def answered(client: httpx.AsyncClient, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json=ASK | more, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return response.json()


async def rate(
    client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx.Response:
    return await client.post("/v1/feedback", json=body, headers=headers)


# --- tokens


async def test_feedback_by_the_token_of_an_answer_needs_nothing_else() -> None:
    held, header = key(tenant="acme")
    made, client = serve(held)
    answer = await answered(client, header, user="u1", metadata={"purposes": "labeling"})
    response = await rate(client, {"kind": "thumbs_down", "token": answer[TOKEN], "user": "somebody else"})
    assert response.status_code == 201
    assert response.json()["response_id"] == answer["id"]
    [feedback], [output] = said(made), outputs(made)
    assert (feedback.response_id, feedback.user_id, feedback.tenant) == (answer["id"], "u1", "acme")
    assert (feedback.purposes, feedback.credential) == ((Purpose.LABELING,), "token:k1")
    assert (output.user_id, output.tenant, output.credential) == ("u1", "acme", held.id)
    assert output.purposes == (Purpose.LABELING,)


async def test_a_token_may_come_as_a_bearer_too() -> None:
    held, header = key()
    _, client = serve(held)
    token = (await answered(client, header))[TOKEN]
    assert (await rate(client, {"kind": "copy"}, {"authorization": f"Bearer {token}"})).status_code == 201


async def test_a_stream_carries_the_token_in_its_first_and_its_closing_chunk() -> None:
    _, client = serve()
    streamed = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert streamed.headers["cache-control"] == "no-store"
    lines = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line]
    chunks = [httpx.Response(200, text=line).json() for line in lines[:-1]]
    tokens = [chunk.get(TOKEN) for chunk in chunks]
    assert tokens[0] == tokens[-1] != None  # noqa: E711 - both, and something
    assert set(tokens[1:-1]) == {None}
    assert (await rate(client, {"kind": "thumbs_up", "token": tokens[0]})).json()["response_id"] == chunks[0]["id"]


async def test_a_token_is_refused_for_another_response_tenant_or_kind_and_where_it_was_altered() -> None:
    (mine, mine_header), (theirs, theirs_header) = key(tenant="acme"), key(tenant="globex")
    made, client = serve(mine, theirs, token_actions=tuple(k for k in _kinds() if k != "flag"))
    token = (await answered(client, mine_header))[TOKEN]
    body = {"kind": "thumbs_up", "token": token}
    altered = token[:-5] + ("A" if token[-5] != "A" else "B") + token[-4:]
    assert error_of(await rate(client, body | {"response_id": OTHER})) == (403, "token_not_for_this")
    assert error_of(await rate(client, body, theirs_header)) == (403, "token_not_for_this")
    assert error_of(await rate(client, body | {"kind": "flag"})) == (403, "token_not_for_this")
    assert error_of(await rate(client, body | {"token": altered})) == (401, "token_invalid")
    assert error_of(await rate(client, body | {"token": "a.b.c"}, mine_header)) == (401, "token_invalid")
    assert said(made) == []
    assert (await rate(client, body, mine_header)).status_code == 201
    assert [(f.tenant, f.credential) for f in said(made)] == [("acme", mine.id)]


def _kinds() -> tuple[Any, ...]:
    from schemas.feedback import FeedbackKind

    return tuple(FeedbackKind)


async def test_a_token_of_another_gateways_keys_is_refused_also_by_an_open_one() -> None:
    _, stranger = serve(tokens=token_keys("k1"))
    made, client = serve(tokens=token_keys("k1"))
    token = (await answered(stranger))[TOKEN]
    assert error_of(await rate(client, {"kind": "thumbs_up", "token": token})) == (401, "token_invalid")
    assert said(made) == []


# --- API keys

CALLS: list[tuple[str, str, Any, Scope]] = [
    ("POST", "/v1/chat/completions", ASK, Scope.CHAT),
    ("POST", "/v1/feedback", THUMB, Scope.FEEDBACK),
    ("POST", "/v1/feedback/batch", {"items": [THUMB]}, Scope.FEEDBACK),
    ("POST", "/v1/outputs", {"model": "gpt-9", "messages": ASK["messages"], "completion": "yes"}, Scope.OUTPUTS),
    ("GET", "/v1/models", None, Scope.MODELS),
]


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS, ids=[path for _, path, _, _ in CALLS])
async def test_where_there_is_a_key_a_call_needs_one_with_its_scope(
    method: str, path: str, body: Any, scope: Scope
) -> None:
    good, header = key(scope)
    other, other_header = key(*(s for s in Scope if s is not scope))
    _, client = serve(good, other)
    ask = {"json": body} if body else {}
    assert (await client.request(method, path, headers=header, **ask)).is_success
    assert error_of(await client.request(method, path, headers=other_header, **ask)) == (403, "insufficient_scope")
    for wrong in ("Bearer twk_000000000000_" + "0" * 64, "Bearer twk_", header["authorization"][:-1]):
        response = await client.request(method, path, headers={"authorization": wrong}, **ask)
        assert error_of(response) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    for nobody in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer unused"}):
        response = await client.request(method, path, headers=nobody, **ask)
        if path == "/v1/feedback/batch":  # each item might have had a token
            assert [result["error"]["code"] for result in response.json()["results"]] == ["invalid_api_key"]
        else:
            assert error_of(response) == (401, "invalid_api_key")


async def test_every_route_either_needs_a_key_or_is_known_to_be_open() -> None:
    held, _ = key()
    made, client = serve(held, loopback=False)
    paths = {route.path for route in routed(made, FeedbackEndpoint(made)).routes}  # type: ignore[attr-defined]
    assert paths == {path for _, path, _, _ in CALLS} | {"/healthz", "/readyz", "/metrics"}
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    assert error_of(await client.get("/metrics")) == (401, "invalid_api_key")


async def test_metrics_are_open_on_the_own_machine_and_count_who_was_turned_away() -> None:
    held, _ = key()
    _, client = serve(held)
    await rate(client, THUMB)
    page = await client.get("/metrics")
    assert 'thumbwheel_gateway_refused_total{code="invalid_api_key"} 1.0' in page.text


async def test_a_revoked_key_closes_its_door_and_opens_no_other() -> None:
    held, header = key()
    _, client = serve(held.model_copy(update={"revoked": NOW}))
    assert error_of(await rate(client, THUMB, header)) == (401, "invalid_api_key")
    assert error_of(await rate(client, THUMB)) == (401, "invalid_api_key")


async def test_an_open_gateway_takes_a_key_that_it_knows_and_refuses_one_that_it_does_not() -> None:
    held, header = key(tenant="acme")
    made, client = serve(held, mode=AccessMode.OPEN)
    assert (await rate(client, THUMB)).status_code == 201
    assert (await rate(client, THUMB, {"authorization": "Bearer unused"})).status_code == 201
    assert (await rate(client, THUMB, header)).status_code == 201
    assert error_of(await rate(client, THUMB, {"authorization": "Bearer twk_x"})) == (401, "invalid_api_key")
    assert [f.tenant for f in said(made)] == [None, None, "acme"]


async def test_a_key_that_asks_too_often_waits() -> None:
    held, header = key(rate=2)
    _, client = serve(held)
    assert [(await rate(client, THUMB, header)).status_code for _ in range(2)] == [201, 201]
    late = await rate(client, THUMB, header)
    assert error_of(late) == (429, "rate_limited")
    assert 1 <= int(late.headers["retry-after"]) <= 30  # one in thirty seconds


async def test_an_address_without_a_key_that_asks_too_often_waits() -> None:
    _, client = serve(mode=AccessMode.OPEN, loopback=False, address="10.1.2.3", address_rate=3)
    statuses = [(await rate(client, THUMB)).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 429]
    assert error_of(await client.post("/v1/chat/completions", json=ASK)) == (429, "rate_limited")


async def test_an_open_gateway_does_not_count_its_own_machine() -> None:
    _, client = serve(address_rate=1)
    assert [(await rate(client, THUMB)).status_code for _ in range(3)] == [201, 201, 201]


async def test_forged_tokens_are_counted_too() -> None:
    held, _ = key()
    _, client = serve(held, address_rate=2)
    answers = [error_of(await rate(client, {"kind": "thumbs_up", "token": "a.b.c"}))[0] for _ in range(3)]
    assert answers == [401, 401, 429]


# --- pages of other sites


async def test_pages_of_the_named_origins_may_send_feedback_and_read_errors() -> None:
    held, header = key()
    _, client = serve(held, origins=frozenset({PAGE}))
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await client.options("/v1/feedback", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    token = (await answered(client, header))[TOKEN]
    for body, status in (({"kind": "thumbs_up", "token": token}, 201), ({"kind": "thumbs_up", "token": "x"}, 401)):
        response = await rate(client, body, {"origin": PAGE})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, PAGE)
        assert "origin" in response.headers["vary"].lower()
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origins", [frozenset[str](), frozenset({"https://other.example"})])
async def test_pages_of_other_origins_get_no_permission(origins: frozenset[str]) -> None:
    held, header = key()
    _, client = serve(held, origins=origins)
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in (await client.options("/v1/feedback", headers=asked)).headers
    token = (await answered(client, header))[TOKEN]
    response = await rate(client, {"kind": "thumbs_up", "token": token}, {"origin": PAGE})
    assert "access-control-allow-origin" not in response.headers


async def test_every_origin_can_be_allowed_and_other_paths_never_are() -> None:
    _, client = serve(origins=frozenset({"*"}))
    assert (await rate(client, THUMB, {"origin": PAGE})).headers["access-control-allow-origin"] == "*"
    chat = await client.post("/v1/chat/completions", json=ASK, headers={"origin": PAGE})
    assert "access-control-allow-origin" not in chat.headers


async def test_a_strange_page_can_not_use_an_open_gateway_behind_its_users_back() -> None:
    made, client = serve()
    for path, body in (
        ("/v1/feedback", THUMB),
        ("/v1/chat/completions", ASK),
        ("/v1/feedback/batch", {"items": [THUMB]}),
    ):
        assert error_of(await client.post(path, json=body, headers={"origin": PAGE})) == (403, "origin_not_allowed")
    assert said(made) == []


async def test_a_beacon_is_read_whatever_its_content_type_says() -> None:
    _, client = serve()
    token = (await answered(client))[TOKEN]
    body = f'{{"kind": "thumbs_up", "token": "{token}"}}'
    response = await client.post("/v1/feedback", content=body, headers={"content-type": "text/plain;charset=UTF-8"})
    assert response.status_code == 201


# --- batches and answers from elsewhere


async def test_each_item_of_a_batch_has_its_answer_in_its_place() -> None:
    held, header = key(tenant="acme")
    made, client = serve(held)
    answer = await answered(client, header, user="u7")
    items: list[Any] = [
        THUMB | {"id": "one", "user": "u1"},
        {"kind": "applause", "response_id": OTHER},
        {"kind": "thumbs_down", "token": answer[TOKEN]},
        {"kind": "thumbs_down", "token": "a.b.c"},
        {"kind": "correction", "response_id": OTHER},
        17,
    ]
    response = await client.post("/v1/feedback/batch", json={"items": items}, headers=header)
    assert response.status_code == 200
    results = response.json()["results"]
    assert results[0] == {"id": "one", "response_id": OTHER, "status": "recorded"}
    assert results[2]["response_id"] == answer["id"]
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == [None, "invalid_value", None, "token_invalid", "invalid_value", "invalid_type"]
    assert [(f.response_id, f.user_id) for f in said(made)] == [(OTHER, "u1"), (answer["id"], "u7")]


async def test_a_batch_without_a_key_goes_by_the_tokens_of_its_items() -> None:
    held, header = key()
    made, client = serve(held)
    token = (await answered(client, header))[TOKEN]
    batch = {"items": [{"kind": "thumbs_up", "token": token}, THUMB]}
    results = (await client.post("/v1/feedback/batch", json=batch)).json()["results"]
    assert [result.get("status") or result["error"]["code"] for result in results] == ["recorded", "invalid_api_key"]
    assert len(said(made)) == 1


async def test_a_batch_is_refused_as_a_whole_while_the_log_is_down() -> None:
    made, client = serve()
    cast(MemoryLog, made.feedback).down = True
    response = await client.post("/v1/feedback/batch", json={"items": [THUMB, THUMB]})
    assert error_of(response) == (503, "log_unavailable")


@pytest.mark.parametrize(("items", "status"), [([], 400), ([1], 200), ([1] * 500, 200), ([1] * 501, 400), ("x", 400)])
async def test_a_batch_has_one_to_five_hundred_items(items: Any, status: int) -> None:
    _, client = serve()
    assert (await client.post("/v1/feedback/batch", json={"items": items})).status_code == status


async def test_the_items_of_a_batch_without_a_key_count_one_by_one() -> None:
    held, _ = key()
    _, client = serve(held, address_rate=10)
    assert (await client.post("/v1/feedback/batch", json={"items": [THUMB] * 9})).status_code == 200
    assert error_of(await client.post("/v1/feedback/batch", json={"items": [THUMB] * 9})) == (429, "rate_limited")


async def test_an_answer_from_elsewhere_is_recorded_and_can_be_rated() -> None:
    held, header = key(tenant="acme")
    made, client = serve(held)
    body = {
        "model": "gpt-9", "messages": [{"role": "user", "content": "hi"}], "completion": "hello", "user": "u1",
        "metadata": {"segment": "de", "purposes": "none"}, "finish_reason": "content_filter", "latency_seconds": 1.5,
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }  # fmt: skip
    response = await client.post("/v1/outputs", json=body, headers=header | {"x-request-id": "r1"})
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    answer = response.json()
    [event] = cast(MemoryLog, made.feedback).events
    output = cast(Output, event.data)
    assert (event.id, output.response_id) == (answer["response_id"],) * 2
    assert (output.version, output.base_model) == ("external/gpt-9", "gpt-9")
    assert output.prompt_id == prompt_id([ChatMessage(role="user", content="hi")])
    assert (output.completion, output.segment, output.finish_reason) == ("hello", "de", "length")
    assert (output.input_tokens, output.output_tokens, output.max_completion_tokens) == (3, 2, 2)
    assert (output.purposes, output.tenant, output.credential) == ((), "acme", held.id)
    assert (output.user_id, output.request_id, output.latency_seconds) == ("u1", "r1", 1.5)
    assert (await rate(client, {"kind": "thumbs_up", "token": answer[TOKEN]})).status_code == 201


async def test_an_answer_from_elsewhere_keeps_the_id_that_it_was_given() -> None:
    _, client = serve()
    body = {"response_id": OTHER, "model": "gpt-9", "messages": ASK["messages"], "completion": "hello"}
    assert (await client.post("/v1/outputs", json=body)).json()["response_id"] == OTHER
    assert (await client.post("/v1/outputs", json=body | {"response_id": "7"})).status_code == 400


async def test_an_answer_from_elsewhere_is_refused_while_the_log_is_down() -> None:
    made, client = serve()
    cast(MemoryLog, made.feedback).down = True
    body = {"model": "gpt-9", "messages": ASK["messages"], "completion": "hello"}
    assert error_of(await client.post("/v1/outputs", json=body)) == (503, "log_unavailable")


# --- consent and personal data


async def test_who_says_nothing_of_purposes_has_agreed_to_what_the_operator_set() -> None:
    made = gateway(Parrot(), keeper=BaseOnly(), default_purposes=(Purpose.LABELING,))
    transport = httpx.ASGITransport(create_app(made))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await answered(client)
        await answered(client, metadata={"purposes": "none"})
        await rate(client, THUMB)
        await rate(client, THUMB | {"purposes": ["training"]})
    assert [output.purposes for output in outputs(made)] == [(Purpose.LABELING,), ()]
    assert [feedback.purposes for feedback in said(made)] == [(Purpose.LABELING,), (Purpose.TRAINING,)]


async def test_the_client_gets_its_answer_whole_and_the_log_gets_it_without_personal_data() -> None:
    made, client = serve(says="Write to bob@example.org, not to ann@example.org.")
    asked = [{"role": "user", "content": "I am ann@example.org. Whom do I write to?"}]
    answer = await answered(client, messages=asked, user="ann@example.org", metadata={"segment": "cy@example.org"})
    assert answer["choices"][0]["message"]["content"] == "Write to bob@example.org, not to ann@example.org."
    [output] = outputs(made)
    assert [turn.content for turn in output.prompt] == ["I am [EMAIL_1]. Whom do I write to?"]
    assert output.completion == "Write to [EMAIL_2], not to [EMAIL_1]."
    assert output.prompt_id == prompt_id(output.prompt)
    assert "@" not in output.model_dump_json()
    assert 'thumbwheel_gateway_redacted_total{kind="email"} 4.0' in (await client.get("/metrics")).text


async def test_an_address_as_user_id_is_one_and_the_same_pseudonym_everywhere() -> None:
    made, client = serve()
    answer = await answered(client, user="Ann@example.org")
    await rate(client, {"kind": "thumbs_up", "token": answer[TOKEN]})
    await rate(client, THUMB | {"user": "ann@example.org", "id": "click by ann@example.org"})
    same = pseudonym("ann@example.org", b"k" * 32)
    assert [output.user_id for output in outputs(made)] == [same]
    assert [feedback.user_id for feedback in said(made)] == [same, same]
    assert "@" not in cast(MemoryLog, made.feedback).events[1].id


async def test_the_text_of_feedback_is_a_conversation_of_its_own() -> None:
    made, client = serve()
    for name in ("ann", "bob"):
        await rate(client, THUMB | {"kind": "comment", "text": f"ask {name}@example.org"})
    assert [feedback.text for feedback in said(made)] == ["ask [EMAIL_1]", "ask [EMAIL_1]"]


async def test_long_texts_are_redacted_too() -> None:
    made, client = serve(says="mail ann@example.org " + "x" * INLINE_CHARACTERS)
    await answered(client)
    await client.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert [output.completion[:15] for output in outputs(made)] == ["mail [EMAIL_1] "] * 2


async def test_feedback_that_got_too_long_by_its_placeholders_is_refused_and_such_an_answer_is_not_recorded() -> None:
    # Each address of 6 characters becomes a placeholder of 9: 196,000 characters become 280,000.
    many = "a@b.co " * 28_000
    made = gateway(Parrot(many), keeper=BaseOnly(), max_body_bytes=1_000_000)
    transport = httpx.ASGITransport(create_app(made))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert error_of(await rate(client, THUMB | {"kind": "comment", "text": many})) == (400, "invalid_value")
        assert (await answered(client))["thumbwheel::recorded"] is False
