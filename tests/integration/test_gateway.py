"""The gateway as a process of its own, a broker over a socket, and OpenAI's own client."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from infra.local.broker import EmbeddedBroker
from infra.local.ports import free_port
from infra.local.topics import create_topics
from schemas.connection import KafkaConnection
from schemas.envelope import Event, decode, new_event
from schemas.ids import new_response_id
from schemas.messages import Payload
from schemas.topics import FEEDBACK, MODEL_VERSIONS, OUTPUTS, Topic
from schemas.versions import ModelVersion, VersionState
from serving.adapters.adapter_bank import WEIGHTS_FILE
from serving.adapters.log import EventLog
from tests.unit.serving.conftest import byte_tokenizer, random_llama, write_adapter

ROOT = Path(__file__).parents[2]
ASK: dict[str, Any] = {"model": "thumbwheel", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12}
T = TypeVar("T")


@dataclass
class Program:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    url: str
    bootstrap: str
    registry: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random_llama().save_pretrained(str(folder))
    byte_tokenizer().save_pretrained(str(folder))
    return folder


def start(model: Path, data: Path, bootstrap: str, **settings: object) -> Program:
    port = free_port()
    variables = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap, "DATA": data, "BASE_MODEL": model, "BASE_MODEL_NAME": "tiny",
        "PORT": port, "DTYPE": "float32", "MAX_CONTEXT_TOKENS": 400, "MAX_BATCH": 8, "FEEDBACK_TIMEOUT_SECONDS": 2,
    } | settings  # fmt: skip
    environment = dict(os.environ) | {f"THUMBWHEEL_{name}": str(value) for name, value in variables.items()}
    process = subprocess.Popen([sys.executable, "-m", "serving", "gateway"], env=environment, cwd=ROOT)
    program = Program(process, f"http://127.0.0.1:{port}", bootstrap, data / "registry")
    try:
        eventually(lambda: healthy(program))
    except BaseException:
        process.kill()
        raise
    return program


def healthy(program: Program) -> bool:
    assert program.process.poll() is None, "the gateway has ended"
    try:
        return httpx.get(f"{program.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def eventually(condition: Callable[[], T | None], seconds: float = 60.0) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds:g} s")


@pytest.fixture
def official(program: "Program") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{program.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def program(model: Path, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = start(model, tmp_path_factory.mktemp("data"), broker)
    yield running
    assert running.stop() == 0


def read_all(
    bootstrap: str, topic: Topic, wanted: Callable[[Event[Payload]], bool], count: int
) -> list[Event[Payload]]:
    """The first `count` wanted events of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic.name, n, OFFSET_BEGINNING) for n in range(topic.partitions)])
    found: list[Event[Payload]] = []
    deadline = time.monotonic() + 30
    try:
        while len(found) < count and time.monotonic() < deadline:
            first = consumer.poll(0.2)
            for message in () if first is None else (first, *consumer.consume(499, timeout=0)):
                if message.error() is None:
                    event = decode(topic.payload, message.value(), message.headers() or [])  # type: ignore[arg-type]
                    found += [event] if wanted(event) else []
    finally:
        consumer.close()
    return found


def tell(bootstrap: str, *events: ModelVersion) -> None:
    """Publish version events as a trainer or a controller does."""
    log = EventLog(
        KafkaConnection(bootstrap_servers=bootstrap), client_id="test", buffer_events=100, message_timeout_seconds=10
    )
    for event in events:
        asyncio.run(log.publish_acknowledged(MODEL_VERSIONS, new_event(event, source="test"), 10))
    log.close(5)


def serving(program: Program) -> str:
    return str(httpx.get(f"{program.url}/readyz", timeout=60).json()["serving"])


def test_the_official_client_gets_a_plain_answer_and_a_stream(official: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    plain = official.chat.completions.create(model="thumbwheel", messages=messages, max_tokens=20, temperature=0)
    assert plain.id.startswith("chatcmpl-")
    assert plain.usage and plain.usage.completion_tokens <= 20
    stream = official.chat.completions.create(
        model="thumbwheel", messages=messages, max_tokens=20, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    with stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage
    assert "thumbwheel" in [model.id for model in official.models.list()]


def test_the_official_client_raises_its_own_errors(official: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        official.chat.completions.create(model="gpt-9", messages=messages)
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        tools: Any = [{"type": "function", "function": {"name": "f"}}]
        official.chat.completions.create(model="thumbwheel", messages=messages, tools=tools)


def test_every_answer_and_every_acknowledged_thumb_is_on_the_log(program: Program) -> None:
    user = f"user-{uuid.uuid4()}"

    def converse(n: int) -> tuple[str, str]:
        with program.client() as client:
            answer = client.post("/v1/chat/completions", json=ASK | {"user": user, "stream": n % 2 == 0})
            assert answer.status_code == 200
            text = answer.text.removeprefix("data: ").split("\n")[0]
            response_id = httpx.Response(200, text=text).json()["id"]
            thumb = {"response_id": response_id, "kind": "thumbs_up", "user": user}
            said = client.post("/v1/feedback", json=thumb)
            assert said.status_code == 201
            return response_id, said.json()["id"]

    with ThreadPoolExecutor(12) as pool:
        ids = list(pool.map(converse, range(24)))
    answers = read_all(program.bootstrap, OUTPUTS, lambda e: e.data.user_id == user, 24)  # type: ignore[attr-defined]
    thumbs = read_all(program.bootstrap, FEEDBACK, lambda e: e.data.user_id == user, 24)  # type: ignore[attr-defined]
    assert {event.id for event in answers} == {response for response, _ in ids}
    assert {event.id for event in thumbs} == {thumb for _, thumb in ids}


def test_what_a_client_says_of_the_time_is_the_time_on_the_log(program: Program) -> None:
    user = f"user-{uuid.uuid4()}"
    given = datetime.now(UTC).replace(microsecond=250_000) - timedelta(days=2)
    thumb = {"response_id": new_response_id(), "kind": "thumbs_up", "user": user}
    with program.client() as client:
        alone = client.post("/v1/feedback", json=thumb | {"occurred_at": given.isoformat()})
        later = thumb | {"occurred_at": (given + timedelta(seconds=1)).isoformat(), "kind": "withdrawal"}
        batch = client.post("/v1/feedback/batch", json={"items": [later]})
    assert (alone.status_code, batch.status_code) == (201, 200)
    said = read_all(program.bootstrap, FEEDBACK, lambda e: e.data.user_id == user, 2)  # type: ignore[attr-defined]
    assert [event.time for event in said] == [given, given + timedelta(seconds=1)]


def test_a_swap_while_requests_are_in_flight_fails_none_and_mixes_none(program: Program) -> None:
    first = write_adapter(program.registry, "swap-1", seed=1)
    second = write_adapter(program.registry, "swap-2", seed=2)
    done = threading.Event()
    answers: list[tuple[str, str]] = []

    def ask_on() -> None:
        with program.client() as client:
            while not done.is_set():
                body = client.post("/v1/chat/completions", json=ASK | {"temperature": 0, "max_tokens": 40}).json()
                answers.append((body["model"], body["choices"][0]["message"]["content"]))

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask_on) for _ in range(6)]
        try:
            for event in (first, second):
                tell(program.bootstrap, event)
                eventually(lambda e=event: serving(program) == e.version)
                count = len(answers)
                eventually(lambda c=count: len(answers) > c + 12)
        finally:
            done.set()
        for future in asking:
            future.result()
    by_version = {name: {text for version, text in answers if version == name} for name, _ in answers}
    assert {"thumbwheel:swap-1", "thumbwheel:swap-2"} <= set(by_version)
    # Greedy answers to one prompt: one text a version, unless a version's weights leaked into another's answer.
    assert all(len(texts) == 1 for texts in by_version.values())
    assert len(set.union(*by_version.values())) == len(by_version)


def test_a_damaged_adapter_is_not_served(program: Program) -> None:
    before = serving(program)
    event = write_adapter(program.registry, "damaged", seed=3)
    (program.registry / "damaged" / WEIGHTS_FILE).write_bytes(b"oops")
    tell(program.bootstrap, event)
    with program.client() as client:
        eventually(lambda: "SHA-256" in client.get("/readyz").json()["checks"]["live_version"]["detail"])
        assert client.post("/v1/chat/completions", json=ASK).headers["thumbwheel-version"] == before
    tell(program.bootstrap, event.model_copy(update={"state": VersionState.ROLLED_BACK}))
    with program.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_client_that_leaves_frees_its_place_and_what_it_saw_is_recorded(program: Program) -> None:
    user = f"user-{uuid.uuid4()}"
    asked = ASK | {"stream": True, "max_tokens": 350, "user": user, "stop": None}
    for _ in range(10):  # more than the batch holds
        with program.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()
            for _ in range(5):
                next(lines)
    assert httpx.post(f"{program.url}/v1/chat/completions", json=ASK, timeout=60).status_code == 200
    events = read_all(program.bootstrap, OUTPUTS, lambda e: e.data.user_id == user, 10)  # type: ignore[attr-defined]
    assert len(events) >= 1


def test_without_a_broker_answers_flow_feedback_is_refused_and_nothing_is_lost_until_the_end(
    model: Path, tmp_path: Path
) -> None:
    port = free_port()
    program = start(model, tmp_path, f"127.0.0.1:{port}", FEEDBACK_TIMEOUT_SECONDS=1)
    thumb = {"response_id": new_response_id(), "kind": "thumbs_up", "id": "thumb-1"}
    try:
        with program.client() as client:
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert "does not answer" in ready.json()["checks"]["broker"]["detail"]
            answer = client.post("/v1/chat/completions", json=ASK)
            assert (answer.status_code, answer.json()["thumbwheel::recorded"]) == (200, True)
            refused = client.post("/v1/feedback", json=thumb)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_unavailable")
            assert refused.headers["retry-after"]
            with EmbeddedBroker(tmp_path / "broker" / "data", port) as running:
                create_topics(KafkaConnection(bootstrap_servers=running.bootstrap_servers))
                eventually(lambda: client.get("/readyz").status_code == 200)
                assert client.post("/v1/feedback", json=thumb).status_code == 201
                response_id = answer.json()["id"]
                events = read_all(running.bootstrap_servers, OUTPUTS, lambda e: e.id == response_id, 1)
                assert [event.id for event in events] == [response_id]
                # Told to end in the middle of an answer, it finishes that first, and what it records arrives too.
                asked = ASK | {"stream": True, "max_tokens": 300}
                with client.stream("POST", "/v1/chat/completions", json=asked) as stream:
                    lines = stream.iter_lines()
                    last_id = httpx.Response(200, text=next(lines).removeprefix("data: ")).json()["id"]
                    program.process.send_signal(signal.SIGTERM)
                    assert [line for line in lines if line][-1] == "data: [DONE]"
                assert program.process.wait(20) == 0
                assert len(read_all(running.bootstrap_servers, OUTPUTS, lambda e: e.id == last_id, 1)) == 1
    finally:
        program.process.kill()
