"""Language models from Hugging Face files, and policies as LoRA adapters on them.

One base serves as policy (adapter on), as reference and as the trunk of the reward model (adapter off). Only
safetensors are read, and no code from a model's folder is run. Shapes are explained in `trainer.core.models`.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.pytorch_utils import Conv1D

from schemas.errors import CorruptAdapter, ModelError
from trainer.adapters.blocks import RoomyLayer, blocks_of, cut, merged, outputs_of
from trainer.core.models import Critic, KeyValueCache, Message

ADAPTER = "policy"
CRITIC_ADAPTER = "critic"
VALUE_HEAD_FILE = "value_head.safetensors"
CRITIC_FILE = "critic.safetensors"
"""The value function's own adapter, where it has one."""
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For a base without a chat template of its own."""


@dataclass(frozen=True)
class LoraSettings:
    """Which matrices get an adapter, and of which rank. The update is scaled by `alpha / rank`."""

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] = ()
    """Names of modules, for example `q_proj`; none of them: every linear layer but the output matrix."""
    top_share: float = 0.5
    """Share of the layers, from the top, that get one. The backward pass ends at the lowest of them."""


@dataclass
class LanguageModel:
    """A frozen causal language model with its tokenizer. See `trainer.core.models.LanguageModel`."""

    model: Any
    """The transformers causal LM; LoRA layers are put into it in place."""
    tokenizer: Any
    eos_id: int
    pad_id: int
    name: str
    peft: PeftModel | None = field(default=None, repr=False)
    split: int = 0
    """Blocks below the lowest adapter; see `trainer.core.models.LanguageModel.split`."""
    together: Callable[[int], int] | None = field(default=None, repr=False)
    """Of a model that is cut up over processes (`trainer.adapters.sharding`): the largest of all their numbers."""

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def n_layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def width(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def n_embeddings(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    def known(self, ids: Sequence[int]) -> list[int]:
        """Token ids without those that have no embedding.

        Some models' tokenizers have added tokens beyond (Gemma 3 1B: that of images); a user may type their names.
        """
        rows = self.n_embeddings
        return [i for i in ids if i < rows]

    def rounds(self, n: int) -> int:
        return n if self.together is None else self.together(n)

    def n_parameters(self) -> int:
        """Parameters of the base, adapters left out."""
        return sum(p.numel() for name, p in self.model.named_parameters() if "lora_" not in name)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the chat so far and of the opening of the assistant's turn."""
        text = self.tokenizer.apply_chat_template(
            [dict(m) for m in messages], add_generation_prompt=True, tokenize=False
        )
        return self.known(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of an answer, and EOS."""
        return [*self.known(self.tokenizer(text, add_special_tokens=False)["input_ids"]), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer, without special tokens and outer blanks."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def new_cache(self, tokens: int) -> KeyValueCache:
        """A cache with room for `tokens`; it grows if there are more."""
        plain = DynamicCache(config=self.model.config)
        if all(type(layer) is DynamicLayer for layer in plain.layers):
            return cast(KeyValueCache, Cache(layers=[RoomyLayer(tokens) for _ in plain.layers]))
        return cast(KeyValueCache, plain)

    def states(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor,
        attend: Tensor,
        layers: Sequence[int] = (),
        cache: KeyValueCache | None = None,
        lower_BTD: Tensor | None = None,
    ) -> list[Tensor]:
        """Hidden states B,T,D of `layers`, then the final one; never any logits."""
        decoder = self.model.get_decoder()
        first = 0 if lower_BTD is None else self.split
        with outputs_of([blocks_of(decoder)[layer - 1] for layer in layers]) as inner, cut(decoder, first):
            output = decoder(
                input_ids=tokens_BT if lower_BTD is None else None,
                inputs_embeds=lower_BTD,
                attention_mask=attend if attend.ndim == 2 else self._additive(attend),
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return [*inner, output.last_hidden_state]

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Inside, each adapted matrix is one plain matrix, W + BA, or W where the adapter is off.

        Only for weights of single precision: in bfloat16 the sum would round most of a small adapter away. And only for
        those that are here: of a model that is cut up no process has a whole matrix to add to.
        """
        if self.peft is None or self.dtype != torch.float32 or self.together is not None:
            yield
            return
        places = [
            (parent, name, child)
            for parent in self.model.modules()
            for name, child in parent.named_children()
            if isinstance(child, LoraLinear) and isinstance(child.get_base_layer(), nn.Linear)
        ]
        for parent, name, child in places:
            setattr(parent, name, merged(child))
        try:
            yield
        finally:
            for parent, name, child in places:
                setattr(parent, name, child)

    def _additive(self, attend_BTS: Tensor) -> Tensor:
        lowest = torch.finfo(self.dtype).min
        bias = torch.zeros(attend_BTS.shape, dtype=self.dtype, device=attend_BTS.device)
        return bias.masked_fill_(~attend_BTS, lowest).unsqueeze(1)

    def head_weight(self) -> Tensor:
        return self.model.get_output_embeddings().weight

    def logits(self, states_ND: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(states_ND)

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the adapter (if there is one) is off."""
        if self.peft is None:
            yield
            return
        with self.peft.disable_adapter():
            yield


class Policy:
    """A base with a LoRA adapter named "policy" and a value head on final hidden states.

    The head reads states that are scaled to unit size, and starts at zero. With a shared critic these are the policy's
    own, and no gradient goes into the trunk: a few hundred answers can't teach both, and the adapter is there for the
    reward. A separate critic has an adapter of its own, which learns with the head.
    """

    def __init__(self, lm: LanguageModel, head: nn.Linear, critic: Critic = "shared") -> None:
        self.lm = lm
        self.head = head
        self.critic: Critic = critic

    def values(self, states_ND: Tensor) -> Tensor:
        states = (states_ND if self.critic == "separate" else states_ND.detach()).float()
        return self.head(nn.functional.layer_norm(states, states.shape[-1:])).squeeze(-1)

    @contextlib.contextmanager
    def valuing(self) -> Iterator[None]:
        """Inside, the trunk is the separate critic's."""
        if self.critic != "separate":
            raise ValueError("this policy has no critic of its own; attach it with critic='separate'")
        self._activate(CRITIC_ADAPTER)
        try:
            yield
        finally:
            self._activate(ADAPTER)

    def _activate(self, name: str) -> None:
        """Switch adapters; peft would also freeze the others, whose gradients are still to come."""
        for module in self.lm.model.modules():
            if isinstance(module, LoraLinear):
                module.set_adapter(name)
        for parameter in (*self.adapter_parameters(), *self._critic_adapter()):
            parameter.requires_grad_(True)

    def adapter_parameters(self) -> list[nn.Parameter]:
        return self._lora(ADAPTER)

    def value_parameters(self) -> list[nn.Parameter]:
        return [*self._critic_adapter(), *self.head.parameters()]

    def _critic_adapter(self) -> list[nn.Parameter]:
        return self._lora(CRITIC_ADAPTER) if self.critic == "separate" else []

    def _lora(self, adapter: str) -> list[nn.Parameter]:
        return [p for name, p in self.lm.model.named_parameters() if "lora_" in name and f".{adapter}." in name]

    def reference(self) -> contextlib.AbstractContextManager[None]:
        return self.lm.reference()


def best_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it, else float32: emulated bf16 was 7 times slower on an AVX2 machine."""
    native = device.startswith("cuda") or torch.cpu._is_avx512_bf16_supported()  # pyright: ignore
    return "bfloat16" if native else "float32"


def load_base(path_or_id: str, *, dtype: str = "auto", device: str | None = None) -> LanguageModel:
    """A frozen base model in eval mode; `device` None takes CUDA if there is one.

    `dtype` is "bfloat16", "float32" or "auto" (see `best_dtype`). `path_or_id` is a folder with config.json or a
    Hugging Face id. Raises ModelError if it can't be used.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = getattr(torch, best_dtype(where) if dtype == "auto" else dtype)
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path_or_id, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path_or_id, dtype=wanted, use_safetensors=True, attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"can't load the base model {path_or_id!r}: {error}. Give a folder with config.json, a tokenizer and "
            f"safetensors weights, or a Hugging Face id that this machine can reach."
        ) from error
    model.requires_grad_(False)
    model.eval().to(where)
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    eos_id = _eos_id(model, tokenizer)
    pad_id = eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    lm = LanguageModel(model=model, tokenizer=tokenizer, eos_id=eos_id, pad_id=pad_id, name=path_or_id)
    _require_embeddings(lm)
    _require_linear_head(lm)
    return lm


def _eos_id(model: Any, tokenizer: Any) -> int:
    """The token that ends an assistant's turn: the model's own setting goes before the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None) or model.config.eos_token_id
    if isinstance(configured, (list, tuple)):
        configured = tokenizer.eos_token_id if tokenizer.eos_token_id in configured else configured[0]
    eos = tokenizer.eos_token_id if configured is None else configured
    if eos is None:
        raise ModelError(f"{model.name_or_path!r} names no end-of-sequence token; set eos_token_id in its config")
    return int(eos)


def _require_embeddings(lm: LanguageModel) -> None:
    """Every ordinary token has one; of added ones see `LanguageModel.known`."""
    tokens = int(lm.tokenizer.vocab_size)
    if tokens > lm.n_embeddings:
        raise ModelError(
            f"{lm.name!r} does not fit together: its tokenizer has {tokens} tokens, and there are {lm.n_embeddings} "
            f"embeddings; take the tokenizer that came with the weights"
        )


@torch.no_grad()
def _require_linear_head(lm: LanguageModel) -> None:
    """The trainer makes logits from states by itself, which is right only without bias, scaling and soft cap."""
    tokens_BT = torch.tensor([[lm.eos_id, lm.eos_id]], device=lm.device)
    positions_BT = torch.tensor([[0, 1]], device=lm.device)
    states = lm.states(tokens_BT, positions_BT=positions_BT, attend=torch.ones_like(tokens_BT).bool())[-1]
    expected = lm.model(input_ids=tokens_BT).logits.float()
    if not torch.allclose((states @ lm.head_weight().T).float(), expected, atol=0.05, rtol=0.02):
        raise ModelError(
            f"the logits of {lm.name!r} are not its final states times its output matrix (a bias, scaling or soft "
            f"cap follows), which the trainer does not support; take another base model"
        )


def attach_policy(
    lm: LanguageModel, lora: LoraSettings, *, adapter_dir: Path | None = None, critic: Critic = "shared"
) -> Policy:
    """Put a trainable adapter into `lm` (in place): a new one, or the one saved in `adapter_dir`.

    A new adapter changes nothing until it is trained (B starts at zero); its A is drawn from torch's global
    generator, so seed that for a reproducible run. LoRA weights are fp32 whatever the base is in. A separate critic's
    adapter is like the policy's, and starts where `adapter_dir` left it or, without one there, at no change.
    """
    if lm.peft is not None:
        raise ModelError("this base model carries a policy already; load the base again for another one")
    if adapter_dir is None:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=list(lora.target_modules) or linear_layers(lm),
            layers_to_transform=top_layers(lm.n_layers, lora.top_share),
            task_type="CAUSAL_LM",
        )
        try:
            lm.peft = cast(PeftModel, get_peft_model(lm.model, config, adapter_name=ADAPTER))
        except ValueError as error:
            raise ModelError(
                f"{lm.name!r} has no modules named {', '.join(lora.target_modules)}; name its attention "
                f"projections in the LoRA settings ({error})"
            ) from error
    else:
        lm.peft = _load_adapter(lm, adapter_dir)
    lm.peft.eval()
    lm.split = _split(lm)
    policy = Policy(lm, _value_head(lm, adapter_dir), critic)
    if critic == "separate":
        _add_critic(policy, lm.peft, adapter_dir)
    return policy


def _add_critic(policy: Policy, peft: PeftModel, adapter_dir: Path | None) -> None:
    peft.add_adapter(CRITIC_ADAPTER, replace(peft.peft_config[ADAPTER], inference_mode=False))  # type: ignore[type-var]
    file = None if adapter_dir is None else adapter_dir / CRITIC_FILE
    if file is not None and file.is_file():
        set_peft_model_state_dict(peft, load_file(file), adapter_name=CRITIC_ADAPTER)
    peft.eval()
    with policy.valuing():
        pass  # leaves the policy's adapter active and both trainable


def linear_layers(lm: LanguageModel) -> list[str]:
    """The names, without their path, of all linear layers of the trunk."""
    modules = lm.model.get_decoder().named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, (nn.Linear, Conv1D))})


@torch.no_grad()
def _split(lm: LanguageModel) -> int:
    """Blocks below the lowest adapter, if a pass that begins above them gives what a whole one gives; else 0."""
    blocks = blocks_of(lm.model.get_decoder())
    adapted = [n for n, block in enumerate(blocks) if any(isinstance(m, LoraLinear) for m in block.modules())]
    lm.split = min(adapted, default=0)
    if not lm.split:
        return 0
    tokens_BT = torch.arange(6, device=lm.device).view(2, 3) % lm.head_weight().shape[0]
    positions_BT = torch.arange(3, device=lm.device).expand(2, 3)
    attend_BTS = torch.ones(3, 3, dtype=torch.bool, device=lm.device).tril().expand(2, 3, 3)
    lower, whole = lm.states(tokens_BT, positions_BT=positions_BT, attend=attend_BTS, layers=(lm.split,))
    try:
        (again,) = lm.states(tokens_BT, positions_BT=positions_BT, attend=attend_BTS, lower_BTD=lower)
    except (TypeError, ValueError, IndexError, AttributeError):
        return 0  # an architecture whose blocks need more than the states below them
    return lm.split if torch.allclose(again, whole, atol=1e-5, rtol=1e-5) else 0


def top_layers(n_layers: int, share: float) -> list[int]:
    """Numbers of the layers that get an adapter."""
    if not 0 < share <= 1:
        raise ValueError(f"top_share must be above 0 and at most 1, got {share}")
    return list(range(n_layers - max(1, round(n_layers * share)), n_layers))


def _load_adapter(lm: LanguageModel, adapter_dir: Path) -> PeftModel:
    weights = adapter_dir / "adapter_model.safetensors"
    if not weights.is_file():
        raise CorruptAdapter(f"no adapter in {adapter_dir}: adapter_model.safetensors is missing")
    try:
        return PeftModel.from_pretrained(lm.model, str(adapter_dir), adapter_name=ADAPTER, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CorruptAdapter(f"the adapter in {adapter_dir} does not fit {lm.name!r}: {error}") from error


def _value_head(lm: LanguageModel, adapter_dir: Path | None) -> nn.Linear:
    head = nn.Linear(lm.width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if adapter_dir is not None and (adapter_dir / VALUE_HEAD_FILE).is_file():
        head.load_state_dict(load_file(adapter_dir / VALUE_HEAD_FILE))
    return head.to(lm.device)


def save_adapter(policy: Policy, directory: Path) -> None:
    """Write the adapter in peft's format (adapter_config.json, adapter_model.safetensors) and the value head.

    The folder must not be one in use: the caller writes to a fresh folder and renames it when all is there.
    """
    lm = policy.lm
    if lm.peft is None:
        raise ValueError("this policy carries no adapter")
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(lm.peft, adapter_name=ADAPTER)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = lm.peft.peft_config[ADAPTER].to_dict()
    config.update(inference_mode=True, base_model_name_or_path=lm.name)
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (directory / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    if policy.critic == "separate":
        own = get_peft_model_state_dict(lm.peft, adapter_name=CRITIC_ADAPTER)
        save_file({name: t.detach().cpu().contiguous() for name, t in own.items()}, directory / CRITIC_FILE)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in policy.head.state_dict().items()}, directory / VALUE_HEAD_FILE
    )


def _plain(value: object) -> object:
    """peft keeps sets and enums in its config; sorted lists and names make the file reproducible."""
    if isinstance(value, (set, frozenset)):
        return sorted(cast("set[str]", value))
    return getattr(value, "value", str(value))
