"""PPO on whole answers, with a LoRA policy and its own frozen base as reference.

Implemented (sources in `trainer.core.losses`):
- one trunk for policy, value, reference and reward features; the reference is the adapter switched off;
- rollouts at one temperature without top-k and top-p, log-probs and values kept from decoding;
- per-token KL penalty in the reward with adaptive beta; score at the last token; a fine for a missing EOS;
- a score counts relative to the other answers to its prompt (leave one out), so that hard prompts are no bad news;
- GAE with gamma 1 and lambda 0.95; advantages whitened over the batch, under the mask, after the returns are made;
- clip, dual clip, value clip; the loss is divided by the tokens of the whole optimizer step, not of a micro-batch;
- Adam with eps 1e-5 and linear decay; an epoch stops when it has moved further than `max_update_kl`;
- a KL budget against the base: a state beyond it is thrown away, the last one within it is kept, and training ends.
Left out on purpose: entropy bonus and PTX (short cycles on a frozen base don't collapse: see the experiment log), value
gradients into the trunk, KL in the loss (only its k2 form would have the right gradient).

Shapes: N answers, T tokens, K real tokens of a micro-batch laid end to end, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from trainer.core.checkpoint import Kept, Order, PPOState, copy_into, optimizer_state, restore_optimizer
from trainer.core.losses import AdaptiveKL, gae, policy_loss, selected_log_probs, token_rewards, value_loss, whiten
from trainer.core.models import Policy
from trainer.core.packing import Group, group_answers, micro_batches, pack
from trainer.core.rollout import Rollouts, SamplingConfig, look, sample

SMALL_MODEL = 5_000_000
"""Parameters below which a model is a toy that needs (and can afford) more and larger steps."""


@dataclass(frozen=True)
class PPOConfig:
    """One cycle's training. The defaults are for SmolLM2-135M on two CPU cores; `for_size` has others.

    The presets and what they were measured to do, or were not, are in the experiment log.
    """

    iterations: int = 6
    prompts_per_iteration: int = 6
    answers_per_prompt: int = 8
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    epochs: int = 1
    minibatches: int = 6
    learning_rate: float = 3e-3
    value_learning_rate: float = 2e-3
    final_lr_share: float = 0.1
    """The learning rate falls linearly to this share of itself."""
    beta: float = 0.05
    """First KL coefficient, in normalized reward per nat."""
    target_kl: float = 5.0
    """Nats an answer that adaptive beta steers towards."""
    kl_horizon: float = 4096.0
    kl_budget: float = 8.0
    """Nats an answer against the base that no measured state may exceed and be kept, but the one started from."""
    missing_eos_penalty: float = 0.5
    """Taken off the normalized reward of an answer that ran into the token limit."""
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    max_update_kl: float = 0.05
    """Mean k3 KL per token between old and new policy at which an epoch is cut short."""
    max_grad_norm: float = 1.0
    closing_prompts: int = 6
    """Prompts of the last look, which measures the final state; with 0 the last update goes unmeasured."""
    micro_batch_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.minibatches <= self.prompts_per_iteration:
            raise ValueError("minibatches must be between 1 and prompts_per_iteration")
        if self.answers_per_prompt < 2:
            raise ValueError("answers_per_prompt must be 2 at least: each answer is compared with the others")

    @classmethod
    def for_size(cls, n_parameters: int) -> "PPOConfig":
        """Defaults by the size of the base model."""
        if n_parameters > SMALL_MODEL:
            return cls()
        return cls(
            iterations=16,
            prompts_per_iteration=8,
            epochs=2,
            minibatches=2,
            closing_prompts=8,
            learning_rate=3e-3,
            beta=0.15,
            kl_budget=6.0,
            sampling=SamplingConfig(max_new_tokens=24, temperature=0.8),
        )


@dataclass(frozen=True)
class PPOStep:
    """What one iteration saw and did. Rollout figures are those before the update; KL in nats."""

    iteration: int
    reward: float
    """Mean normalized reward, without KL and fines."""
    kl: float
    """Mean of sum(log pi - log pi_ref) over an answer."""
    beta: float
    entropy: float
    length: float
    finished: float
    """Share of answers that ended with EOS."""
    clip_fraction: float
    update_kl: float
    value_loss: float
    grad_norm: float
    optimizer_steps: int
    first_ratio: float
    """Mean probability ratio of the first micro-batch; 1 unless decoding and training disagree."""
    tokens: int


@dataclass(frozen=True)
class PPOReport:
    """How a training went. `stopped` is why it ended; `kl` and `reward` are of the state that was kept."""

    steps: tuple[PPOStep, ...]
    stopped: str
    kl: float
    reward: float
    first_reward: float
    optimizer_steps: int
    answers: int
    tokens: int


@dataclass(frozen=True)
class _Batch:
    """Rollouts with all that the update needs of them."""

    rollouts: Rollouts
    scores_N: Tensor
    kl_N: Tensor
    log_ratio_NT: Tensor

    @property
    def kl(self) -> float:
        return float(self.kl_N.mean())

    @property
    def reward(self) -> float:
        return float(self.scores_N.mean())


State = PPOState[PPOStep, AdaptiveKL]


def improve(
    policy: Policy,
    reward: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    config: PPOConfig,
    *,
    seed: int,
    on_step: Callable[[PPOStep], None] = lambda step: None,
    should_stop: Callable[[], str | None] = lambda: None,
    resume: State | None = None,
    on_state: Callable[[State], None] = lambda state: None,
) -> PPOReport:
    """Train `policy` in place to get more `reward` on `prompts` (token ids).

    `reward` maps features N,F (see `trainer.core.rollout.look`) to normalized rewards N. `should_stop` is asked before
    each iteration; a reason it returns ends the training early and becomes `stopped`. `on_state` is given what the
    training is after each iteration, and `resume` goes on from there to the same weights. Deterministic on the CPU
    for a seed and a number of threads.
    """
    generator = torch.Generator().manual_seed(seed)
    trainer = _Trainer(policy, config)
    control = AdaptiveKL(config.beta, config.target_kl, config.kl_horizon)
    order = Order(len(prompts), generator)
    steps: list[PPOStep] = []
    kept: Kept | None = None
    stopped = "done"
    if resume is not None:
        generator.set_state(resume.generator)
        order = Order(len(prompts), generator, resume.order)
        steps, control, kept = list(resume.steps), resume.control, resume.kept
        trainer.restore(resume)
    for iteration in range(resume.iteration if resume else 0, config.iterations):
        reason = should_stop()
        if reason is not None:
            stopped = reason
            break
        chosen = [prompts[i] for i in order.take(min(config.prompts_per_iteration, len(prompts)))]
        batch = collect(policy, reward, chosen, config, generator)
        if batch.kl > config.kl_budget and kept is not None:
            copy_into(trainer.parameters, kept.values)
            stopped = "kl_budget"
            break
        kept = Kept(tuple(p.detach().clone() for p in trainer.parameters), batch.kl, batch.reward)
        steps.append(trainer.update(batch, iteration, control.beta, generator))
        control = control.after(batch.kl, len(batch.scores_N))
        on_step(steps[-1])
        on_state(trainer.state(iteration + 1, generator, order, control, steps, kept))
    if kept is None:
        return PPOReport((), stopped, 0.0, 0.0, 0.0, 0, 0, 0)
    kl, rewarded = kept.kl, kept.reward
    if stopped != "kl_budget" and config.closing_prompts:
        chosen = [prompts[i] for i in order.take(min(config.closing_prompts, len(prompts)))]
        final = collect(policy, reward, chosen, config, generator)
        if final.kl > config.kl_budget:
            copy_into(trainer.parameters, kept.values)
            stopped = "kl_budget"
        else:
            kl, rewarded = final.kl, final.reward
    return PPOReport(
        steps=tuple(steps),
        stopped=stopped,
        kl=kl,
        reward=rewarded,
        first_reward=steps[0].reward,
        optimizer_steps=sum(s.optimizer_steps for s in steps),
        answers=len(steps) * config.prompts_per_iteration * config.answers_per_prompt,
        tokens=sum(s.tokens for s in steps),
    )


def collect(
    policy: Policy,
    reward: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    config: PPOConfig,
    generator: torch.Generator,
) -> _Batch:
    """Sample answers and let the frozen base look at them."""
    rollouts = sample(policy, prompts, config.answers_per_prompt, config.sampling, generator)
    looked = look(
        policy.lm,
        rollouts.prompts,
        rollouts.answers(),
        temperature=config.sampling.temperature,
        max_tokens=config.micro_batch_tokens,
    )
    width = looked.log_probs_NT.shape[1]
    cut = replace(
        rollouts,
        tokens_NT=rollouts.tokens_NT[:, :width],
        mask_NT=rollouts.mask_NT[:, :width],
        log_probs_NT=rollouts.log_probs_NT[:, :width],
        values_NT=rollouts.values_NT[:, :width],
        entropies_NT=rollouts.entropies_NT[:, :width],
    )
    log_ratio_NT = (cut.log_probs_NT - looked.log_probs_NT) * cut.mask_NT
    scores_N = reward(looked.features_NF).to(log_ratio_NT.device)
    return _Batch(cut, scores_N, log_ratio_NT.sum(1), log_ratio_NT)


def advantages(batch: _Batch, config: PPOConfig, beta: float) -> tuple[Tensor, Tensor]:
    """Whitened advantages N,T and returns N,T of a batch."""
    fined_N = batch.scores_N - config.missing_eos_penalty * (~batch.rollouts.finished_N)
    relative_N = leave_one_out(fined_N, config.answers_per_prompt)
    rewards_NT = token_rewards(batch.log_ratio_NT, relative_N, batch.rollouts.mask_NT, beta=beta)
    raw_NT, returns_NT = gae(
        rewards_NT, batch.rollouts.values_NT, batch.rollouts.mask_NT, gamma=config.gamma, lam=config.lam
    )
    return whiten(raw_NT, batch.rollouts.mask_NT), returns_NT


def leave_one_out(scores_N: Tensor, group: int) -> Tensor:
    """Scores minus the mean of the other answers to the same prompt (`group` answers stand together)."""
    scores_PG = scores_N.view(-1, group)
    others_PG = (scores_PG.sum(1, keepdim=True) - scores_PG) / (group - 1)
    return (scores_PG - others_PG).flatten()


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


class _Trainer:
    """The optimizer and the update of one training."""

    def __init__(self, policy: Policy, config: PPOConfig) -> None:
        self.policy, self.config = policy, config
        self.parameters = [*policy.adapter_parameters(), *policy.value_parameters()]
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy.adapter_parameters(), "lr": config.learning_rate},
                {"params": policy.value_parameters(), "lr": config.value_learning_rate},
            ],
            eps=1e-5,
        )

    def state(
        self,
        iteration: int,
        generator: torch.Generator,
        order: Order,
        control: AdaptiveKL,
        steps: Sequence[PPOStep],
        kept: Kept,
    ) -> State:
        """The training after `iteration` iterations."""
        optimizer = optimizer_state(self.optimizer, self.parameters)
        values = tuple(p.detach() for p in self.parameters)
        drawn, left = generator.get_state(), tuple(order.left)
        return PPOState(iteration, drawn, left, values, optimizer, control, tuple(steps), kept)

    def restore(self, state: State) -> None:
        """Parameters and optimizer as they were."""
        copy_into(self.parameters, state.parameters)
        restore_optimizer(self.optimizer, state.optimizer)

    def update(self, batch: _Batch, iteration: int, beta: float, generator: torch.Generator) -> PPOStep:
        """All epochs over one batch of rollouts."""
        config, rollouts = self.config, batch.rollouts
        self._set_learning_rate(1 - (1 - config.final_lr_share) * iteration / max(1, config.iterations - 1))
        advantages_NT, returns_NT = advantages(batch, config, beta)
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
        )

    def _set_learning_rate(self, share: float) -> None:
        rates = (self.config.learning_rate, self.config.value_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share

    def _epoch(
        self,
        groups: list[Group],
        batch: _Batch,
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
            self._step(minibatch, batch, advantages_NT, returns_NT, tally)
            kl = (tally.kl - before) / (tally.tokens - tokens_before)
            if kl > self.config.max_update_kl:
                break
        return kl

    def _step(
        self, minibatch: list[Group], batch: _Batch, advantages_NT: Tensor, returns_NT: Tensor, tally: _Tally
    ) -> None:
        """One optimizer step; gradients are gathered over micro-batches."""
        config, old = self.config, batch.rollouts
        rows = torch.tensor([i for g in minibatch for i in g.indices], device=old.mask_NT.device)
        n_tokens = int(old.mask_NT[rows].sum())
        self.optimizer.zero_grad(set_to_none=True)
        for groups in micro_batches(minibatch, config.micro_batch_tokens):
            new_K, values_K, at = self._forward(groups)
            old_K = old.log_probs_NT[at]
            surrogate = policy_loss(new_K, old_K, advantages_NT[at], clip=config.clip)
            value = value_loss(values_K, old.values_NT[at], returns_NT[at], clip=config.value_clip)
            ((surrogate.loss + config.value_coefficient * value) / n_tokens).backward()
            if tally.first_ratio != tally.first_ratio:
                tally.first_ratio = float((new_K - old_K).detach().exp().mean())
            tally.clipped += float(surrogate.clipped)
            tally.kl += float(surrogate.kl_sum)
            tally.value_loss += float(value.detach())
        tally.grad_norm += float(nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm))
        self.optimizer.step()
        tally.tokens += n_tokens
        tally.steps += 1

    def _forward(self, groups: list[Group]) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """New log-probs K, new values K, and where (answer, token) these stand in the batch."""
        lm = self.policy.lm
        packed = pack(groups, pad_id=lm.pad_id, device=lm.device)
        states_RLD = lm.states(packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL)[-1]
        row_K, column_K = packed.mask_NT.nonzero(as_tuple=True)
        states_KD = states_RLD.flatten(0, 1)[packed.sources_NT[row_K, column_K]]
        tokens_K = packed.tokens_RL.flatten()[packed.places_NT[row_K, column_K]]
        found = selected_log_probs(states_KD, lm.head_weight(), tokens_K, self.config.sampling.temperature)
        return found.log_probs, self.policy.values(states_KD), (packed.indices_N[row_K], column_K)
