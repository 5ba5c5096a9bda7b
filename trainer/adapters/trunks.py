"""The reward model's own trunk on a base that is loaded already: with an adapter (LoRA), or a copy that learns whole.

It is a model beside the base and not a mode of it: its modules are its own, its frozen weights are the base's very
tensors. So the policy's adapters, their merging for decoding and their switching know nothing of it.
"""

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.errors import CorruptAdapter
from trainer.adapters.files import sha256_of
from trainer.adapters.policies import LanguageModel, LoraSettings, linear_layers, top_layers

ADAPTER = "reward"
Kind = Literal["lora", "full"]
Weights = Mapping[str, Tensor]


@dataclass
class RewardTrunk(LanguageModel):
    """A model that reads answers for the reward model. Its reference is itself: there is no adapter to switch off."""

    kind: Kind = "lora"
    learning: dict[str, nn.Parameter] = field(default_factory=dict[str, nn.Parameter], repr=False)
    """The weights that learn, by name."""

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """What asks for the reference of this model gets the trunk as it was trained."""
        yield

    def trunk_parameters(self) -> list[nn.Parameter]:
        return list(self.learning.values())

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that learn, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.learning.items()}

    @torch.no_grad()
    def become(self, weights: Weights) -> None:
        """Take over weights; raises `CorruptAdapter` where they are those of another model."""
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        mine = {name: tuple(p.shape) for name, p in self.learning.items()}
        if shapes != mine:
            raise CorruptAdapter(
                f"the reward model's trunk was trained on another base than {self.name!r}, or with another rank: "
                "use the base of its version's record"
            )
        for name, parameter in self.learning.items():
            parameter.copy_(weights[name])


def make_trunk(base: LanguageModel, kind: Kind, lora: LoraSettings, *, seed: int = 0) -> RewardTrunk:
    """A trunk that reads as the frozen `base` does until it is trained. Any adapters of the base are left out of it."""
    model = _beside(base.model, shared=kind == "lora")
    trunk = RewardTrunk(model, base.tokenizer, base.eos_id, base.pad_id, base.name, kind=kind)
    if kind == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk.peft = cast(PeftModel, get_peft_model(model, _lora_config(trunk, lora), adapter_name=ADAPTER))
        trunk.peft.eval()
        learning = {name: p for name, p in model.named_parameters() if f".{ADAPTER}." in name}
    else:
        learning = dict(model.get_decoder().named_parameters())
        if isinstance(embedding := model.get_input_embeddings(), nn.Embedding):
            embedding.sparse = True  # the gradient of a few hundred tokens, not of the whole vocabulary
    for parameter in learning.values():
        parameter.requires_grad_(True)
    trunk.learning = learning
    return trunk


def _beside(model: Any, *, shared: bool) -> Any:
    """A copy without adapters: of the modules alone, or of the weights that it reads with, too."""
    held = [*model.parameters(), *model.buffers()] if shared else [model.get_output_embeddings().weight]
    embedding = model.get_input_embeddings()
    kept = {id(t): t for t in held if shared or t is not _plain(embedding).weight}
    twin = copy.deepcopy(model, kept)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                setattr(parent, name, child.get_base_layer())
    if hasattr(twin, "peft_config"):
        del twin.peft_config
    return twin


def _plain(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, LoraLinear) else module


def _lora_config(lm: LanguageModel, lora: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=list(lora.target_modules) or linear_layers(lm),
        layers_to_transform=top_layers(lm.n_layers, lora.top_share),
        task_type="CAUSAL_LM",
    )


def fingerprint(base: LanguageModel) -> str:
    """Of the base's weights, from the first numbers of each: whose trunk this is, cheaply and whatever its type."""
    digest = hashlib.sha256()
    named = {name.replace(".base_layer", ""): p for name, p in base.model.named_parameters() if "lora_" not in name}
    for name in sorted(named):
        digest.update(name.encode())
        first = named[name].detach().flatten()[:16].to("cpu", torch.bfloat16).float()
        digest.update(first.numpy().tobytes())
    return digest.hexdigest()


def _description(kind: Kind, base: LanguageModel) -> str:
    return json.dumps({"kind": kind, "base": fingerprint(base)})


def save_trunks(file: Path, base: LanguageModel, kind: Kind, parts: Mapping[str, Weights]) -> str:
    """Write the trunk and those of its folds, by name, as one safetensors file; its SHA-256."""
    flat = {f"{part}/{name}": t.contiguous() for part, weights in parts.items() for name, t in weights.items()}
    save_file(flat, file, metadata={"trunk": _description(kind, base)})  # of several entries the order is by chance
    return sha256_of(file)


def load_trunks(file: Path, base: LanguageModel, kind: Kind, *, sha256: str) -> dict[str, dict[str, Tensor]]:
    """What `save_trunks` wrote; raises `CorruptAdapter` where it is another file, or was trained on another base."""
    try:
        digest = sha256_of(file)
        if digest != sha256:
            raise CorruptAdapter(
                f"{file} has the SHA-256 {digest[:12]}..., its record says {sha256[:12]}...; restore it from a copy"
            )
        with safe_open(file, framework="pt") as held:
            if (held.metadata() or {}).get("trunk") != _description(kind, base):
                raise CorruptAdapter(
                    f"{file} holds a reward model's trunk of another base than {base.name!r}, or of another kind than "
                    f"{kind}: use the base of its version's record"
                )
            found: dict[str, dict[str, Tensor]] = {}
            for key in held.keys():  # noqa: SIM118 - no mapping
                part, _, name = key.partition("/")
                found.setdefault(part, {})[name] = held.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise CorruptAdapter(f"the reward model's trunk {file} can't be read: {error}") from error
    return found
