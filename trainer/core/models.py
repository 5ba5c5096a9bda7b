"""What the core asks of a language model and of a policy; `trainer.adapters.policies` gives it.

Shapes: B rows, T query tokens, S key tokens, D width of the model, V vocabulary, N any number of states.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Critic = Literal["shared", "separate", "none"]
"""Where values come from: a head on the policy's trunk, a trunk adapter of the critic's own, or nowhere (RLOO)."""

Tokens = tuple[int, ...]
"""Ids of a prompt's tokens, or of an answer's."""

Message = Mapping[str, str]
"""A chat message: `role` and `content`."""


class KeyValueCache(Protocol):
    """Keys and values of the tokens read so far; a batch of them can be widened and thinned out."""

    def batch_repeat_interleave(self, repeats: int) -> None: ...

    def batch_select_indices(self, indices: Tensor) -> None: ...


class LanguageModel(Protocol):
    """A causal language model with its tokenizer. Weights are frozen, dropout is off."""

    @property
    def eos_id(self) -> int: ...

    @property
    def pad_id(self) -> int:
        """May equal `eos_id`: masks are built by position, never by comparing with it."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def n_layers(self) -> int: ...

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]: ...

    def encode_completion(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    @property
    def split(self) -> int:
        """Blocks, from the bottom, that no adapter changes: what they make of a text holds for policy and base.

        0 if all carry an adapter, or if the architecture can't be entered above its embeddings.
        """
        ...

    def rounds(self, n: int) -> int:
        """How many passes all processes must make if this one has `n` to make; `n` where the model is whole here."""
        ...

    def new_cache(self, tokens: int) -> KeyValueCache:
        """An empty cache for about so many tokens a row."""
        ...

    def decoding(self) -> AbstractContextManager[None]:
        """Inside, weights may be laid out for generation (adapters merged into the base); no gradients there."""
        ...

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
        """Hidden states B,T,D: one for each of `layers` (1 = after the first block), then the final, normed one.

        `attend` is a boolean B,S of real key tokens, or B,T,S of what each query may look at. `lower_BTD` are the
        states after `split` blocks, which then need not be run again; `layers` must lie above them.
        """
        ...

    def head_weight(self) -> Tensor:
        """The output matrix W (V,D): `logits = states @ W.T`."""
        ...

    def logits(self, states_ND: Tensor) -> Tensor:
        """Logits N,V of final hidden states."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the model is the frozen base (adapters off)."""
        ...


class Policy(Protocol):
    """A language model with a trainable adapter and a value head on its trunk."""

    @property
    def lm(self) -> LanguageModel: ...

    @property
    def critic(self) -> Critic: ...

    def values(self, states_ND: Tensor) -> Tensor:
        """Expected return N of the states, fp32; unless the critic is a separate one, the gradient stops at them."""
        ...

    def valuing(self) -> AbstractContextManager[None]:
        """Inside, the trunk is the separate critic's: its states are those to give to `values`."""
        ...

    def adapter_parameters(self) -> list[nn.Parameter]: ...

    def value_parameters(self) -> list[nn.Parameter]: ...

    def reference(self) -> AbstractContextManager[None]: ...
