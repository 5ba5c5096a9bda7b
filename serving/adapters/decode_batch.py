"""A batch of sequences in the middle of decoding, whose rows come and go.

Rows are left-padded to one length: the newest token of every row is in the last column. To join two batches the
shorter one gets more padding on its left; when rows leave, columns that are padding in all the rest go too.
Padding is known by the mask alone, since the pad token may be an ordinary token elsewhere (SmolLM2's is its EOS).
Positions count a row's own tokens, so that a row's numbers don't depend on its neighbours.

Shapes: B rows, T columns so far, V vocabulary; a layer's keys and values are B,H,T,D.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache


class _Layer(Protocol):
    """What is used of a cache layer (`transformers.cache_utils.DynamicLayer`) once it was filled."""

    keys: Tensor
    values: Tensor


class DecodeBatch:
    """The key-value cache of B rows and the mask that says which of its columns are real."""

    def __init__(self, cache: DynamicCache, mask_BT: Tensor) -> None:
        self._cache = cache
        self._mask_BT = mask_BT

    def __len__(self) -> int:
        return self._mask_BT.shape[0]

    @property
    def columns(self) -> int:
        """T, padding included."""
        return self._mask_BT.shape[1]

    def step(self, model: Any, tokens_B: Tensor) -> Tensor:
        """Append one token to every row; the logits B,V of the next one."""
        positions_B1 = self._mask_BT.sum(-1, keepdim=True)
        self._mask_BT = pad(self._mask_BT, (0, 1), value=1)
        output = model(
            input_ids=tokens_B.unsqueeze(-1),
            attention_mask=self._mask_BT,
            position_ids=positions_B1,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def join(self, other: "DecodeBatch") -> None:
        """Take over the other batch's rows, after one's own."""
        columns = max(self.columns, other.columns)
        self._mask_BT = torch.cat([_widen(self._mask_BT, columns), _widen(other._mask_BT, columns)])
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.keys = torch.cat([_lengthen(mine.keys, columns), _lengthen(theirs.keys, columns)])
            mine.values = torch.cat([_lengthen(mine.values, columns), _lengthen(theirs.values, columns)])

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every row but these, and the columns that only the dropped ones needed."""
        index = torch.tensor(rows, device=self._mask_BT.device)
        mask_BT = self._mask_BT[index]
        unused = int(mask_BT.any(0).int().argmax())
        self._mask_BT = mask_BT[:, unused:]
        for layer in self._layers:
            layer.keys = layer.keys[index, :, unused:]
            layer.values = layer.values[index, :, unused:]

    @property
    def _layers(self) -> list[_Layer]:
        return cast(list[_Layer], self._cache.layers)


def prefill(
    model: Any, prompts: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> tuple[DecodeBatch, Tensor]:
    """Read the prompts; their batch, and the logits B,V of each one's next token."""
    columns = max(map(len, prompts))
    tokens_BT = torch.full((len(prompts), columns), pad_id)
    mask_BT = torch.zeros((len(prompts), columns), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, columns - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, columns - len(prompt) :] = 1
    mask_BT = mask_BT.to(device)
    cache = DynamicCache()
    output = model(
        input_ids=tokens_BT.to(device),
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return DecodeBatch(cache, mask_BT), output.logits[:, -1]


def _widen(mask_BT: Tensor, columns: int) -> Tensor:
    return pad(mask_BT, (columns - mask_BT.shape[1], 0), value=0)


def _lengthen(states_BHTD: Tensor, columns: int) -> Tensor:
    return pad(states_BHTD, (0, 0, columns - states_BHTD.shape[2], 0))
