"""A base model and its tokenizer from Hugging Face files: safetensors only, no code from the model's folder."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from schemas.errors import ModelError
from schemas.messages import ChatMessage
from serving.core.errors import PromptRefused

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For a base without a chat template of its own; the trainer uses the same."""


@dataclass
class BaseModel:
    """A frozen causal language model in eval mode."""

    model: Any
    """The transformers model; LoRA layers are put into it in place."""
    tokenizer: Any
    eos_ids: frozenset[int]
    pad_id: int
    """Fills up shorter rows; it may equal an eos id, so nothing is ever masked by its value."""
    context_tokens: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def encode_prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of the chat and of the opening of the assistant's turn; raises `PromptRefused`."""
        turns = [{"role": m.role, "content": m.content} for m in messages]
        # A fast tokenizer may not be used by two threads at once.
        with self._lock:
            try:
                text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            except TemplateError as error:
                raise PromptRefused(
                    f"the model's chat template refuses these messages: {error}", code="invalid_messages"
                ) from error
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # Some tokenizers have added tokens without an embedding (Gemma 3 1B: that of images); a user may type them.
        rows = self.model.get_input_embeddings().weight.shape[0]
        ids = [i for i in ids if i < rows]
        if not ids:
            raise PromptRefused("the prompt is empty: at least one message needs text", code="empty_prompt")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        with self._lock:
            return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def load_base_model(path_or_id: str, *, dtype: str, device: str, max_context_tokens: int) -> BaseModel:
    """The model in a folder (or of a Hugging Face id); raises `ModelError`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    disable_progress_bar()  # stderr holds one JSON object a line
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path_or_id, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path_or_id,
            dtype=best_dtype(device) if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            attn_implementation="sdpa",
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"can't load the base model {path_or_id!r}: {error}. Give a folder with config.json, a tokenizer and "
            f"safetensors weights (thumbwheel models prepare makes one), or an id that this machine can reach."
        ) from error
    return from_parts(model.to(device), tokenizer, max_context_tokens=max_context_tokens)


def best_dtype(device: str) -> torch.dtype:
    """The fastest precision on a device. A CPU without bfloat16 instructions emulates them, very slowly."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Named with an underscore, and nothing public says it (torch 2.13).
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def from_parts(model: Any, tokenizer: Any, *, max_context_tokens: int) -> BaseModel:
    """The same from a model and a tokenizer that are in memory already."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ModelError(
            f"the base model has layers of the kinds {', '.join(sorted(kinds))}; this engine batches full attention"
            " only, so take another base model"
        )
    model.requires_grad_(False)
    model.eval()
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    eos_ids = _eos_ids(model, tokenizer)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=min(eos_ids) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        context_tokens=min(max_context_tokens, int(model.config.max_position_embeddings)),
    )


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ids: set[int] = set()
    for configured in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        if isinstance(configured, (list, tuple)):
            ids.update(configured)
        elif configured is not None:
            ids.add(int(configured))
    if not ids:
        raise ModelError("the base model names no end-of-sequence token; set eos_token_id in its config")
    return frozenset(ids)
