"""Several processes that work on one cycle: what is asked of them, and who does which part.

    every process   draws the same random numbers, knows the whole batch, keeps the same parameters and optimizer
    its own part    answers n with n % size == rank: sampled, looked at and learned from here alone
    summed          rows of the batch (zero where another process made them), gradients and tallies of a step
    told            what one process alone may decide: rewards, budgets, requests to stop

Answers to compare and probes are shared in the same way. Since the batch is whole everywhere, whitening, means,
multipliers and the choice of a state are those of one process; nothing is averaged over processes. `Alone` is the one
process that there usually is, and costs nothing.

Shapes: N answers of the batch, T tokens.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from trainer.core.models import Policy
from trainer.core.packing import Group
from trainer.core.rollout import Rollouts, SamplingConfig, sample

T = TypeVar("T")


class Peers(Protocol):
    """The processes of one training; all of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This one, from 0."""
        ...

    @property
    def size(self) -> int: ...

    def sum(self, *tensors: Tensor) -> None:
        """Add each tensor up over all processes, in place."""
        ...

    def told(self, say: Callable[[], T]) -> T:
        """What process 0 says; the others don't call `say`."""
        ...


class Alone:
    """One process."""

    rank, size = 0, 1

    def sum(self, *tensors: Tensor) -> None:
        return

    def told(self, say: Callable[[], T]) -> T:
        return say()


ALONE = Alone()


def own_rows(peers: Peers, n: int) -> list[int]:
    """The answers of this process: every prompt's are spread, so that each minibatch is shared as well."""
    return list(range(peers.rank, n, peers.size))


def own_groups(peers: Peers, groups: Sequence[Group]) -> list[Group]:
    """What this process owns of each group; groups of which it owns nothing are left out."""
    if peers.size == 1:
        return list(groups)
    found: list[Group] = []
    for group in groups:
        kept = [(a, i) for a, i in zip(group.answers, group.indices, strict=True) if i % peers.size == peers.rank]
        if kept:
            found.append(Group(group.prompt, tuple(a for a, _ in kept), tuple(i for _, i in kept)))
    return found


def sample_together(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    answers_per_prompt: int,
    config: SamplingConfig,
    generator: torch.Generator,
    peers: Peers,
    *,
    keep_lower: bool = True,
) -> Rollouts:
    """The rollouts of `sample`, each process drawing its own rows; whole in all of them, and the same up to rounding.

    But for the states below the adapters, which stay where they were made.

    Log-probs agree with those of one process up to rounding, and so do the answers unless a uniform number falls that
    near to the edge of a token's slice.
    """
    if peers.size == 1:
        return sample(policy, prompts, answers_per_prompt, config, generator, keep_lower=keep_lower)
    n = len(prompts) * answers_per_prompt
    rows = own_rows(peers, n)
    own = sample(policy, prompts, answers_per_prompt, config, generator, rows=rows or [0], keep_lower=keep_lower)
    parts = (own.tokens_NT, own.mask_NT, own.log_probs_NT, own.values_NT, own.entropies_NT, own.finished_N)
    tokens, mask, log_probs, values, entropies, finished = whole(peers, rows, n, parts)
    repeated = tuple(tuple(p) for p in prompts for _ in range(answers_per_prompt))
    return Rollouts(repeated, tokens, mask, log_probs, values, entropies, finished, own.lower)


def whole(peers: Peers, rows: Sequence[int], n: int, own: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of all `n` rows from those of each process, whose own begin with its `rows`."""
    found: list[Tensor] = []
    for part in own:
        full = torch.zeros(n, *part.shape[1:], dtype=_summable(part.dtype), device=part.device)
        full[torch.tensor(rows, dtype=torch.long, device=part.device)] = part[: len(rows)].to(full.dtype)
        found.append(full)
    peers.sum(*found)
    return [full.to(part.dtype) for full, part in zip(found, own, strict=True)]


def _summable(dtype: torch.dtype) -> torch.dtype:
    return torch.uint8 if dtype == torch.bool else dtype


def sum_gradients(peers: Peers, parameters: Sequence[nn.Parameter]) -> None:
    """Gradients of all processes' parts; a parameter that none of them reached keeps none, as in one process."""
    if peers.size == 1:
        return
    reached = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    peers.sum(reached, *(p.grad for p in parameters if p.grad is not None))
    for parameter, times in zip(parameters, reached.tolist(), strict=True):
        if not times:
            parameter.grad = None
