"""A reward of one's own: code from files and modules, and an endpoint on a real socket that does the wrong things."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from schemas.errors import RewardFailed, SettingsError
from trainer.adapters.reward_endpoint import Endpoint
from trainer.adapters.rewards import load_reward, same_reward
from trainer.settings import TrainerSettings

FEATURES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
PROMPTS, TEXTS = ["tea?", "milk?"], ["yes", "no no"]

Handle = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def serving(handle: Handle) -> Iterator[str]:
    """A server on a free port whose POSTs are handled by `handle`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            handle(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/score"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def asked(url: str, *, seconds: float = 20.0, tries: int = 1, token: str | None = None) -> list[float]:
    return Endpoint(url, token=token, seconds=seconds, tries=tries)(FEATURES, PROMPTS, TEXTS)


def test_an_endpoint_gets_prompts_and_completions_and_gives_a_reward_for_each() -> None:
    seen: list[tuple[str | None, dict[str, list[str]]]] = []

    def handle(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        told = json.loads(body)
        seen.append((handler.headers["Authorization"], told))
        reply(handler, json.dumps({"rewards": [len(t) for t in told["completions"]]}).encode())

    with serving(handle) as url:
        assert asked(url, token="s3cret") == [3.0, 5.0]
        more = ["a" * n for n in range(70)]
        many = Endpoint(url, token=None, seconds=20, tries=1)(torch.zeros(70, 2), ["p"] * 70, more)
    assert seen[0] == ("Bearer s3cret", {"prompts": PROMPTS, "completions": TEXTS})
    assert many == [float(n) for n in range(70)]
    assert [len(told["prompts"]) for _, told in seen[1:]] == [64, 6] and seen[1][0] is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "gave no JSON"),
        (b"[1, 2]", "must give"),
        (b'{"rewards": [1, "2"]}', "a list of numbers"),
        (b'{"rewards": [1, true]}', "a list of numbers"),
        (b'{"rewards": [1]}', "gave 1 rewards for 2 answers"),
        (b'{"rewards": [1, NaN]}', "NaN or infinite"),
        (b'{"rewards": [1, 1e999]}', "NaN or infinite"),
        (b'{"rewards": [1, -1e31]}', "beyond 1e\\+30"),
        (b'{"rewards": [1, ' + b"9" * 400 + b"]}", "must give a list of numbers"),
        (b" " * 5000, "more than 3072 bytes for 2 answers"),
    ],
)
def test_a_malformed_reply_is_refused_with_what_is_wrong(body: bytes, why: str) -> None:
    with serving(lambda handler, _: reply(handler, body)) as url, pytest.raises(RewardFailed, match=why):
        asked(url)


def test_a_failing_server_is_asked_again_and_then_given_up() -> None:
    calls: list[int] = []

    def third_time(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        calls.append(1)
        reply(handler, b'{"rewards": [1, 2]}', 500 if len(calls) < 3 else 200)

    with serving(third_time) as url:
        assert asked(url, tries=3) == [1.0, 2.0] and len(calls) == 3
    why = r"no rewards in 2 tries within 20 s \(the last: status 503\)"
    with serving(lambda handler, _: reply(handler, b"", 503)) as url, pytest.raises(RewardFailed, match=why):
        asked(url, tries=2)


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    calls: list[int] = []

    def refuse(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        calls.append(1)
        reply(handler, b"", status)

    with serving(refuse) as url, pytest.raises(RewardFailed, match=f"status {status}"):
        asked(url, tries=3)
    assert len(calls) == 1


def test_an_endpoint_that_hangs_is_given_up_in_time() -> None:
    released = threading.Event()

    def hang(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        released.wait()

    with serving(hang) as url:
        try:
            with pytest.raises(RewardFailed, match=r"in 2 tries within 0\.6 s .*TimeoutError"):
                asked(url, seconds=0.6, tries=2)
        finally:
            released.set()


def test_an_endpoint_that_says_a_byte_now_and_then_is_given_up_in_time() -> None:
    released = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not released.wait(0.05):
            handler.wfile.write(b" ")

    with serving(drip) as url:
        try:
            with pytest.raises(RewardFailed, match="TimeoutError"):
                asked(url, seconds=0.5)
        finally:
            released.set()


def test_a_reply_that_is_cut_off_and_a_port_where_nobody_listens_are_failures() -> None:
    def cut(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"rewards": [1, 2]}')

    with serving(cut) as url, pytest.raises(RewardFailed, match="the reply was cut off"):
        asked(url)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(RewardFailed, match="ConnectionRefusedError"):
            asked(f"http://127.0.0.1:{closed.getsockname()[1]}/")


@pytest.mark.parametrize(
    ("url", "token", "why"),
    [
        ("ftp://there/", None, "begins with http"),
        ("there", None, "begins with http"),
        ("https://me:secret@there/", None, "no user and password"),
        ("https://there/", "two\nlines", "one line of printable ASCII"),
    ],
)
def test_an_address_or_a_token_that_can_not_work_is_refused_without_repeating_it(
    url: str, token: str | None, why: str
) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        Endpoint(url, token=token, seconds=1, tries=1)
    assert "secret" not in str(refused.value) and "lines" not in str(refused.value)


def test_the_record_shows_an_address_without_its_query_and_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    settings = TrainerSettings(
        reward_endpoint="https://there:8443/score?key=hidden", reward_endpoint_token_file=tmp_path / "token"
    )
    found = load_reward(settings)
    assert found is not None and found.info.name == "https://there:8443/score" and found.info.sha256 is None
    assert "s3cret" not in repr(settings) + found.info.model_dump_json() + repr(found)


FUNCTION = """
def brevity(prompts, completions):
    return [-len(c) / len(p) for p, c in zip(prompts, completions)]

def broken(prompts, completions):
    raise KeyError("none")

def nothing(prompts, completions):
    return [float("nan")] * len(completions)

def text(prompts, completions):
    return ["good"] * len(completions)

number = 3
"""


def test_a_function_in_a_file_rates_answers_and_is_known_by_its_source(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FUNCTION)
    settings = TrainerSettings(reward_function=f"{file}:brevity", reward_extra_weight=0.5)
    found = load_reward(settings)
    assert found is not None and found.raw(FEATURES, PROMPTS, TEXTS) == [-0.75, -1.0]
    assert (found.info.kind, found.info.weight) == ("function", 0.5)
    assert same_reward(settings, found.info) is not None
    file.write_text(FUNCTION + "# changed\n")
    with pytest.raises(SettingsError, match=r"was trained with the function .* and the settings name the function"):
        same_reward(settings, found.info)
    with pytest.raises(SettingsError, match="and the settings name no reward of one's own"):
        same_reward(TrainerSettings(), found.info)


@pytest.mark.parametrize(
    ("name", "why"), [("broken", "KeyError"), ("nothing", "NaN or infinite"), ("text", "must give a list of numbers")]
)
def test_a_function_that_fails_fails_the_reward(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(FUNCTION)
    found = load_reward(TrainerSettings(reward_function=f"{tmp_path / 'mine.py'}:{name}"))
    assert found is not None
    with pytest.raises(RewardFailed, match=why):
        found.raw(FEATURES, PROMPTS, TEXTS)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{file}:number", "has no function number"),
        ("{file}:missing", "has no function missing"),
        ("{file}", "names no reward"),
        ("{folder}/gone.py:f", "can't be read"),
        ("no_such_module_anywhere:f", "there is no module"),
        ("{folder}/wrong.py:f", "can't be imported: SyntaxError"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path, spec: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(FUNCTION)
    (tmp_path / "wrong.py").write_text("def")
    with pytest.raises(SettingsError, match=why):
        load_reward(TrainerSettings(reward_function=spec.format(file=tmp_path / "mine.py", folder=tmp_path)))


def test_a_module_of_the_path_is_imported_once_and_a_change_asks_for_a_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_reward_module.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    settings = TrainerSettings(reward_function="their_reward_module:brevity")
    first, second = load_reward(settings), load_reward(settings)
    assert first is not None and second is not None and first.info == second.info
    (tmp_path / "their_reward_module.py").write_text(FUNCTION + "# changed\n")
    with pytest.raises(SettingsError, match="start the trainer anew"):
        load_reward(settings)


MODULE = """
from torch import nn

def linear(n_features):
    return nn.Linear(n_features, 1, bias=False)

def wrong(n_features):
    return n_features
"""


def test_a_module_reads_the_features_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    save_file({"weight": torch.tensor([[2.0, -1.0]])}, tmp_path / "w.safetensors")
    settings = TrainerSettings(
        reward_module=f"{tmp_path / 'mine.py'}:linear", reward_module_weights=tmp_path / "w.safetensors"
    )
    found = load_reward(settings)
    assert found is not None and found.raw(FEATURES, PROMPTS, TEXTS) == [0.0, 2.0]
    save_file({"weight": torch.tensor([[2.0, -1.5]])}, tmp_path / "w.safetensors")
    again = load_reward(settings)
    assert again is not None and again.info.sha256 != found.info.sha256


def test_a_module_that_does_not_fit_fails_the_reward(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    save_file({"weight": torch.zeros(1, 3)}, tmp_path / "w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    for name, weights, why in (
        ("wrong", None, "not a torch.nn.Module"),
        ("linear", "w.safetensors", "size mismatch"),
        ("linear", "bad.safetensors", "can't be read"),
    ):
        settings = TrainerSettings(
            reward_module=f"{tmp_path / 'mine.py'}:{name}",
            reward_module_weights=None if weights is None else tmp_path / weights,
        )
        found = load_reward(settings)
        assert found is not None
        with pytest.raises(RewardFailed, match=why):
            found.raw(FEATURES, PROMPTS, TEXTS)


def test_one_reward_of_ones_own_at_a_time() -> None:
    assert load_reward(TrainerSettings()) is None
    with pytest.raises(ValueError, match="set one of THUMBWHEEL_REWARD_FUNCTION"):
        TrainerSettings(reward_function="a:b", reward_endpoint="http://there/")
