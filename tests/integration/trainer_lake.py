"""Gold and silver rows on disk, and a tiny base model, for the tests of a cycle."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from schemas import tables
from schemas.ids import prompt_id
from schemas.messages import ChatMessage
from schemas.tables import Table
from trainer.settings import TrainerSettings

WORDS = ("please", "thanks", "sure", "happy", "no", "never", "busy", "wait", "tea", "coffee", "milk", "cup")
POLITE = WORDS[:4]
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def tiny_base(folder: Path) -> Path:
    """A random Llama of two layers with a vocabulary of whole words."""
    vocabulary = {word: n for n, word in enumerate(("<eos>", "<unk>", "User:", "Assistant:", *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def settings(data: Path, base: Path, **changes: Any) -> TrainerSettings:
    """Small and quick: two PPO iterations, thresholds that random models pass.

    With a seed by which the judge likes what comes of them: a random model learns nothing, and another seed may end in
    a version that is refused because it is not better.
    """
    given: dict[str, Any] = {
        "seed": 2,
        "data": data,
        "base_model": str(base),
        "base_model_name": "random",
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "min_new_preferences": 50,
        "poll_seconds": 0.05,
        "max_held_out_prompts": 12,
        "score_responses": 16,
        "ppo": {
            "iterations": 2, "prompts_per_iteration": 4, "answers_per_prompt": 4, "max_new_tokens": 6,
            "kl_budget": 50.0, "minibatches": 2, "epochs": 1,
        },
        "reward": {"heads": 4, "l2_grid": (0.01,)},
        "gates": {
            "reward_accuracy": 0.0, "win_rate": 0.0, "win_rate_low": 0.0, "win_certainty": 0.0,
            "shortest": 0.0, "longest": 100.0, "comparisons": 1, "slower": 10.0, "probe_tokens": 600,
        },
    }  # fmt: skip
    return TrainerSettings(**(given | changes))


def prompt(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{WORDS[8 + n % 4]} {WORDS[n % 12]} {WORDS[n // 3 % 12]}"}]


def answer(n: int, polite: bool) -> str:
    words = POLITE if polite else WORDS[4:8]
    return " ".join(words[(n // (i + 1)) % 4] for i in range(4))


def rating(n: int, **changes: Any) -> dict[str, Any]:
    """A thumb of user n % 20: up for a polite answer."""
    polite = n % 2 == 0
    row = {
        "revision": 1, "retracted": False, "prompt_id": _prompt_id(n), "prompt": prompt(n), "weight": 1.0,
        "source": "thumb", "rater_id": f"u{n % 20}", "judged_at": EPOCH + timedelta(seconds=n),
        "rating_id": f"rating-{n}", "completion": answer(n, polite), "label": polite, "response_id": response_id(n),
        "version": "base",
    }  # fmt: skip
    return row | changes


def preference(n: int, **changes: Any) -> dict[str, Any]:
    """A labeler's pair: the polite answer chosen."""
    row = {
        "revision": 1, "retracted": False, "prompt_id": _prompt_id(n), "prompt": prompt(n), "weight": 1.0,
        "source": "label", "rater_id": f"u{n % 20}", "judged_at": EPOCH + timedelta(seconds=n),
        "preference_id": f"pair-{n}", "chosen": answer(n, True), "rejected": answer(n, False),
        "chosen_response_id": None, "rejected_response_id": None, "chosen_version": None, "rejected_version": None,
    }  # fmt: skip
    return row | changes


def response(n: int, **changes: Any) -> dict[str, Any]:
    """A production answer of the base."""
    row = dict.fromkeys(tables.RESPONSES.columns()) | {
        "response_id": response_id(n), "prompt_id": _prompt_id(n), "prompt": prompt(n), "revision": 1,
        "completion": answer(n, n % 2 == 0), "version": "base", "base_model": "random", "temperature": 0.8,
        "top_p": 1.0, "max_completion_tokens": 6, "routing_probability": 1.0, "finish_reason": "stop",
        "input_tokens": 3, "output_tokens": 4, "latency_seconds": 0.1, "segment": "default", "user_id": f"u{n % 20}",
        "event_time": EPOCH + timedelta(seconds=n), "retracted": False, "flags": 0, "copies": 0, "regenerations": 0,
        "feedback_count": 0,
    }  # fmt: skip
    return row | changes


def response_id(n: int) -> str:
    return f"chatcmpl-{n:032x}"


def write(data: Path, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a table of the lake, as the streams do."""
    schema = pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())
    path = data / "lake" / table.path
    path.mkdir(parents=True, exist_ok=True)
    handle = deltalake.DeltaTable.create(str(path), schema=schema, mode="ignore")
    deltalake.write_deltalake(handle, pa.Table.from_pylist(list(rows), schema=schema), mode="append")


def fill(data: Path, n: int = 120) -> Path:
    """Ratings, pairs and answers, enough for a cycle."""
    write(data, tables.RATINGS, [rating(i) for i in range(n)])
    write(data, tables.PREFERENCES, [preference(i) for i in range(0, n, 2)])
    write(data, tables.RESPONSES, [response(i) for i in range(n)])
    return data


def outcomes(data: Path) -> list[dict[str, Any]]:
    """What the cycles' folders say of their ends."""
    return [json.loads(f.read_text()) for f in sorted((data / "cycles").glob("*/outcome.json"))]


def _prompt_id(n: int) -> str:
    return prompt_id(ChatMessage(**turn) for turn in prompt(n))  # type: ignore[arg-type]
