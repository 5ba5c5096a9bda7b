"""States below the adapters: made once for an answer while it is decoded, then used by every later pass over it.

The `split` lowest blocks carry no adapter, so what they make of a text holds for the base, the policy and each of its
optimizer steps. Decoding makes them anyway, a token at a time; who keeps them saves the frozen base's look and the
update these blocks.

Shapes: A answers drawn here, T tokens, R rows, L tokens of a row or of a group, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.models import LanguageModel, Tokens
from trainer.core.packing import Group, Packed, place_rows

ByGroup = Mapping[Tokens, Tensor]
"""States L,D of each group's tokens (its prompt, then its answers), by the group's `indices`."""


@dataclass(frozen=True)
class LowerStates:
    """States of prompts and answers as decoding has left them."""

    prompts: Mapping[Tokens, Tensor]
    """L,D of each prompt."""
    places: Mapping[int, int]
    """The row in `answers_ATD` of each answer that was drawn here, by its place among all."""
    answers_ATD: Tensor
    """Of each token that was read; zeros for an EOS, which nothing looks at, and beyond it."""

    def of(self, groups: Sequence[Group]) -> ByGroup:
        """Laid end to end as groups are."""
        return {
            group.indices: torch.cat(
                [
                    self.prompts[group.prompt],
                    *(
                        self.answers_ATD[self.places[index], : len(answer)]
                        for index, answer in zip(group.indices, group.answers, strict=True)
                    ),
                ]
            )
            for group in groups
        }


def placed(lm: LanguageModel, groups: Sequence[Group], packed: Packed, lower: ByGroup, *, counts: bool) -> Tensor:
    """States R,L,D as `packed` lays the groups out; zeros for an idle micro-batch, whose states nobody knows."""
    if counts:
        return place_rows([lower[group.indices] for group in groups], packed)
    weight_VD = lm.head_weight()
    return weight_VD.new_zeros(*packed.tokens_RL.shape, weight_VD.shape[1])
