"""Pairs per CPU second of training a reward model, against TRL 1.16's RewardTrainer.

Same model (Llama of hidden size 256 and 6 layers, random weights; vocabularies of 8k and 32k), same pairs (random
tokens, lengths as those of hh_harmless), one thread, eight pairs to an optimizer step, each side in a process of its
own, in turn. Both train all weights of the trunk; ours has 16 heads, TRL's one. A ratio is TRL's seconds for a pair by
ours, the median over rounds, of the vocabulary on which we do worse.

TRL 1.16 defaults: bf16 autocast over fp32 weights, gradient checkpointing, eight pairs a step, chosen and rejected
answers each behind their prompt and padded to the longest of the sixteen, one logit. `trl_bf16` is TRL with weights of
bfloat16 and no checkpointing. Where the processor only emulates bf16, that can't be measured, and TRL's defaults are
run without it, which is the faster way for TRL.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tokenizers
import torch
import transformers

from benchmarks.peers import ROOT, measure, python_with
from benchmarks.result import Result
from benchmarks.reward_peers import EOS, PAD, Case

PEERS = ROOT / "build" / "peers-trl-reward"
REQUIREMENTS = ("trl==1.16.0", "datasets==5.2.0")
VOCABULARIES = (8_000, 32_000)
ROUNDS = 3
NOTE = (
    "full fine-tuning on both sides, 8 pairs a step; ours without the look at the answers before and the exact fit of "
    "the heads after the training"
)
Figures = dict[str, float]


def run() -> Result:
    """Ratios `trl_defaults` and `trl_defaults_lora`; with bf16 hardware also `trl_bf16`."""
    python = str(python_with(PEERS, REQUIREMENTS))
    native = bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore
    found: dict[str, list[float]] = {}
    details: dict[str, float | str] = {"note": NOTE}
    if not native:
        details["bf16"] = "not measured: this processor emulates bf16; TRL's defaults but for bf16, ours in fp32"
    with tempfile.TemporaryDirectory(prefix="thumbwheel-reward-") as folder:
        for vocabulary in VOCABULARIES:
            ours = Case(_model(Path(folder), vocabulary), vocabulary, dtype="bfloat16" if native else "float32")
            for key, mine, theirs, rounds in _comparisons(ours, native):
                name = f"{key}_{vocabulary // 1000}k"
                compared = _compare(mine, theirs, python, rounds)
                found.setdefault(key, []).append(compared.ratio)
                details[name] = compared.text()
                if key == "trl_defaults":
                    details[f"{name}_parts"] = _parts(compared, mine, theirs, python)
    return Result("reward", {key: min(values) for key, values in found.items()}, details)


@dataclass(frozen=True)
class Compared:
    """Both sides' figures, and the median over rounds of TRL's seconds by ours."""

    ratio: float
    ours: Figures
    trl: Figures

    def text(self) -> str:
        """A line for the details."""
        return (
            f"{self.ratio:.2f}x: {1 / self.ours['cpu_seconds_a_pair']:.1f} pairs per CPU second, "
            f"TRL {1 / self.trl['cpu_seconds_a_pair']:.1f}; tokens through the model for a pair "
            f"{self.ours['tokens_a_pair']:.0f} and {self.trl['tokens_a_pair']:.0f}"
        )


def _comparisons(ours: Case, native: bool) -> list[tuple[str, Case, Case, int]]:
    """Key, our case, TRL's, and how many rounds."""
    made = [(key, ours, theirs, ROUNDS) for key, theirs in _rivals(ours, native)]
    lora, theirs = (replace(case, kind="lora") for case in made[0][1:3])
    return [*made, ("trl_defaults_lora", lora, theirs, 1)]


def _rivals(ours: Case, native: bool) -> list[tuple[str, Case]]:
    """TRL's cases by key."""
    defaults = ("trl_defaults", replace(ours, dtype="float32", bf16=native, checkpointing=True))
    half = ("trl_bf16", replace(ours, dtype="bfloat16", bf16=False, checkpointing=False))
    return [defaults, half] if native else [defaults]


def _compare(ours: Case, theirs: Case, python: str, rounds: int) -> Compared:
    """Both sides in turn."""
    pairs = [(_measured(sys.executable, "ours", ours), _measured(python, "trl", theirs)) for _ in range(rounds)]
    ratio = statistics.median(t["cpu_seconds_a_pair"] / o["cpu_seconds_a_pair"] for o, t in pairs)
    mine, trl = (_middle([pair[side] for pair in pairs]) for side in (0, 1))
    return Compared(ratio, mine, trl)


def _middle(figures: list[Figures]) -> Figures:
    return {name: statistics.median(f[name] for f in figures) for name in figures[0]}


def _parts(compared: Compared, ours: Case, theirs: Case, python: str) -> str:
    """Where the ratio comes from: ours with one thing after the other switched off, then TRL without checkpointing."""
    apart, padded = (
        _measured(sys.executable, "ours", replace(ours, reading=reading))["cpu_seconds_a_pair"]
        for reading in ("separate", "padded")
    )
    plain = _measured(python, "trl", replace(theirs, checkpointing=False))["cpu_seconds_a_pair"]
    shared, trl = (side["cpu_seconds_a_pair"] for side in (compared.ours, compared.trl))
    return (
        f"prompt read once {apart / shared:.2f}x, no padding {padded / apart:.2f}x, code {plain / padded:.2f}x, "
        f"no gradient checkpointing {trl / plain:.2f}x"
    )


def _measured(python: str, side: str, case: Case) -> Figures:
    return measure(python, "benchmarks.reward_peers", side, json.dumps(asdict(case)))


def _model(folder: Path, vocabulary: int) -> str:
    """A random Llama and its tokenizer on disk."""
    path = str(folder / str(vocabulary))
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
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t2")  # noqa: S106 - no password
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words),
        pad_token=f"t{PAD}",
        eos_token=f"t{EOS}",
        unk_token="t2",  # noqa: S106
    )
    fast.save_pretrained(path)
    return path
