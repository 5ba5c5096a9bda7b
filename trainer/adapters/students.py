"""Students: cut out of a teacher or loaded from files, made ready to learn, written as models of their own.

A cut student has some of the teacher's blocks (adapter merged in) and all of its embeddings, final norm and output
matrix. Only safetensors are read and written, and no code from a model's folder is run.
"""

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from schemas.errors import ModelError
from trainer.adapters.blocks import blocks_of
from trainer.adapters.files import sha256_of, sync_folder, sync_tree
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy, load_base
from trainer.core.distill_data import spread_layers
from trainer.core.distill_table import Size

PROBE_TOKENS = 8


def cut_student(teacher: Policy, n_layers: int) -> LanguageModel:
    """A student of `n_layers` of the teacher's blocks, in single precision; the teacher is left as it was.

    Raises `ModelError` where it has no such blocks.
    """
    lm = teacher.lm
    try:
        chosen = spread_layers(lm.n_layers, n_layers)
    except ValueError as error:
        raise ModelError(f"{lm.name!r} has {lm.n_layers} layers: {error}") from error
    decoder = lm.model.get_decoder()
    name = "layers" if hasattr(decoder, "layers") else "h"
    whole = blocks_of(decoder)
    setattr(decoder, name, nn.ModuleList([whole[n] for n in chosen]))
    try:
        held: Any = copy.deepcopy(lm.peft or lm.model)
    finally:
        setattr(decoder, name, whole)
    held = held.to(torch.float32)
    model = held if lm.peft is None else held.merge_and_unload(safe_merge=True)
    _renumber(model, lm.n_layers, chosen)
    model.requires_grad_(False)
    model.eval()
    student = LanguageModel(
        model=model, tokenizer=lm.tokenizer, eos_id=lm.eos_id, pad_id=lm.pad_id, name=f"{lm.name} cut to {n_layers}"
    )
    _require_runs(student)
    return student


def _renumber(model: Any, before: int, chosen: Sequence[int]) -> None:
    """What a block knows of its place, and what the configuration says layer by layer, for the blocks that are left."""
    for place, block in enumerate(blocks_of(model.get_decoder())):
        for module in (m for m in block.modules() if hasattr(m, "layer_idx")):
            vars(module)["layer_idx"] = place
    model.config = config = copy.deepcopy(model.config)
    model.get_decoder().config = config.get_text_config()
    for text in {id(c): c for c in (config, config.get_text_config())}.values():
        for name, value in list(vars(text).items()):
            if "layer" in name and isinstance(value, list) and len(value) == before:
                setattr(text, name, [value[n] for n in chosen])
        text.num_hidden_layers = len(chosen)


@torch.no_grad()
def _require_runs(student: LanguageModel) -> None:
    """Raise `ModelError` where an architecture does not work with some of its blocks."""
    tokens_BT = torch.arange(PROBE_TOKENS, device=student.device)[None] % student.head_weight().shape[0]
    try:
        found = student.model(input_ids=tokens_BT).logits
        student.model(input_ids=tokens_BT, past_key_values=student.new_cache(PROBE_TOKENS), use_cache=True)
    except (TypeError, ValueError, IndexError, AttributeError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{student.name!r} does not run: its architecture can't do without some of its layers ({error}); "
            f"name a model with --student instead"
        ) from error
    if not bool(torch.isfinite(found).all()):
        raise ModelError(f"{student.name!r} gives no numbers; name a model with --student instead")


def load_student(path_or_id: str, *, device: str) -> LanguageModel:
    """A student from a folder or a Hugging Face id, in single precision. Raises `ModelError`."""
    return load_base(path_or_id, dtype="float32", device=device)


def require_smaller(student: LanguageModel, teacher: LanguageModel) -> None:
    """Raise `ModelError` for a student that is no smaller than its teacher."""
    ours, theirs = student.n_parameters(), teacher.n_parameters()
    if ours >= theirs:
        raise ModelError(
            f"the student {student.name!r} has {ours:,} parameters and its teacher {theirs:,}: a student must be "
            f"smaller. Name another model, or cut the teacher with --layers (1 to {teacher.n_layers - 1})"
        )


def learning(student: LanguageModel, lora_rank: int) -> tuple[Policy, tuple[nn.Parameter, ...]]:
    """The student as a policy, and its weights that learn: all of them, or those of a new adapter of this rank."""
    if lora_rank:
        policy = attach_policy(student, LoraSettings(rank=lora_rank, alpha=2 * lora_rank, top_share=1.0), critic="none")
        return policy, tuple(policy.adapter_parameters())
    student.model.requires_grad_(True)
    head = nn.Linear(student.width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return Policy(student, head.to(student.device), "none"), tuple(student.model.parameters())


def size_of(lm: LanguageModel, adapter: int = 0) -> Size:
    """Parameters, bytes of weights, and bytes of keys and values that a token in flight holds."""
    config, dtype_bytes = lm.model.config.get_text_config(), lm.dtype.itemsize
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    parameters = lm.n_parameters() + adapter
    return Size(parameters, parameters * dtype_bytes, 2 * lm.n_layers * heads * width * dtype_bytes)


def finish(policy: Policy, dtype: torch.dtype) -> Policy:
    """The student as it will be written: a plain model of this type. What is evaluated is what is written."""
    lm = policy.lm
    model: Any = lm.model if lm.peft is None else lm.peft.merge_and_unload(safe_merge=True)
    model.requires_grad_(False)
    plain = replace(lm, model=model.to(dtype), peft=None, split=0)
    return Policy(plain, policy.head, policy.critic)


def write_student(
    student: LanguageModel, directory: Path, fill: Callable[[Path, str], None], sign: Callable[[Path], None]
) -> str:
    """Write model and tokenizer, there whole or not at all; the SHA-256 of the weights.

    `fill` adds what else belongs into the folder, and is told that checksum; `sign` comes last. What was written is
    loaded again and compared before the folder gets its name. Raises `ModelError`, `OSError`.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        student.model.save_pretrained(temporary)
        student.tokenizer.save_pretrained(temporary)
        digest = weights_sha256(temporary)
        _require_same(student, temporary)
        fill(temporary, digest)
        sign(temporary)
        sync_tree(temporary)
        temporary.rename(directory)
    except SafetensorError as error:
        raise OSError(f"the student could not be written to {directory}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(directory.parent)
    return digest


def weights_sha256(folder: Path) -> str:
    """Of its safetensors, file after file in order of name."""
    return sha256_of(*sorted(folder.glob("*.safetensors")))


@torch.no_grad()
def _require_same(student: LanguageModel, folder: Path) -> None:
    """Raise `ModelError` where the files give another model than the one that learned."""
    again = load_base(str(folder), dtype=str(student.dtype).removeprefix("torch."), device=str(student.device))
    tokens_BT = torch.arange(PROBE_TOKENS, device=student.device)[None] % student.head_weight().shape[0]
    found, wanted = (lm.model(input_ids=tokens_BT).logits.float() for lm in (again, student))
    if not torch.allclose(found, wanted, atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"the files of {student.name!r} give another model than the one that learned: its architecture can't be "
            f"cut; name a model with --student instead"
        )
