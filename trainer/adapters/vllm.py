"""Answers drawn by a vLLM server that has the current adapter loaded, over its OpenAI-compatible API.

    each iteration:  adapter ─► <folder>/<new name> ─► POST /v1/load_lora_adapter ─► the last one is unloaded, removed
                     a prompt, as token ids ─► POST /v1/completions, all at once ─► token ids and their log-probs

A name is never used twice, so an answer can't come from an adapter of an earlier iteration; a server that forgets the
adapter says 404. Sampling is that of the training: one temperature, and top-k, top-p, min-p and penalties switched off
by name, because a server takes its defaults from the model's generation_config.json. Only the model's end-of-turn token
ends an answer. Written from vLLM's source (entrypoints/openai: completion/protocol.py, models/serving.py). It needs

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank 8
        --logprobs-mode processed_logprobs        # else log-probs are those of temperature 1

All requests of an iteration have one deadline with all their tries. Of what comes back every number is checked.
"""

import contextlib
import json
import logging
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from schemas.errors import GenerationFailed, SettingsError
from trainer.adapters.exchange import Address, Exchange, Reply
from trainer.adapters.policies import Policy, save_adapter
from trainer.core import models
from trainer.core.generation import Drawn
from trainer.core.rollout import SamplingConfig
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)

IN_FLIGHT = 64
"""Requests at the same time; the server makes batches of them."""
BYTES_PER_TOKEN, BYTES_PER_PROMPT_TOKEN = 1024, 16
"""No token with its log-probs is longer as JSON; a larger reply is not read to its end."""
FIRST_WAIT_SECONDS = 0.25
TOLD = 300
"""Characters of a server's own words in an error."""


class Server:
    """Draws answers (`trainer.core.generation.Drawing`); `seconds` is for one iteration's, with all tries."""

    def __init__(self, url: str, *, token: str | None, adapters: Path, seconds: float, tries: int) -> None:
        self._address = Address.of(url, setting="THUMBWHEEL_VLLM_URL", token=token)
        self._base = self._address.path.rstrip("/").removesuffix("/v1")
        self.shown = self._address.shown
        self._adapters, self._seconds, self._tries = adapters, seconds, tries
        self._prefix, self._number = f"thumbwheel-{secrets.token_hex(6)}", 0
        self._loaded: str | None = None
        self._who = f"the vLLM server {self.shown}"

    def __call__(
        self,
        policy: models.Policy,
        prompts: Sequence[Sequence[int]],
        answers_per_prompt: int,
        config: SamplingConfig,
        seeds: Sequence[int],
        /,
    ) -> Drawn:
        """`answers_per_prompt` answers to each prompt from the policy as it is; raises `GenerationFailed`."""
        end = time.monotonic() + self._seconds
        name = self._load(cast(Policy, policy), end)
        eos_id, vocabulary = policy.lm.eos_id, policy.lm.head_weight().shape[0]
        bodies = [
            _request(name, prompt, answers_per_prompt, config, seed, eos_id)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        longest = max(map(len, prompts))
        tokens = BYTES_PER_TOKEN * config.max_new_tokens + BYTES_PER_PROMPT_TOKEN * longest
        replies = self._asked("/v1/completions", bodies, 65_536 + answers_per_prompt * tokens, end)
        answers: list[tuple[int, ...]] = []
        log_probs: list[tuple[float, ...]] = []
        for reply in replies:
            for choice in self._choices(reply, answers_per_prompt):
                ids, found = self._answer(choice, config.max_new_tokens, eos_id, vocabulary)
                answers.append(ids)
                log_probs.append(found)
        return Drawn(tuple(answers), tuple(log_probs))

    def close(self) -> None:
        """Take the last adapter off the server."""
        self._forget(self._loaded, time.monotonic() + min(self._seconds, 10.0))
        self._loaded = None

    def _load(self, policy: Policy, end: float) -> str:
        """The name of the policy's adapter, once the server has it."""
        self._number += 1
        name = f"{self._prefix}-{self._number}"
        folder = (self._adapters / name).resolve()
        save_adapter(policy, folder)
        self._asked("/v1/load_lora_adapter", [{"lora_name": name, "lora_path": str(folder)}], 65_536, end)
        before, self._loaded = self._loaded, name
        self._forget(before, end)
        return name

    def _forget(self, name: str | None, end: float) -> None:
        """What is not unloaded only takes room on the server until it needs it."""
        if name is None:
            return
        try:
            self._asked("/v1/unload_lora_adapter", [{"lora_name": name}], 65_536, end)
        except GenerationFailed as error:
            logger.warning("an adapter stays on the server", extra={"adapter": name, "error": str(error)})
        shutil.rmtree(self._adapters / name, ignore_errors=True)

    def _asked(self, path: str, bodies: Sequence[dict[str, Any]], limit: int, end: float) -> list[bytes]:
        """The reply to each body; those that got none are asked again, later and later, until `end`."""
        found: dict[int, bytes] = {}
        wait, why = FIRST_WAIT_SECONDS, "no time was left"
        for attempt in range(self._tries):
            until = time.monotonic() + (end - time.monotonic()) / (self._tries - attempt)
            pending = [n for n in range(len(bodies)) if n not in found]
            for start in range(0, len(pending), IN_FLIGHT):
                part = pending[start : start + IN_FLIGHT]
                for n, reply in zip(part, self._exchanged(path, [bodies[n] for n in part], limit, until), strict=True):
                    said = self._usable(path, reply, limit, attempt)
                    if isinstance(said, bytes):
                        found[n] = said
                    else:
                        why = said
            if len(found) == len(bodies):
                return [found[n] for n in range(len(bodies))]
            if attempt + 1 < self._tries:
                time.sleep(max(0.0, min(wait, end - time.monotonic())))
                wait *= 2
        raise GenerationFailed(
            f"{self._who} did not answer {path} in {self._tries} tries within {self._seconds:g} s (the last: {why}): "
            "see to it, or raise THUMBWHEEL_VLLM_SECONDS"
        )

    def _exchanged(
        self, path: str, bodies: Sequence[dict[str, Any]], limit: int, until: float
    ) -> list[Reply | Exception]:
        left = until - time.monotonic()
        if left <= 0:
            return [TimeoutError("no time was left")] * len(bodies)
        under_way = [
            Exchange(self._address, self._base + path, json.dumps(body).encode(), limit=limit, seconds=left)
            for body in bodies
        ]
        return [exchange.result(max(0.0, until - time.monotonic())) for exchange in under_way]

    def _usable(self, path: str, reply: Reply | Exception, limit: int, attempt: int) -> bytes | str:
        """The reply's bytes, or why another try may help; raises `GenerationFailed` where none does."""
        if isinstance(reply, Exception):
            return f"{type(reply).__name__}: {reply}"
        told = reply.body[:TOLD].decode("utf-8", "replace")
        if reply.status == 429 or reply.status >= 500:
            return f"status {reply.status}: {told}"
        if len(reply.body) > limit:
            raise GenerationFailed(f"{self._who} gave more than {limit} bytes at {path}: is it a vLLM server?")
        if reply.status == 400 and attempt and "already been loaded" in told:
            return reply.body  # by a try whose reply was lost
        if reply.status == 404 and path.endswith("_lora_adapter"):
            raise GenerationFailed(
                f"{self._who} takes no adapters at {path} (404: {told}): start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        if reply.status != 200:
            raise GenerationFailed(f"{self._who} answered {path} with status {reply.status}: {told}")
        return "the reply was cut off" if reply.cut_off else reply.body

    def _choices(self, reply: bytes, n: int) -> list[dict[str, Any]]:
        try:
            told: Any = json.loads(reply)
            choices = sorted(told["choices"], key=lambda choice: choice["index"])
            numbers = [choice["index"] for choice in choices]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise GenerationFailed(f"{self._who} gave no completions: {type(error).__name__}: {error}") from error
        if numbers != list(range(n)):
            raise GenerationFailed(f"{self._who} gave {len(numbers)} answers where {n} were asked for")
        return cast("list[dict[str, Any]]", choices)

    def _answer(
        self, choice: dict[str, Any], most: int, eos_id: int, vocabulary: int
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Token ids and log-probs of one answer; raises `GenerationFailed` where they can't be."""
        ids: Any = choice.get("token_ids")
        logprobs: Any = choice.get("logprobs")
        found: Any = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(ids, list) or not isinstance(found, list):
            raise GenerationFailed(
                f"{self._who} gave no token ids with log-probs: is its vLLM too old for return_token_ids?"
            )
        numbers, values = cast("list[Any]", ids), cast("list[Any]", found)
        if not 1 <= len(numbers) <= most or len(values) != len(numbers):
            raise GenerationFailed(
                f"{self._who} gave {len(numbers)} tokens with {len(values)} log-probs where 1 to {most} were asked for"
            )
        if any(type(number) is not int or not 0 <= number < vocabulary for number in numbers):
            raise GenerationFailed(f"{self._who} gave a token that is none of this base model's {vocabulary}")
        if any(type(value) not in (int, float) or not math.isfinite(value) or value > 1e-3 for value in values):
            raise GenerationFailed(f"{self._who} gave a log-prob that is none")
        if eos_id in numbers[:-1] or (numbers[-1] != eos_id and len(numbers) < most):
            raise GenerationFailed(
                f"{self._who} ended an answer elsewhere than at token {eos_id} or {most} tokens: see that it serves "
                "this base model, and that its context is long enough"
            )
        return tuple(numbers), tuple(float(value) for value in values)


def _request(
    name: str, prompt: Sequence[int], answers: int, config: SamplingConfig, seed: int, eos_id: int
) -> dict[str, Any]:
    return {
        "model": name,
        "prompt": list(prompt),
        "n": answers,
        "seed": seed,
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": [eos_id],
        "ignore_eos": True,  # the base may name several; the trainer knows the one that ends a turn
        "logprobs": 0,
        "return_token_ids": True,
    }


@contextlib.contextmanager
def serving(settings: TrainerSettings) -> Iterator[Server | None]:
    """The server that the settings name, for one training; None where answers are drawn here."""
    if settings.generation != "vllm" or settings.vllm_url is None:
        yield None
        return
    adapters = settings.vllm_adapters or settings.data / "vllm-adapters"
    if settings.vllm_adapters is None:
        shutil.rmtree(adapters, ignore_errors=True)  # what a process that was killed has left
    server = Server(
        settings.vllm_url,
        token=_token(settings),
        adapters=adapters,
        seconds=settings.vllm_seconds,
        tries=1 + settings.vllm_retries,
    )
    try:
        yield server
    finally:
        server.close()


def address(settings: TrainerSettings) -> str | None:
    """How a record tells of the server; None where answers are drawn here."""
    if settings.generation != "vllm" or settings.vllm_url is None:
        return None
    return Address.of(settings.vllm_url, setting="THUMBWHEEL_VLLM_URL", token=None).shown


@contextlib.contextmanager
def same_server(settings: TrainerSettings, recorded: str | None) -> Iterator[Server | None]:
    """The server that a version was trained with; its answers can't be had again, so the weights will be others."""
    if recorded is None:
        yield None
        return
    if address(settings) != recorded:
        raise SettingsError(
            f"the answers of this version were drawn by {recorded}: set THUMBWHEEL_GENERATION=vllm and "
            "THUMBWHEEL_VLLM_URL as they were"
        )
    with serving(settings) as server:
        yield server


def _token(settings: TrainerSettings) -> str | None:
    if settings.vllm_token_file is not None:
        try:
            return settings.vllm_token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{settings.vllm_token_file} can't be read: {error}") from error
    return None if settings.vllm_token is None else settings.vllm_token.get_secret_value()


def elsewhere(*_: object) -> Drawn:
    """The server of a process that helps another one: it is that one who asks."""
    raise AssertionError("process 0 alone asks the server")
