"""Answers of people read by the frozen base, so that an answer's features don't depend on who else is read.

What a matrix product gives for a row depends, in its last bits, on how many rows there are. On the CPU each prompt with
at most `TOGETHER` of its answers is therefore read by itself, which makes its features a function of the base and of
these tokens alone: they can be kept from one cycle to the next, and come out the same where they were not kept. It
costs more than rows of 1,024 tokens do (a third more on SmolLM2 and short prompts). On a GPU, where a lone row would
waste most of the device and nobody is promised the same bits, many are read at once.

Shapes: N answers, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.core.models import LanguageModel
from trainer.core.packing import Group, micro_batches, pack
from trainer.core.rollout import feature_layer, features_of

TOGETHER = 2
"""The two answers of a pair share their prompt. With more, an answer that comes later would have more read again."""
BATCH_TOKENS = 8192


def reading_groups(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Group]:
    """Answers (aligned with `prompts`) as groups of at most `TOGETHER` to one prompt, in their order.

    `indices` point to the first of answers that are equal, token for token.
    """
    by_prompt: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        by_prompt.setdefault(tuple(prompt), {}).setdefault(tuple(answer), index)
    groups: list[Group] = []
    for prompt, found in by_prompt.items():
        texts, indices = tuple(found), tuple(found.values())
        for start in range(0, len(texts), TOGETHER):
            groups.append(Group(prompt, texts[start : start + TOGETHER], indices[start : start + TOGETHER]))
    return groups


def reading_batches(groups: Sequence[Group], device: torch.device) -> list[list[Group]]:
    """What is read at once: one group on the CPU."""
    return [[group] for group in groups] if device.type == "cpu" else micro_batches(groups, BATCH_TOKENS)


@torch.no_grad()
def read(lm: LanguageModel, batch: Sequence[Group]) -> Tensor:
    """Reward features N,F of a batch's answers, group after group, on the CPU; go into `lm.reference()` first."""
    packed = pack(batch, pad_id=lm.pad_id, device=lm.device)
    states = lm.states(
        packed.tokens_RL,
        positions_BT=packed.positions_RL,
        attend=packed.attend_RLL,
        layers=(feature_layer(lm.n_layers),),
    )
    return features_of([s.flatten(0, 1) for s in states], packed, lm.eos_id).cpu()
