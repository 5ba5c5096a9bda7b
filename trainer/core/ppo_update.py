"""One iteration's update: advantages of a batch (`trainer.core.collecting`), epochs, optimizer steps.

What is implemented is listed in `trainer.core.ppo`.

Shapes: N answers, T tokens, K real tokens of a micro-batch laid end to end, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainer.core.checkpoint import PPOState, copy_into, restore_optimizer
from trainer.core.collecting import Batch, Laid
from trainer.core.constraints import Multiplier, total
from trainer.core.losses import (
    AdaptiveKL,
    gae,
    leave_one_out,
    policy_loss,
    rloo,
    selected_log_probs,
    token_rewards,
    value_loss,
    whiten,
)
from trainer.core.lower_states import ByGroup
from trainer.core.models import Policy
from trainer.core.overseers import Costs, Demonstration, Overseers, imitation_loss, priced
from trainer.core.packing import Group, group_answers, in_step, micro_batches
from trainer.core.parallel import ALONE, Peers, own_groups, sum_gradients
from trainer.core.ppo_config import PPOConfig, PPOStep

State = PPOState[PPOStep, AdaptiveKL]


def advantages(
    batch: Batch,
    config: PPOConfig,
    beta: float,
    *,
    costs: Costs | None = None,
    multipliers: Sequence[Multiplier] = (),
) -> tuple[Tensor, Tensor]:
    """Whitened advantages N,T and returns N,T of a batch, costs by their multipliers taken off the rewards.

    Without a critic the advantages are those of RLOO, as they are, and the returns zero.
    """
    fined_N = batch.scores_N - config.missing_eos_penalty * (~batch.rollouts.finished_N)
    priced_N, penalty_NT = priced(fined_N, batch.log_ratio_NT, costs or Costs({}, {}, {}), multipliers, beta=beta)
    if config.critic == "none":
        group = config.answers_per_prompt
        rloo_NT = rloo(penalty_NT, priced_N, batch.rollouts.mask_NT, beta=1.0, group=group) / total(multipliers)
        return rloo_NT, torch.zeros_like(rloo_NT)
    relative_N = leave_one_out(priced_N, config.answers_per_prompt)
    rewards_NT = token_rewards(penalty_NT, relative_N, batch.rollouts.mask_NT, beta=1.0) / total(multipliers)
    raw_NT, returns_NT = gae(
        rewards_NT, batch.rollouts.values_NT, batch.rollouts.mask_NT, gamma=config.gamma, lam=config.lam
    )
    return whiten(raw_NT, batch.rollouts.mask_NT), returns_NT


@dataclass
class _Tally:
    """Sums over the real tokens of an iteration's optimizer steps."""

    tokens: int = 0
    clipped: float = 0.0
    kl: float = 0.0
    value_loss: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    first_ratio: float = float("nan")
    first_tokens: int = 0

    def add(self, before: "_Tally", peers: Peers) -> None:
        """Add what the other processes have counted in a step that began with `before`."""
        if peers.size == 1:
            return
        first = self.first_ratio * self.first_tokens if self.first_tokens else 0.0
        new = (self.clipped - before.clipped, self.kl - before.kl, self.value_loss - before.value_loss)
        counted = torch.tensor([*new, first, self.first_tokens], dtype=torch.float64)
        peers.sum(counted)
        clipped, kl, value_loss, first, tokens = counted.tolist()
        self.clipped, self.kl = before.clipped + clipped, before.kl + kl
        self.value_loss = before.value_loss + value_loss
        if not self.steps:
            self.first_ratio = first / tokens


class Trainer:
    """The optimizer and the update of one training."""

    def __init__(self, policy: Policy, config: PPOConfig, overseers: Overseers, peers: Peers = ALONE) -> None:
        if (policy.critic == "separate") != (config.critic == "separate"):
            raise ValueError(f"the policy's critic is {policy.critic!r} and the configuration's {config.critic!r}")
        self.policy, self.config, self.overseers, self.peers = policy, config, overseers, peers
        self.parameters = [*policy.adapter_parameters(), *policy.value_parameters()]
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy.adapter_parameters(), "lr": config.learning_rate},
                {"params": policy.value_parameters(), "lr": config.value_learning_rate},
            ],
            eps=1e-5,
        )

    def restore(self, state: State) -> None:
        """Parameters and optimizer as they were."""
        copy_into(self.parameters, state.parameters)
        restore_optimizer(self.optimizer, state.optimizer)

    def update(
        self,
        batch: Batch,
        iteration: int,
        beta: float,
        generator: torch.Generator,
        *,
        costs: Costs | None = None,
        multipliers: Sequence[Multiplier] = (),
    ) -> PPOStep:
        """All epochs over one batch of rollouts."""
        config, rollouts = self.config, batch.rollouts
        self._set_learning_rate(1 - (1 - config.final_lr_share) * iteration / max(1, config.iterations - 1))
        advantages_NT, returns_NT = advantages(batch, config, beta, costs=costs, multipliers=multipliers)
        if batch.agreement is not None:
            # Both clips are linear in the size of the advantage, so this weighs the whole loss of a token.
            advantages_NT = advantages_NT * batch.agreement.weights_NT
        groups = group_answers(rollouts.prompts, rollouts.answers())
        tally = _Tally()
        for _ in range(config.epochs):
            if self._epoch(groups, batch, advantages_NT, returns_NT, tally, generator) > config.max_update_kl:
                break
        mask = rollouts.mask_NT
        return PPOStep(
            iteration=iteration,
            reward=float(batch.scores_N.mean()),
            kl=batch.kl,
            beta=beta,
            entropy=float(rollouts.entropies_NT[mask].mean()),
            length=float(mask.sum(1).float().mean()),
            finished=float(rollouts.finished_N.float().mean()),
            clip_fraction=tally.clipped / tally.tokens,
            update_kl=tally.kl / tally.tokens,
            value_loss=tally.value_loss / tally.tokens,
            grad_norm=tally.grad_norm / tally.steps,
            optimizer_steps=tally.steps,
            first_ratio=tally.first_ratio,
            tokens=int(mask.sum()),
            mismatch=None if batch.agreement is None else batch.agreement.mismatch,
            importance=None if batch.agreement is None else batch.agreement.weight,
        )

    def _set_learning_rate(self, share: float) -> None:
        rates = (self.config.learning_rate, self.config.value_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share

    def _epoch(
        self,
        groups: list[Group],
        batch: Batch,
        advantages_NT: Tensor,
        returns_NT: Tensor,
        tally: _Tally,
        generator: torch.Generator,
    ) -> float:
        """One pass over the batch; returns the mean k3 KL of its last minibatch."""
        order = torch.randperm(len(groups), generator=generator)
        kl = 0.0
        for part in order.chunk(self.config.minibatches):
            minibatch = [groups[i] for i in part.tolist()]
            before, tokens_before = tally.kl, tally.tokens
            self._step(minibatch, batch, advantages_NT, returns_NT, tally, self._demonstrations(generator))
            kl = (tally.kl - before) / (tally.tokens - tokens_before)
            if kl > self.config.max_update_kl:
                break
        return kl

    def _demonstrations(self, generator: torch.Generator) -> list[Demonstration]:
        """Those of one optimizer step; none, and no random number used, where they weigh nothing."""
        known, config = self.overseers.demonstrations, self.config
        if not known or not config.ptx_coefficient:
            return []
        drawn = torch.randperm(len(known), generator=generator)[: config.ptx_batch]
        return [known[i] for i in drawn.tolist()]

    def _imitate(self, demonstrations: Sequence[Demonstration]) -> None:
        """Add the gradient of demonstrations to that of the step."""
        config = self.config
        for loss in imitation_loss(
            self.policy,
            demonstrations,
            temperature=config.sampling.temperature,
            max_tokens=config.micro_batch_tokens,
            peers=self.peers,
        ):
            (config.ptx_coefficient * loss).backward()  # pyright: ignore[reportUnknownMemberType]

    def _step(
        self,
        minibatch: list[Group],
        batch: Batch,
        advantages_NT: Tensor,
        returns_NT: Tensor,
        tally: _Tally,
        demonstrations: Sequence[Demonstration] = (),
    ) -> None:
        """One optimizer step; gradients are gathered over micro-batches and processes."""
        config, old, before = self.config, batch.rollouts, replace(tally)
        rows = torch.tensor([i for g in minibatch for i in g.indices], device=old.mask_NT.device)
        n_tokens = int(old.mask_NT[rows].sum())
        self.optimizer.zero_grad(set_to_none=True)
        batches = micro_batches(own_groups(self.peers, minibatch), config.micro_batch_tokens)
        for groups, counts in in_step(batches, self.policy.lm.rounds(len(batches))):
            new_K, values_K, at = self._forward(groups, batch.lower, counts=counts)
            if not counts:
                ((new_K.sum() + values_K.sum()) * 0).backward()
                continue
            old_K = old.log_probs_NT[at]
            surrogate = policy_loss(new_K, old_K, advantages_NT[at], clip=config.clip)
            value = value_loss(values_K, old.values_NT[at], returns_NT[at], clip=config.value_clip)
            if config.critic == "none":
                value = torch.zeros_like(value)
            ((surrogate.loss + config.value_coefficient * value) / n_tokens).backward()
            if tally.first_ratio != tally.first_ratio:
                tally.first_ratio = float((new_K - old_K).detach().exp().mean())
                tally.first_tokens = len(new_K)
            tally.clipped += float(surrogate.clipped)
            tally.kl += float(surrogate.kl_sum)
            tally.value_loss += float(value.detach())
        if demonstrations:
            self._imitate(demonstrations)
        sum_gradients(self.peers, self.parameters)
        tally.add(before, self.peers)
        tally.grad_norm += float(nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm))
        self.optimizer.step()
        tally.tokens += n_tokens
        tally.steps += 1

    def _forward(
        self, groups: list[Group], lower: ByGroup, *, counts: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """New log-probs K, new values K, and where (answer, token) these stand in the batch."""
        policy = self.policy
        laid = Laid.out(policy, groups, lower, counts=counts)
        states_KD = laid.states(policy)
        new_K = selected_log_probs(states_KD, policy.lm.head_weight(), laid.tokens, self.config.sampling.temperature)
        if self.config.critic == "none":
            return new_K, torch.zeros_like(new_K), laid.at
        if self.config.critic == "separate":
            with policy.valuing():
                states_KD = laid.states(policy)
        return new_K, policy.values(states_KD), laid.at
