"""What a transformers decoder does not offer: part of its blocks, the states of some, adapters as plain matrices.

Shapes: B rows, H heads, T tokens, D width of a head.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in buffers with room for what is to come, instead of a copy with each token."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._room = tokens
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write B,H,T,D behind what is there; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._buffers is None or end > self._buffers[0].shape[2]:
            room = max(self._room, end + end // 2 if start else end)
            self._buffers = _grown(self.keys, key_states, start, room), _grown(self.values, value_states, start, room)
        keys, values = self._buffers
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        if repeats > 1:
            self._rows(lambda buffer: buffer.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows."""
        self._rows(lambda buffer: buffer[indices])

    def _rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._buffers is not None:
            end = self.get_seq_length()
            keys, values = self._buffers = (change(self._buffers[0]), change(self._buffers[1]))
            self.keys, self.values = keys[:, :, :end], values[:, :, :end]


def _grown(old: Tensor | None, new: Tensor, start: int, room: int) -> Tensor:
    """A buffer like `new` with `room` for tokens, the first `start` of them taken from `old`."""
    buffer = new.new_empty(new.shape[0], new.shape[1], room, new.shape[3])
    if start and old is not None:
        buffer[:, :, :start] = old
    return buffer


@contextlib.contextmanager
def outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the blocks give out, in their order; `output_hidden_states` would keep those of all the others as well.

    To this thread: another one may use the same model meanwhile.
    """
    found: dict[int, Tensor] = {}
    mine = threading.get_ident()
    outputs: list[Tensor] = []

    def note(place: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if threading.get_ident() == mine:
                found[place] = out[0] if isinstance(out, tuple) else out

        return hook

    hooks = [block.register_forward_hook(note(place)) for place, block in enumerate(blocks)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
    outputs += [found[place] for place in range(len(blocks))]


def blocks_of(decoder: Any) -> nn.ModuleList:
    """The decoder's blocks, from the bottom; most call them `layers`, GPT-2's kin `h`."""
    return decoder.layers if hasattr(decoder, "layers") else decoder.h


@contextlib.contextmanager
def cut(decoder: Any, first: int) -> Iterator[None]:
    """Inside, `decoder` has only its blocks from `first` on."""
    if not first:
        yield
        return
    whole = decoder.layers
    decoder.layers = whole[first:]
    try:
        yield
    finally:
        decoder.layers = whole


def merged(lora: LoraLinear) -> nn.Linear:
    """The matrix that an adapted one now acts as; the base's own if the adapter is off."""
    base = cast(nn.Linear, lora.get_base_layer())
    if lora.disable_adapters or not lora.active_adapters:
        return base
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    with torch.no_grad():
        delta = sum(lora.get_delta_weight(name) for name in lora.active_adapters if name in lora.lora_A)
    plain.weight = nn.Parameter(base.weight + delta, requires_grad=False)
    if base.bias is not None:
        plain.bias = base.bias
    return plain
