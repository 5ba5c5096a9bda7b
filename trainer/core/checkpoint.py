"""A training between two iterations, as tensors and plain values: with it `improve` goes on as if it had never ended.

What a training keeps from one iteration to the next belongs in `PPOState`: otherwise a resumed one would come to other
weights.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from trainer.core.candidates import Candidate
from trainer.core.constraints import Multiplier

Step = TypeVar("Step")
Control = TypeVar("Control")


@dataclass(frozen=True)
class PPOState(Generic[Step, Control]):
    """Everything after `iteration` iterations. The tensors are the training's own: write them before it goes on."""

    iteration: int
    generator: Tensor
    """State of the generator that draws prompts, answers and minibatches."""
    order: tuple[int, ...]
    """Prompts that are left of the running round."""
    parameters: tuple[Tensor, ...]
    """Adapter, then value head."""
    optimizer: tuple[dict[str, Tensor], ...]
    """For each parameter what the optimizer keeps of it; empty before its first step."""
    control: Control
    steps: tuple[Step, ...]
    multipliers: tuple[Multiplier, ...]
    candidates: tuple[Candidate[tuple[Tensor, ...]], ...]


class Order:
    """Numbers 0..n-1 in a new order each round; `left` is what is to come of this one."""

    def __init__(self, n: int, generator: torch.Generator, left: Sequence[int] = ()) -> None:
        if n < 1:
            raise ValueError("give at least one prompt to train on")
        self._n, self._generator = n, generator
        self.left = list(left)

    def take(self, n: int) -> list[int]:
        """The next `n` numbers."""
        return [self._next() for _ in range(n)]

    def _next(self) -> int:
        if not self.left:
            self.left = torch.randperm(self._n, generator=self._generator).tolist()
        return self.left.pop(0)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[dict[str, Tensor], ...]:
    """What the optimizer keeps of each parameter. Every value of Adam's state is a tensor."""
    return tuple(dict(optimizer.state.get(p, {})) for p in parameters)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Sequence[dict[str, Tensor]]) -> None:
    """The opposite; torch puts each tensor on its parameter's device."""
    held = {n: dict(values) for n, values in enumerate(state) if values}
    optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})


@torch.no_grad()
def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Set the parameters."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
