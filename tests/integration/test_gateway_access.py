"""Keys, tokens and personal data with the real gateway: over a socket, from its files, onto the log."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from typer.testing import CliRunner

from infra.cli import access
from infra.local.log import read_all as read_topic
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.feedback import Feedback
from schemas.outputs import Output
from schemas.topics import AUDIT, FEEDBACK, OUTPUTS
from tests.integration.test_gateway import ASK, ROOT, Program, eventually, read_all, start
from tests.unit.serving.conftest import byte_tokenizer, random_llama

TOKEN = "thumbwheel::feedback_token"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random_llama().save_pretrained(str(folder))
    byte_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def program(model: Path, broker: str, data: Path) -> Iterator[Program]:
    running = start(model, data, broker, FEEDBACK_ORIGINS='["https://shop.example"]', REDACTION="email,card")
    yield running
    assert running.stop() == 0


def command(data: Path, broker: str, *words: str) -> str:
    """What a subcommand of `thumbwheel keys` prints."""
    options = ["--data", str(data), *([] if words[0] == "list" else ["--bootstrap-servers", broker])]
    done = CliRunner().invoke(access.app, [*words, *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def status(program: Program, path: str, body: Any, headers: dict[str, str] | None = None) -> int:
    return httpx.post(f"{program.url}{path}", json=body, headers=headers, timeout=60).status_code


def about(broker: str, response_id: str) -> list[Feedback]:
    events = read_all(broker, FEEDBACK, lambda e: cast(Feedback, e.data).response_id == response_id, 1)
    return [cast(Feedback, event.data) for event in events]


def test_keys_and_tokens_from_the_first_to_the_last(program: Program, broker: str, data: Path) -> None:
    # Without any key the gateway is open on its own machine, and its answers carry tokens all the same.
    open_answer = httpx.post(f"{program.url}/v1/chat/completions", json=ASK, timeout=60).json()
    assert status(program, "/v1/feedback", {"kind": "thumbs_up", "token": open_answer[TOKEN]}) == 201

    # With the first key it is closed, without a restart.
    key = command(data, broker, "create", "--name", "shop", "--scopes", "chat,feedback", "--tenant", "shop")
    eventually(lambda: status(program, "/v1/chat/completions", ASK) == 401)
    assert status(program, "/v1/models", None, bearer(key)) == 405
    assert httpx.get(f"{program.url}/v1/models", headers=bearer(key)).status_code == 403
    answer = httpx.post(
        f"{program.url}/v1/chat/completions", json=ASK | {"user": "ann@example.org"}, headers=bearer(key), timeout=60
    ).json()

    # A page gives its feedback by the token alone, as a beacon does.
    said = json.dumps({"kind": "comment", "text": "mail me: ann@example.org", "token": answer[TOKEN]})
    beacon = httpx.post(
        f"{program.url}/v1/feedback", content=said,
        headers={"content-type": "text/plain;charset=UTF-8", "origin": "https://shop.example"},
    )  # fmt: skip
    assert beacon.status_code == 201
    assert beacon.headers["access-control-allow-origin"] == "https://shop.example"
    [feedback] = about(broker, answer["id"])
    kid = (feedback.credential or "").removeprefix("token:")
    assert kid in (data / "secrets" / "token_keys.json").read_text()
    assert (feedback.tenant, feedback.text) == ("shop", "mail me: [EMAIL_1]")
    assert str(feedback.user_id).startswith("user-")

    # After a rotation the old token is good until its key is dropped.
    command(data, broker, "rotate")
    again = {"kind": "thumbs_up", "token": answer[TOKEN]}
    assert status(program, "/v1/feedback", again) == 201
    command(data, broker, "rotate", "--retire-older-than", "0")
    eventually(lambda: status(program, "/v1/feedback", again) == 401)
    fresh = httpx.post(f"{program.url}/v1/chat/completions", json=ASK, headers=bearer(key), timeout=60).json()
    assert status(program, "/v1/feedback", {"kind": "thumbs_up", "token": fresh[TOKEN]}) == 201

    # A revoked key is useless, and the gateway stays closed.
    [row] = [json.loads(line) for line in command(data, broker, "list", "--json").splitlines()]
    command(data, broker, "revoke", row["id"])
    eventually(lambda: status(program, "/v1/chat/completions", ASK, bearer(key)) == 401)
    assert status(program, "/v1/chat/completions", ASK) == 401

    # And all of it can be asked about.
    kafka = KafkaConnection(bootstrap_servers=broker)
    mine = (row["id"], "token_keys")
    acts = [e.data for e in read_topic(kafka, AUDIT, Audit) if e.source == access.SOURCE and e.data.target in mine]
    assert [act.action for act in acts] == ["key_creation", "key_rotation", "key_rotation", "key_revocation"]
    assert key.split("_")[2] not in "".join(act.model_dump_json() for act in acts)


def test_two_gateways_that_start_at_once_agree_on_the_keys(model: Path, broker: str, tmp_path: Path) -> None:
    environment = _environment(model, broker, tmp_path, PORT="0")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "serving", "gateway"], env=environment, cwd=ROOT, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    try:
        urls = [_url(process) for process in processes]
        answer = httpx.post(f"{urls[0]}/v1/chat/completions", json=ASK, timeout=60).json()
        thumb = {"kind": "thumbs_up", "token": answer[TOKEN]}
        assert httpx.post(f"{urls[1]}/v1/feedback", json=thumb, timeout=60).status_code == 201
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            with process:
                assert process.stderr is not None
                process.stderr.read()
    assert [process.returncode for process in processes] == [0, 0]


def test_a_gateway_that_strangers_can_reach_does_not_start_without_keys(
    model: Path, broker: str, tmp_path: Path
) -> None:
    environment = _environment(model, broker, tmp_path, HOST="0.0.0.0", PORT="0")
    done = subprocess.run(
        [sys.executable, "-m", "serving", "gateway"], env=environment, cwd=ROOT, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    [line] = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert "thumbwheel keys create" in json.loads(line)["message"]


@pytest.fixture(scope="module")
def reachable(model: Path, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, str]]:
    """A gateway that listens for strangers, and its one key."""
    data = tmp_path_factory.mktemp("reachable")
    key = command(data, broker, "create", "--name", "app", "--scopes", "models,outputs,feedback")
    running = start(model, data, broker, HOST="0.0.0.0", ADDRESS_RATE=3)
    yield running, key
    assert running.stop() == 0


def test_a_gateway_with_keys_listens_for_strangers_and_lets_only_those_in(
    reachable: tuple[Program, str], broker: str
) -> None:
    running, key = reachable
    assert httpx.get(f"{running.url}/metrics").status_code == 401
    assert httpx.get(f"{running.url}/metrics", headers=bearer(key)).status_code == 200
    said = {
        "model": "gpt-9", "messages": [{"role": "user", "content": "card 4111 1111 1111 1111?"}],
        "completion": "no", "metadata": {"purposes": "none"},
    }  # fmt: skip
    recorded = httpx.post(f"{running.url}/v1/outputs", json=said, headers=bearer(key), timeout=60)
    assert recorded.status_code == 201
    response_id = recorded.json()["response_id"]
    [event] = read_all(broker, OUTPUTS, lambda e: e.id == response_id, 1)
    output = cast(Output, event.data)
    assert (output.version, output.prompt[0].content, output.purposes) == ("external/gpt-9", "card [CARD_1]?", ())
    batch = {"items": [{"kind": "thumbs_up", "token": recorded.json()[TOKEN]}] * 2}
    # Two tokens at once, then one alone, and the address has had its three.
    assert status(running, "/v1/feedback/batch", batch) == 200
    assert [status(running, "/v1/feedback", batch["items"][0]) for _ in range(2)] == [201, 429]


def test_a_broken_file_of_keys_is_said_and_the_last_good_one_counts(reachable: tuple[Program, str]) -> None:
    running, key = reachable
    thumb = {"kind": "thumbs_up", "response_id": "chatcmpl-" + uuid.uuid4().hex}
    file = running.registry.parent / "secrets" / "api_keys.json"
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])

    def problem() -> str:
        # A request makes the gateway look at the file; the broken one changes nothing for it.
        assert status(running, "/v1/feedback", thumb, bearer(key)) == 201
        return str(httpx.get(f"{running.url}/readyz", timeout=60).json()["checks"]["api_keys"]["detail"])

    try:
        assert "damaged" in str(eventually(problem))
    finally:
        file.write_bytes(good)
    eventually(lambda: not problem())


def test_headers_without_an_end_are_refused_before_they_are_read(program: Program) -> None:
    host, port = program.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /v1/feedback HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 100_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def _environment(model: Path, broker: str, data: Path, **more: str) -> dict[str, str]:
    variables = {
        "KAFKA__BOOTSTRAP_SERVERS": broker, "DATA": str(data), "BASE_MODEL": str(model), "BASE_MODEL_NAME": "tiny",
        "DTYPE": "float32", "MAX_CONTEXT_TOKENS": "400",
    } | more  # fmt: skip
    return dict(os.environ) | {f"THUMBWHEEL_{name}": value for name, value in variables.items()}


def _url(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        record = json.loads(line)
        if record["message"] == "listening":
            return str(record["url"])
    raise AssertionError("the gateway ended before it listened")
