"""CPU seconds and memory of a PPO update (rollout included), against TRL 1.12's PPOTrainer.

Same model (Llama of hidden size 256 and 6 layers, random weights; vocabularies of 8k and 32k), same prompts, one
thread, each side in a process of its own, in turn. Both train LoRA adapters of the same rank on the same matrices of
the same layers. What differs: TRL keeps a value model (with such an adapter) and a reward model beside the policy; we
read values and reward features from the policy's own trunk, but in `separate_critic`, where the value function has
an adapter and a forward and backward pass of its own as in TRL.
A ratio of time is TRL's seconds by ours, the median over rounds, of the vocabulary on which we do worse; a ratio of
memory is our peak above the loaded models by TRL's, the worse of the two likewise.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from benchmarks.peers import ROOT, measure, python_with
from benchmarks.ppo_peers import EOS, PAD, Case
from benchmarks.result import Result

PEERS = ROOT / "build" / "peers-trl-ppo"
REQUIREMENTS = ("trl==1.12.0", "datasets==5.2.0")
"""torch, transformers, peft and accelerate are the project's own, which TRL 1.12 accepts: one version on both sides."""
VOCABULARIES = (8_000, 32_000)
UNKNOWN = "t2"
ROUNDS = 3
Figures = dict[str, float]
EARLY_END = 0.05
"""Chance of EOS at each token: a mean of 18 tokens where 48 are allowed."""


def run() -> Result:
    """Ratios `fp32_full`, `fp32_eos`, `fp32_separate_critic`, `memory_fp32`; with bf16 hardware those of bf16 too."""
    python = python_with(PEERS, REQUIREMENTS)
    native = torch.cpu._is_avx512_bf16_supported()  # pyright: ignore
    ratios: dict[str, float] = {}
    details: dict[str, float | str] = {"note": NOTE}
    with tempfile.TemporaryDirectory(prefix="thumbwheel-ppo-") as folder:
        for short, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
            if dtype == "bfloat16" and not native:
                details["bf16"] = "not measured: this processor emulates bf16"
                continue
            _compare(Path(folder), short, dtype, python, ratios, details)
    return Result("ppo", ratios, details)


NOTE = "LoRA r8 on q, v, o of the top half on both sides; times are CPU seconds of one rollout and update, one thread"


def _compare(
    folder: Path, short: str, dtype: str, python: Path, ratios: dict[str, float], details: dict[str, float | str]
) -> None:
    """All cases of one number format, each for both vocabularies."""
    found: dict[str, list[float]] = {}
    for vocabulary in VOCABULARIES:
        for length in ("full", "eos"):
            model = _model(folder, vocabulary, early=length == "eos")
            case = Case(str(model), vocabulary, dtype=dtype)
            rounds = [_round(case, python, separate=length == "full" and short == "fp32") for _ in range(ROUNDS)]
            for key, ours, theirs in _pairs(short, length, rounds):
                ratio = statistics.median(
                    t["cpu_seconds"] / o["cpu_seconds"] for o, t in zip(ours, theirs, strict=True)
                )
                found.setdefault(key, []).append(ratio)
                _tell(details, f"{key}_{vocabulary // 1000}k", ours, theirs, ratio)
            if length == "full":
                found.setdefault("memory", []).append(
                    statistics.median(r["ours"]["peak_mb"] / r["trl"]["peak_mb"] for r in rounds)
                )
    ratios[f"memory_{short}"] = max(found.pop("memory"))
    ratios.update({key: min(values) for key, values in found.items()})


def _round(case: Case, python: Path, *, separate: bool) -> dict[str, Figures]:
    """Both sides once; with `separate`, ours with a critic of its own as well."""
    figures = {"ours": _measure(sys.executable, "ours", case), "trl": _measure(str(python), "trl", case)}
    if separate:
        figures["separate"] = _measure(sys.executable, "ours", replace(case, critic="separate"))
    if figures["ours"]["adapter"] != figures["trl"]["adapter"]:
        raise RuntimeError(f"adapters of unlike size make no comparison: {figures}")
    return figures


def _pairs(short: str, length: str, rounds: list[dict[str, Figures]]) -> list[tuple[str, list[Figures], list[Figures]]]:
    """Key, our figures and TRL's, of what the rounds measured."""
    theirs = [figures["trl"] for figures in rounds]
    pairs = [(f"{short}_{length}", [figures["ours"] for figures in rounds], theirs)]
    if "separate" in rounds[0]:
        pairs.append((f"{short}_separate_critic", [figures["separate"] for figures in rounds], theirs))
    return pairs


def _tell(details: dict[str, float | str], name: str, ours: list[Figures], theirs: list[Figures], ratio: float) -> None:
    def middle(side: list[Figures], figure: str) -> float:
        return statistics.median(figures[figure] for figures in side)

    details[name] = (
        f"{ratio:.2f}x: {middle(ours, 'cpu_seconds'):.2f} s and {middle(ours, 'peak_mb'):.0f} MB, "
        f"TRL {middle(theirs, 'cpu_seconds'):.2f} s and {middle(theirs, 'peak_mb'):.0f} MB; "
        f"tokens an answer {middle(ours, 'length'):.1f} and {middle(theirs, 'length'):.1f}"
    )


def _measure(python: str, side: str, case: Case) -> Figures:
    return measure(python, "benchmarks.ppo_peers", side, json.dumps(asdict(case)))


@torch.no_grad()
def _model(folder: Path, vocabulary: int, early: bool) -> Path:
    """A random Llama and its tokenizer on disk; EOS comes with a chance of `EARLY_END` at each token, or never.

    The first number of every embedding is the same, so the first of the final states nearly is, and EOS's row of the
    output matrix can read from it what its logit shall be.
    """
    path = folder / f"{vocabulary}-{'early' if early else 'full'}"
    if path.is_dir():
        return path
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        tie_word_embeddings=False,
    )
    model: Any = transformers.LlamaForCausalLM(config).eval()
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.normal_()
    embedding[:, 0] = 4.0
    head[:, 0] = 0.0
    head[[PAD, EOS]] = 0.0
    states_D = model.model(torch.randint(3, vocabulary, (8, 32))).last_hidden_state.mean((0, 1))
    others = torch.tensor(float(vocabulary)).log() + 0.5 * head.var() * 256
    wanted = others + torch.tensor(EARLY_END / (1 - EARLY_END)).log() if early else torch.tensor(-30.0)
    head[EOS, 0] = wanted / states_D[0]
    head[PAD, 0] = -30.0 / states_D[0]
    model.generation_config = transformers.GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)
    model.save_pretrained(path)
    _tokenizer(vocabulary).save_pretrained(path)
    return path


def _tokenizer(vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token=UNKNOWN)
    plain = tokenizers.Tokenizer(words)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token=f"t{PAD}", eos_token=f"t{EOS}", unk_token=UNKNOWN, padding_side="left"
    )
