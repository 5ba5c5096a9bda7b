"""The batcher against the plain thing: whoever shares a batch, an answer is the one that it would be alone."""

import asyncio
import contextlib
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from schemas.errors import CorruptAdapter
from schemas.messages import ChatMessage
from serving.adapters.adapter_bank import WEIGHTS_FILE
from serving.adapters.base_model import BaseModel
from serving.adapters.engine_local import LocalEngine
from serving.core.errors import EngineStopped, GenerationFailed, PromptRefused, QueueFull, VersionNotLoaded
from serving.core.generation import Job, Piece, Sampling
from tests.unit.serving.conftest import byte_tokenizer, random_llama, write_adapter


def job(text: str, *, version: str = "base", tokens: int = 24, **sampling: object) -> Job:
    options = {"temperature": 0.0, "top_p": 1.0, "max_tokens": tokens} | sampling
    return Job("chatcmpl-x", version, (ChatMessage(role="user", content=text),), Sampling(**options))  # type: ignore[arg-type]


async def answer(engine: LocalEngine, asked: Job) -> tuple[str, Piece]:
    pieces = [piece async for piece in engine.generate(asked)]
    return "".join(piece.text for piece in pieces), pieces[-1]


def alone(model: object, text: str, tokens: int) -> str:
    """What `model.generate` answers greedily, as text."""
    tokenizer = byte_tokenizer()
    ids = tokenizer(f"User: {text}\nAssistant:", add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)  # type: ignore[attr-defined]
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).rstrip("\ufffd")


async def test_answers_that_share_a_batch_are_those_of_generate_alone(engine: LocalEngine) -> None:
    texts = [
        ("hi", 30),
        ("a much longer question about nothing in particular", 7),
        ("?", 40),
        ("more", 3),
        ("z" * 90, 25),
    ]
    asked = [answer(engine, job(text, tokens=tokens)) for text, tokens in texts]
    got = [text for text, _ in await asyncio.gather(*asked)]
    assert got == [alone(random_llama(), text, tokens) for text, tokens in texts]


async def test_a_request_joins_while_others_are_being_answered(engine: LocalEngine) -> None:
    first = engine.generate(job("the first", tokens=60))
    opening = [await anext(first) for _ in range(5)]
    second, _ = await answer(engine, job("a second one that is longer than the first", tokens=20))
    rest = [piece async for piece in first]
    assert "".join(p.text for p in opening + rest) == alone(random_llama(), "the first", 60)
    assert second == alone(random_llama(), "a second one that is longer than the first", 20)


async def test_two_versions_answer_at_the_same_time_each_by_itself(engine: LocalEngine, tmp_path: Path) -> None:
    for version, seed in (("v1", 1), ("v2", 2)):
        await asyncio.to_thread(engine.load, write_adapter(tmp_path, version, seed=seed), 30.0)
    versions = ["base", "v1", "v2", "base", "v1", "v2"]
    got = [t for t, _ in await asyncio.gather(*(answer(engine, job("tell me", version=v)) for v in versions))]
    expected = {"base": alone(random_llama(), "tell me", 24)} | {
        v: alone(PeftModel.from_pretrained(random_llama(), str(tmp_path / v)), "tell me", 24) for v in ("v1", "v2")
    }
    assert len(set(expected.values())) == 3
    assert got == [expected[version] for version in versions]


async def test_loading_an_adapter_does_not_change_an_answer_in_flight(engine: LocalEngine, tmp_path: Path) -> None:
    pieces = engine.generate(job("go on", tokens=60))
    text = (await anext(pieces)).text
    await asyncio.to_thread(engine.load, write_adapter(tmp_path, "v1", seed=1), 30.0)
    text += "".join([piece.text async for piece in pieces])
    assert text == alone(random_llama(), "go on", 60)


async def test_the_same_seed_gives_the_same_answer_in_any_company(engine: LocalEngine) -> None:
    asked = job("dice", temperature=1.0, seed=7)
    by_itself, _ = await answer(engine, asked)
    crowd = [job(f"noise {n}", temperature=1.3, seed=n) for n in range(3)]
    in_company, *_ = await asyncio.gather(*(answer(engine, j) for j in (asked, *crowd)))
    assert in_company[0] == by_itself
    other, _ = await answer(engine, job("dice", temperature=1.0, seed=8))
    assert other != by_itself


async def test_an_answer_ends_with_its_token_limit_and_says_so(engine: LocalEngine) -> None:
    _, last = await answer(engine, job("hi", tokens=5))
    assert (last.finish_reason, last.output_tokens) == ("length", 5)


async def test_an_answer_ends_before_a_stop_string(engine: LocalEngine) -> None:
    whole = alone(random_llama(), "hi", 30)
    stop = whole[4:6]
    text, last = await answer(engine, job("hi", tokens=30, stop=(stop,)))
    assert text == whole[: whole.index(stop)]
    assert last.finish_reason == "stop"


async def test_a_prompt_without_room_for_an_answer_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(PromptRefused, match="takes 256 for prompt and answer"):
        await answer(engine, job("x" * 300))


async def test_a_full_queue_refuses_at_once(engine: LocalEngine) -> None:
    running = [engine.generate(job(f"{n}", tokens=40)) for n in range(40)]
    results = await asyncio.gather(*(anext(pieces) for pieces in running), return_exceptions=True)
    refused = [result for result in results if isinstance(result, QueueFull)]
    answered = [result for result in results if isinstance(result, Piece)]
    assert len(refused) + len(answered) == 40
    assert len(answered) >= 32


async def test_a_cancelled_request_leaves_its_place_to_others(engine: LocalEngine) -> None:
    for _ in range(8):  # more than the batch holds: they would block it for good
        async with contextlib.aclosing(engine.generate(job("never mind", tokens=200))) as pieces:  # type: ignore[type-var]
            await anext(pieces)
    text, _ = await answer(engine, job("and now", tokens=10))
    assert text == alone(random_llama(), "and now", 10)


async def test_a_version_that_is_not_in_memory_fails_its_own_request_only(engine: LocalEngine) -> None:
    good, bad = await asyncio.gather(
        answer(engine, job("hi")), answer(engine, job("hi", version="v9")), return_exceptions=True
    )
    assert isinstance(bad, VersionNotLoaded)
    assert not isinstance(good, BaseException) and good[0] == alone(random_llama(), "hi", 24)


async def test_a_failing_step_fails_its_answers_and_the_engine_goes_on(engine: LocalEngine, base: BaseModel) -> None:
    broken = base.model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(GenerationFailed, match="RuntimeError"):
        await answer(engine, job("hi"))
    broken.remove()
    assert (await answer(engine, job("hi")))[0] == alone(random_llama(), "hi", 24)


async def test_a_damaged_adapter_is_refused_and_what_was_loaded_stays(engine: LocalEngine, tmp_path: Path) -> None:
    engine.load(write_adapter(tmp_path, "v1", seed=1), 30.0)
    event = write_adapter(tmp_path, "v2", seed=2)
    weights = tmp_path / "v2" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(CorruptAdapter, match="version v2"):
        engine.load(event, 30.0)
    assert set(engine.loaded()) == {"base", "v1"}
    assert (await answer(engine, job("hi", version="v1")))[1].finish_reason is not None


async def test_adapters_that_nobody_uses_make_room(engine: LocalEngine, tmp_path: Path) -> None:
    engine.keep(frozenset({"v1"}))
    for n in range(1, 6):
        engine.load(write_adapter(tmp_path, f"v{n}", seed=n), 30.0)
    assert set(engine.loaded()) == {"base", "v1", "v4", "v5"}
    expected = alone(PeftModel.from_pretrained(random_llama(), str(tmp_path / "v1")), "hi", 24)
    assert (await answer(engine, job("hi", version="v1")))[0] == expected


async def test_an_engine_that_stops_says_so_to_those_in_flight(engine: LocalEngine) -> None:
    pieces = engine.generate(job("hi", tokens=230))
    await anext(pieces)
    engine.close()
    with pytest.raises(EngineStopped):
        async for _ in pieces:
            pass
    with pytest.raises(EngineStopped):
        await answer(engine, job("hi"))


async def test_a_users_text_that_names_a_token_without_embedding_is_read_without_it(base: BaseModel) -> None:
    plain = base.encode_prompt((ChatMessage(role="user", content="Where is it?"),))
    base.tokenizer.add_tokens(["<image>"])  # the 258th of a model that has 257 embeddings
    assert base.encode_prompt((ChatMessage(role="user", content="Where<image> is it?"),)) == plain
