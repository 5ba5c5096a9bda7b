"""A random Llama of some thousand weights and a tokenizer of single bytes: an engine to test with, made in a second."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from schemas.versions import GateResult, ModelVersion, VersionState
from serving.adapters.base_model import BaseModel, from_parts
from serving.adapters.engine_local import EngineLimits, LocalEngine
from serving.adapters.metrics import GatewayMetrics

EOS = "<|end|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token; pad is eos, as in SmolLM2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {EOS: 0} | {symbol: n + 1 for n, symbol in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS, pad_token=EOS)


def random_llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, bos_token_id=None, pad_token_id=0,
        initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).float().eval()


@pytest.fixture
def base() -> BaseModel:
    return from_parts(random_llama(), byte_tokenizer(), max_context_tokens=256)


def write_adapter(registry: Path, version: str, *, seed: int) -> ModelVersion:
    """An adapter in the registry as a trainer writes it, and the event that makes it live."""
    model = get_peft_model(
        random_llama(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), adapter_name="default"
    )
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
    model.save_pretrained(str(registry / version))
    digest = hashlib.sha256((registry / version / "adapter_model.safetensors").read_bytes()).hexdigest()
    return ModelVersion(
        version=version,
        state=VersionState.LIVE,
        base_model="tiny",
        adapter_path=version,
        adapter_sha256=digest,
        gates=(GateResult(name="win_rate", passed=True, value=0.7, threshold=0.5),),
        actor="test",
    )


LIMITS = EngineLimits(max_batch=4, max_queue=32, max_prefill_tokens=512, max_adapters=3, threads=1)


@pytest.fixture
def engine(base: BaseModel, tmp_path: Path) -> Iterator[LocalEngine]:
    """A running engine whose registry is `tmp_path`."""
    running = LocalEngine(base, registry=tmp_path, limits=LIMITS, metrics=GatewayMetrics())
    running.start()
    yield running
    running.close()
