"""A server on a real socket that speaks as much of vLLM's API as the trainer uses, with a model of ours behind it.

It takes an adapter by its folder, draws with the trainer's own engine, and can be told to do the wrong things.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from trainer.adapters.policies import ADAPTER, Policy
from trainer.core.rollout import SamplingConfig, sample

Reply = tuple[int, Any]


@dataclass
class FakeVllm:
    """Serves `policy`, whose adapter it sets to the one that a request names."""

    policy: Policy
    adapters: dict[str, Path] = field(default_factory=dict[str, Path])
    loaded: list[str] = field(default_factory=list[str])
    """Every name that was ever loaded."""
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tokens: list[str | None] = field(default_factory=list[str | None])
    ignores_adapters: bool = False
    temperature_of_log_probs: float | None = None
    """None: that of the request, as with `--logprobs-mode processed_logprobs`."""
    before: Callable[[str, int], Reply | None] = lambda path, number: None
    """What to answer in its place: by path and the number of requests that this path had before."""
    after: Callable[[Any], Any] = lambda told: told
    """What becomes of its completions."""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, told: dict[str, Any]) -> Reply:
        with self.lock:
            number = self.counts.get(path, 0)
            self.counts[path] = number + 1
            instead = self.before(path, number)
            if instead is not None and instead[0] != 0:
                return instead
            found = self._answer(path, told)
            return (0, None) if instead is not None else found  # done, and nobody hears of it

    def _answer(self, path: str, told: dict[str, Any]) -> Reply:
        if path == "/v1/load_lora_adapter":
            name = told["lora_name"]
            if name in self.adapters:
                return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
            self.adapters[name] = Path(told["lora_path"])
            self.loaded.append(name)
            return 200, f"Success: LoRA adapter '{name}' added successfully."
        if path == "/v1/unload_lora_adapter":
            del self.adapters[told["lora_name"]]
            return 200, "Success"
        assert path == "/v1/completions", path
        if told["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model `{told['model']}` does not exist."}}
        self.asked.append(told)
        return 200, self.after(self._completions(told))

    def _completions(self, told: dict[str, Any]) -> dict[str, Any]:
        folder = self.adapters[told["model"]]
        assert self.policy.lm.peft is not None
        set_peft_model_state_dict(
            self.policy.lm.peft, load_file(folder / "adapter_model.safetensors"), adapter_name=ADAPTER
        )
        config = SamplingConfig(told["max_tokens"], told["temperature"])
        generator = torch.Generator().manual_seed(told["seed"])
        if self.ignores_adapters:
            with self.policy.reference():
                rollouts = sample(self.policy, [told["prompt"]], told["n"], config, generator)
        else:
            rollouts = sample(self.policy, [told["prompt"]], told["n"], config, generator)
        scale = 1.0 if self.temperature_of_log_probs is None else told["temperature"] / self.temperature_of_log_probs
        choices = [
            {
                "index": n,
                "text": "",
                "finish_reason": "stop" if answer[-1] == self.policy.lm.eos_id else "length",
                "token_ids": list(answer),
                "logprobs": {"token_logprobs": [x * scale for x in rollouts.log_probs_NT[n, : len(answer)].tolist()]},
            }
            for n, answer in enumerate(rollouts.answers())
        ]
        return {"object": "text_completion", "model": told["model"], "choices": choices[::-1]}


@contextmanager
def running(server: FakeVllm) -> Iterator[str]:
    """Its address, on a free port."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.tokens.append(self.headers["Authorization"])
            status, body = server.answer(self.path, told)
            if status == -1:
                ended.wait(60)  # hangs
                return
            if status == 0:
                return  # closes without a word
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        ended.set()
        http.shutdown()
        http.server_close()
        thread.join()
