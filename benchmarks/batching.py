"""Tokens per second of the gateway's engine: requests together, against the same requests one at a time.

Both run on the same engine, model and thread, in turn; sampling is seeded, so both generate the same amount.
The base is SmolLM2, where `make setup` has prepared it.
"""

import asyncio
import os
import time
from pathlib import Path

from benchmarks.result import Result, alternate, median_ratio
from infra.simulate.prompts import as_messages, held_out
from schemas.errors import ModelError
from schemas.ids import new_response_id
from serving.adapters.base_model import load_base_model
from serving.adapters.engine_local import EngineLimits, LocalEngine
from serving.adapters.metrics import GatewayMetrics
from serving.core.generation import Job, Sampling

TOKENS = 32
ROUNDS = 3
CONCURRENCY = (4, 16)


def run() -> Result:
    """Ratios `together_4` and `together_16`: times the rate of one at a time."""
    folder = Path(os.environ.get("THUMBWHEEL_MODELS", "models")) / "smollm2"
    if not (folder / "config.json").is_file():
        raise ModelError(f"no base model at {folder}: run make setup first")
    base = load_base_model(str(folder), dtype="bfloat16", device="cpu", max_context_tokens=2048)
    limits = EngineLimits(max_batch=16, max_queue=64, max_prefill_tokens=4096, max_adapters=2, threads=1)
    engine = LocalEngine(base, registry=folder, limits=limits, metrics=GatewayMetrics())
    engine.start()
    try:
        return _compare(engine)
    finally:
        engine.close()


def _compare(engine: LocalEngine) -> Result:
    ratios: dict[str, float] = {}
    details: dict[str, float | str] = {"model": "SmolLM2-135M, bf16, one thread"}
    for width in CONCURRENCY:
        together, alone = alternate(ROUNDS, lambda w=width: _rate(engine, w, w), lambda w=width: _rate(engine, w, 1))
        ratios[f"together_{width}"] = median_ratio(together, alone)
        details[f"tokens_per_second_together_{width}"] = max(together)
        details[f"tokens_per_second_one_at_a_time_{width}"] = max(alone)
    return Result("batching", ratios, details)


def _rate(engine: LocalEngine, requests: int, at_once: int) -> float:
    """Generated tokens per second for `requests`, `at_once` of them in flight."""
    return asyncio.run(_generate(engine, requests, at_once))


async def _generate(engine: LocalEngine, requests: int, at_once: int) -> float:
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> int:
        async with gate:
            return await _answer(engine, number)

    began = time.perf_counter()
    tokens = await asyncio.gather(*(one(n) for n in range(requests)))
    return sum(tokens) / (time.perf_counter() - began)


async def _answer(engine: LocalEngine, number: int) -> int:
    prompt = as_messages(held_out()[number % len(held_out())])
    sampling = Sampling(temperature=0.8, top_p=1.0, max_tokens=TOKENS, seed=number)
    tokens = 0
    async for piece in engine.generate(Job(new_response_id(), "base", prompt, sampling)):
        tokens = piece.output_tokens
    return tokens
