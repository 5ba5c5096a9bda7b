"""A policy's parent: the adapter as it was before training, put back for a look and taken out again.

Training starts from the parent's adapter (a new one, which changes nothing, where the parent is the base), so the
tensors of that moment are the parent. Shapes: N answers, T tokens, K chosen tokens.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.core.losses import selected_log_probs
from trainer.core.models import LanguageModel, Policy
from trainer.core.packing import Group, group_answers, in_step, micro_batches, pack
from trainer.core.parallel import ALONE, Peers, own_groups


class Parent:
    """A copy of a policy's adapter, to be made before the first training step."""

    def __init__(self, policy: Policy) -> None:
        self._parameters = policy.adapter_parameters()
        self._values = [p.detach().clone() for p in self._parameters]

    @contextmanager
    def active(self) -> Generator[None]:
        """Inside, the policy is its parent; afterwards it is bit for bit what it was."""
        trained = [p.detach().clone() for p in self._parameters]
        self._put(self._values)
        try:
            yield
        finally:
            self._put(trained)

    def differs(self) -> bool:
        """Whether the policy is another than its parent now."""
        return any(not torch.equal(p, value) for p, value in zip(self._parameters, self._values, strict=True))

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def token_log_probs(
    lm: LanguageModel, groups: Sequence[Group], temperature: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Log-probs K of the groups' answer tokens under the model as it is, and where (answer, token) they stand."""
    packed = pack(groups, pad_id=lm.pad_id, device=lm.device)
    states = lm.states(packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL)[-1]
    row_K, column_K = packed.mask_NT.nonzero(as_tuple=True)
    tokens_K = packed.tokens_RL.flatten()[packed.places_NT[row_K, column_K]]
    states_KD = states.flatten(0, 1)[packed.sources_NT[row_K, column_K]]
    found_K = selected_log_probs(states_KD, lm.head_weight(), tokens_K, temperature)
    return found_K, (packed.indices_N[row_K], column_K)


@torch.no_grad()
def answer_log_probs(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = 1024,
    peers: Peers = ALONE,
) -> Tensor:
    """The log-probability N of each answer (aligned with its prompt) under the policy as it is, on the CPU.

    Of several processes each reads its own answers, and all have the whole.
    """
    total_N = torch.zeros(len(answers), dtype=torch.float64)
    batches = micro_batches(own_groups(peers, group_answers(prompts, answers)), max_tokens)
    for groups, counts in in_step(batches, policy.lm.rounds(len(batches))):
        found_K, (answer_K, _) = token_log_probs(policy.lm, groups, temperature)
        if counts:
            total_N.index_add_(0, answer_K.cpu(), found_K.double().cpu())
    peers.sum(total_N)
    return total_N
