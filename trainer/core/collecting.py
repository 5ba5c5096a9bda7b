"""The batch of one iteration of PPO: answers, and all that the update needs of them.

    prompts ─► answers, drawn here (`rollout.sample`) or by a server (`generation.Drawing`)
            ─► look by the frozen base: reference log-probs, features, states below the adapters ─► rewards
            ─► of a server's answers: log-probs, values and entropies by the policy's own pass, and how far the
               server's log-probs are from them (`generation.agreement`)

Shapes: N answers, T tokens, K real tokens of a micro-batch laid end to end, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.core.generation import Agreement, Drawing, agreement, as_rollouts, require_agreement, seeds_for
from trainer.core.losses import CHUNK_TOKENS, log_softmax, selected_log_probs
from trainer.core.lower_states import ByGroup, placed
from trainer.core.models import Policy
from trainer.core.packing import Group, Packed, group_answers, in_step, micro_batches, pack
from trainer.core.parallel import ALONE, Peers, own_groups, sample_together
from trainer.core.ppo_config import PPOConfig
from trainer.core.rewards import Reward, rewards_of
from trainer.core.rollout import Rollouts, look


@dataclass(frozen=True)
class Batch:
    """Rollouts with all that the update needs of them."""

    rollouts: Rollouts
    scores_N: Tensor
    kl_N: Tensor
    log_ratio_NT: Tensor
    features_NF: Tensor
    lower: ByGroup
    """States below the adapters."""
    agreement: Agreement | None = None
    """With the server that drew the answers; None where they were drawn here."""

    @property
    def kl(self) -> float:
        return float(self.kl_N.mean())

    @property
    def reward(self) -> float:
        return float(self.scores_N.mean())


def collect(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    config: PPOConfig,
    generator: torch.Generator,
    *,
    peers: Peers = ALONE,
    drawing: Drawing | None = None,
) -> Batch:
    """Sample answers, here or by `drawing`, and let the frozen base look at them.

    Of several processes each samples and looks at its own answers; the batch is whole in all of them, but for the
    states below the adapters, which stay where they were made.
    """
    rollouts, server_NT = _drawn(policy, prompts, config, generator, peers, drawing)
    answers = rollouts.answers()
    mine = own_groups(peers, group_answers(rollouts.prompts, answers))
    looked = look(
        policy.lm,
        rollouts.prompts,
        answers,
        temperature=config.sampling.temperature,
        max_tokens=config.micro_batch_tokens,
        keep_lower=True,
        groups=mine,
        lower=rollouts.lower,
    )
    peers.sum(looked.log_probs_NT, looked.features_NF)
    width = looked.log_probs_NT.shape[1]
    cut = replace(
        rollouts,
        tokens_NT=rollouts.tokens_NT[:, :width],
        mask_NT=rollouts.mask_NT[:, :width],
        log_probs_NT=rollouts.log_probs_NT[:, :width],
        values_NT=rollouts.values_NT[:, :width],
        entropies_NT=rollouts.entropies_NT[:, :width],
        lower=None,
    )
    found = None
    if server_NT is not None:
        cut = _recomputed(policy, cut, mine, looked.lower, config)
        peers.sum(cut.log_probs_NT, cut.values_NT, cut.entropies_NT)
        base_NT = looked.log_probs_NT
        found = agreement(server_NT, cut.log_probs_NT, base_NT, cut.mask_NT, cap=config.importance_cap)
        require_agreement(found, config.mismatch_limit)
    if config.critic == "separate":
        cut = replace(cut, values_NT=_values(policy, cut, mine, looked.lower, config.micro_batch_tokens))
        peers.sum(cut.values_NT)
    log_ratio_NT = (cut.log_probs_NT - looked.log_probs_NT) * cut.mask_NT
    scores_N = peers.told(lambda: rewards_of(reward, policy.lm, looked.features_NF, cut.prompts, answers).cpu())
    scores_N = scores_N.to(log_ratio_NT.device)
    return Batch(cut, scores_N, log_ratio_NT.sum(1), log_ratio_NT, looked.features_NF, looked.lower, found)


def _drawn(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    config: PPOConfig,
    generator: torch.Generator,
    peers: Peers,
    drawing: Drawing | None,
) -> tuple[Rollouts, Tensor | None]:
    """Answers, and a server's log-probs N,T of them."""
    each = config.answers_per_prompt
    if drawing is None:
        return sample_together(policy, prompts, each, config.sampling, generator, peers), None
    seeds = seeds_for(prompts, generator)
    drawn = peers.told(lambda: drawing(policy, prompts, each, config.sampling, seeds))
    return as_rollouts(policy, prompts, each, drawn)


@torch.no_grad()
def _recomputed(
    policy: Policy, rollouts: Rollouts, mine: Sequence[Group], lower: ByGroup, config: PPOConfig
) -> Rollouts:
    """A server's rollouts with the policy's own log-probs, values and entropies where answers are `mine`."""
    temperature, lm = config.sampling.temperature, policy.lm
    log_probs_NT, values_NT, entropies_NT = (torch.zeros_like(rollouts.log_probs_NT) for _ in range(3))
    batches = micro_batches(mine, config.micro_batch_tokens)
    for groups, counts in in_step(batches, lm.rounds(len(batches))):
        laid = Laid.out(policy, groups, lower, counts=counts)
        states_KD = laid.states(policy)
        if not counts:
            continue
        log_probs_NT[laid.at] = selected_log_probs(states_KD, lm.head_weight(), laid.tokens, temperature)
        values_NT[laid.at] = policy.values(states_KD)
        entropies = [_entropies(lm.logits(states), temperature) for states in states_KD.split(CHUNK_TOKENS)]
        entropies_NT[laid.at] = torch.cat(entropies)
    return replace(rollouts, log_probs_NT=log_probs_NT, values_NT=values_NT, entropies_NT=entropies_NT)


def _entropies(logits_KV: Tensor, temperature: float) -> Tensor:
    log_probs_KV = log_softmax(logits_KV, temperature)
    return -(log_probs_KV.exp() * log_probs_KV).sum(1)


@torch.no_grad()
def _values(policy: Policy, rollouts: Rollouts, mine: Sequence[Group], lower: ByGroup, max_tokens: int) -> Tensor:
    """Values N,T of a separate critic, whose states decoding does not give, where answers are `mine`."""
    values_NT = torch.zeros_like(rollouts.values_NT)
    batches = micro_batches(mine, max_tokens)
    for groups, counts in in_step(batches, policy.lm.rounds(len(batches))):
        laid = Laid.out(policy, groups, lower, counts=counts)
        with policy.valuing():
            values_K = policy.values(laid.states(policy))
        if counts:
            values_NT[laid.at] = values_K
    return values_NT


@dataclass(frozen=True)
class Laid:
    """A micro-batch laid out as rows, with the states below the adapters where they are known."""

    packed: Packed
    lower_RLD: Tensor | None
    real: tuple[Tensor, Tensor]
    """Answer (of the micro-batch) and token of each of the K real tokens."""

    @classmethod
    def out(cls, policy: Policy, groups: list[Group], lower: ByGroup, *, counts: bool = True) -> "Laid":
        """`counts` is False for an idle micro-batch (`trainer.core.packing.in_step`), whose states nobody knows."""
        lm = policy.lm
        packed = pack(groups, pad_id=lm.pad_id, device=lm.device)
        known = bool(lower) if counts else lm.split > 0
        lower_RLD = placed(lm, groups, packed, lower, counts=counts) if known else None
        row_K, column_K = packed.mask_NT.nonzero(as_tuple=True)
        return cls(packed, lower_RLD, (row_K, column_K))

    @property
    def at(self) -> tuple[Tensor, Tensor]:
        """Where (answer, token) the K real tokens stand in the batch."""
        return self.packed.indices_N[self.real[0]], self.real[1]

    @property
    def tokens(self) -> Tensor:
        """The real tokens."""
        return self.packed.tokens_RL.flatten()[self.packed.places_NT[self.real]]

    def states(self, policy: Policy) -> Tensor:
        """Final states K,D that predict the real tokens, of the trunk as it is switched now."""
        packed = self.packed
        states_RLD = policy.lm.states(
            packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL, lower_BTD=self.lower_RLD
        )[-1]
        return states_RLD.flatten(0, 1)[packed.sources_NT[self.real]]
