"""A random Llama of a few thousand parameters with a byte tokenizer's shape, for tests of the trainer's core."""

from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy
from trainer.adapters.sharding import shard
from trainer.core.models import Critic

EOS = 2


class Letters:
    """A stand-in for a tokenizer: token 3 is "a", 4 is "b" and so on."""

    chat_template = "letters"

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: object) -> str:
        return messages[-1]["content"]

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [3 + (ord(c) - ord("a")) % 20 for c in text]}

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return "".join(chr(ord("a") + i - 3) for i in ids if i >= 3)


def language_model(seed: int = 0, *, pad_id: int = EOS, layers: int = 2) -> LanguageModel:
    """A tiny random Llama whose pad is its EOS, as SmolLM2's is."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=24,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=EOS,
            pad_token_id=pad_id,
            initializer_range=0.3,
        )
    )
    model.requires_grad_(False).eval()
    return LanguageModel(model=model, tokenizer=Letters(), eos_id=EOS, pad_id=pad_id, name="letters")


def policy(
    seed: int = 0,
    *,
    trained: bool = False,
    lora: LoraSettings | None = None,
    critic: Critic = "shared",
    dtype: torch.dtype = torch.float32,
    cut_up: bool = False,
    layers: int = 2,
) -> Policy:
    """A policy on it; `trained` gives the adapter random weights, so that it differs from its reference."""
    lm = language_model(seed, layers=layers)
    lm.model.to(dtype)
    if cut_up:
        shard(lm)  # over the running process group
    made = attach_policy(lm, lora or LoraSettings(rank=4, alpha=8, top_share=1.0), critic=critic)
    if trained:
        with torch.no_grad():
            for parameter in made.adapter_parameters():
                parameter.normal_(0, 0.2)
            made.head.weight.normal_(0, 0.1)
    return made
