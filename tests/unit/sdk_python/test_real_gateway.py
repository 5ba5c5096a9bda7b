"""The SDK against the gateway itself: real routes, keys, tokens and redaction; engine and log in memory."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import openai
import pytest
import uvicorn

from schemas import feedback, outputs
from serving.adapters.keys import new_api_key
from serving.api.gateway import Gateway
from serving.api.routes import create_app
from serving.core.access import Scope
from tests.unit.sdk_python.small_gateway import SmallGateway
from tests.unit.serving.fakes import BaseOnly, MemoryLog, Parrot, gatekeeper
from tests.unit.serving.fakes import gateway as make_gateway
from thumbwheel_client import Backoff, Feedback, Kind, Rejected, Thumbwheel

PATIENCE = 30.0
ASK: Any = {"model": "thumbwheel", "messages": [{"role": "user", "content": "hi"}], "user": "u1"}
FAST = Backoff(first=0.001, longest=0.005)


@dataclass
class Running:
    gateway: Gateway
    url: str
    key: str
    read_only_key: str
    events: list[Any] = field(default_factory=list)

    def said(self) -> list[feedback.Feedback]:
        return [e.data for e in self.log("feedback").events if isinstance(e.data, feedback.Feedback)]

    def recorded(self) -> list[outputs.Output]:
        logs = (self.log("outputs"), self.log("feedback"))
        return [e.data for log in logs for e in log.events if isinstance(e.data, outputs.Output)]

    def log(self, name: str) -> MemoryLog:
        return cast(MemoryLog, getattr(self.gateway, name))


@pytest.fixture
def real() -> Iterator[Running]:
    def key(*scopes: Scope) -> Any:
        return new_api_key(name="app", scopes=scopes, tenant="acme", rate=None, expires=None, now=datetime.now(UTC))

    (held, text), (other, other_text) = key(*Scope), key(Scope.MODELS)
    gateway = make_gateway(Parrot(), keeper=BaseOnly(), door=gatekeeper(held, other), max_body_bytes=1_000_000)
    server = uvicorn.Server(uvicorn.Config(create_app(gateway), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not (server.started and server.servers):
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(gateway, f"http://127.0.0.1:{port}", text, other_text)
    server.should_exit = True
    thread.join()


def test_every_verb_is_taken(real: Running) -> None:
    with Thumbwheel(real.url, api_key=real.key) as tw, openai.OpenAI(base_url=f"{real.url}/v1", api_key=real.key) as ai:
        answer = tw.wrap(ai).chat.completions.create(**ASK)
        with tw.batch() as batch:
            batch.thumbs_up(answer, user="u1", purposes=["training"])
            batch.withdraw(answer, user="u1")
            batch.change(answer, "thumbs_down", user="u1")
            batch.comment(answer, "from ann@example.org")
            batch.correct(answer, "better")
            batch.flag(answer)
            batch.copied(answer)
            batch.edited(answer, "mine")
            batch.regenerated(answer)
        assert tw.flush(PATIENCE)
        assert (tw.stats.recorded, tw.stats.rejected) == (9, 0)
    said = real.said()
    assert {one.kind for one in said} == set(feedback.FeedbackKind)
    assert {(one.response_id, one.tenant) for one in said} == {(answer.id, "acme")}
    assert "from [EMAIL_1]" in [one.text for one in said]
    assert [output.response_id for output in real.recorded()] == [answer.id]


def test_an_answer_of_another_provider_is_taken_with_all_that_is_known(real: Running, gateway: SmallGateway) -> None:
    with Thumbwheel(real.url, api_key=real.key) as tw:
        with openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none") as ai:
            stream = tw.wrap(ai).chat.completions.create(
                **(ASK | {"metadata": {"segment": "de", "purposes": "none"}, "temperature": 0.5, "max_tokens": 9}),
                stream=True,
                stream_options={"include_usage": True},
            )
            assert len(list(stream)) == 6
        assert tw.thumbs_up(stream).wait(PATIENCE)
        assert tw.flush(PATIENCE)
        assert tw.stats.rejected == 0
    [output] = real.recorded()
    assert output.response_id == real.said()[0].response_id
    assert (output.version, output.base_model, output.completion) == ("external/small-1", "small-1", "Hello there")
    assert (output.segment, output.purposes, output.user_id) == ("de", (), "u1")
    assert (output.temperature, output.max_completion_tokens, output.output_tokens) == (0.5, 9, 3)


def test_without_a_key_an_answers_token_is_enough(real: Running) -> None:
    with Thumbwheel(real.url) as tw, openai.OpenAI(base_url=f"{real.url}/v1", api_key=real.key) as ai:
        answer = tw.wrap(ai).chat.completions.create(**ASK)
        stream = ai.chat.completions.create(**ASK, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream) == "fine"
        with tw.batch() as batch:
            batch.thumbs_up(answer)
            batch.thumbs_down(stream)
        assert [receipt.wait(PATIENCE) for receipt in batch.receipts] == [True, True]
    assert [one.credential for one in real.said()] == ["token:k1"] * 2


def test_refusals_are_told_by_their_code(real: Running) -> None:
    answer = "chatcmpl-" + "0" * 32
    for key, code in (("twk_none_none", "401 invalid_api_key"), (real.read_only_key, "403 insufficient_scope")):
        with Thumbwheel(real.url, api_key=key, strict=True) as tw, pytest.raises(Rejected, match=code):
            tw.thumbs_up(answer)


def test_what_the_log_can_not_take_now_is_taken_later(real: Running) -> None:
    real.log("feedback").down = True
    with Thumbwheel(real.url, api_key=real.key, backoff=Backoff(first=0.001, longest=0.001)) as tw:
        events = [Feedback(response_id="chatcmpl-" + "0" * 32, kind=Kind.THUMBS_UP) for _ in range(3)]
        receipts = tw.send(*events)
        while not tw.stats.retries:
            receipts[0].wait(0.01)
        real.log("feedback").down = False
        assert tw.flush(PATIENCE)
        assert [receipt.recorded for receipt in receipts] == [True] * 3
    assert len(real.said()) == 3
