"""PPO on whole answers, with a LoRA policy and its own frozen base as reference.

Implemented (sources in `trainer.core.losses`):
- one trunk for policy, value, reference and reward features; the reference is the adapter switched off;
- a critic on the policy's trunk, one with an adapter of its own, or none (RLOO: an answer is one action);
- an epoch begins above the layers that carry no adapter: what they make of the answers was kept from the look;
- rollouts at one temperature without top-k and top-p, log-probs and values kept from decoding;
- per-token KL penalty in the reward with adaptive beta; score at the last token; a fine for a missing EOS;
- a score counts relative to the other answers to its prompt (leave one out), so that hard prompts are no bad news;
- GAE with gamma 1 and lambda 0.95; advantages whitened over the batch, under the mask, after the returns are made;
- clip, dual clip, value clip; the loss is divided by the tokens of the whole optimizer step, not of a micro-batch;
- Adam with eps 1e-5 and linear decay; an epoch stops when it has moved further than `max_update_kl`;
- limits on KL to the base, KL to the parent, safety cost and length, each with a multiplier of its own
  (`trainer.core.constraints`); far beyond a KL limit the state is thrown away and training ends;
- the state that is kept is chosen among those within all limits by the judge (`trainer.core.candidates`);
- demonstrations mixed into every gradient (PTX, eq. 2 of InstructGPT, 2203.02155).
Left out on purpose: an entropy bonus (short cycles on a frozen base don't collapse: see the experiment log), value
gradients into the trunk, KL in the loss (only its k2 form would have the right gradient).

Shapes: N answers, T tokens, K real tokens of a micro-batch laid end to end, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from trainer.core.candidates import Candidate, Candidates
from trainer.core.constraints import Gains, Limit, Multiplier, broken, start, step, total, values
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
from trainer.core.models import Critic, Policy
from trainer.core.overseers import Costs, Demonstration, Limits, Overseers, costs_of, imitation_loss, priced
from trainer.core.packing import Group, Packed, group_answers, micro_batches, pack, place_rows
from trainer.core.rewards import Reward, rewards_of
from trainer.core.rollout import Rollouts, SamplingConfig, Tokens, look, sample

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
    critic: Critic = "shared"
    """"none" is RLOO: the other answers to the prompt are the baseline, and no value function is learned."""
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
    kl_parent_budget: float = 6.0
    """The same against the version that is served: how much users may notice at once."""
    safety_rise: float = 0.02
    """How far the mean safety cost may rise above the parent's, where there is a safety head."""
    length_drift: float = 0.5
    """Share by which the mean length may differ from the parent's."""
    gains: Gains = field(default_factory=Gains)
    limit_slack: float = 0.1
    """A measured mean is noisy: a state counts as within a limit up to this many of its scales above it."""
    hard_stop: float = 1.5
    """Times a KL budget: beyond it no multiplier is waited for."""
    patience: int = 4
    """Training ends when the judge clearly likes so many states in a row less than the best one; 0: never."""
    ptx_coefficient: float = 0.0
    """Weight of -log p of demonstrations (corrections that users wrote) beside the PPO loss."""
    ptx_batch: int = 8
    """Demonstrations in each optimizer step."""
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
    """Prompts of the last look, which measures the final state; with 0 that state is kept without being measured."""
    micro_batch_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.minibatches <= self.prompts_per_iteration:
            raise ValueError("minibatches must be between 1 and prompts_per_iteration")
        if self.answers_per_prompt < (2 if self.critic == "none" else 1):
            raise ValueError("answers_per_prompt must be 1 at least, 2 without a critic: one is the other's baseline")

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
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    """Mean costs by limit, each in its own unit."""
    multipliers: Mapping[str, float] = field(default_factory=dict[str, float])
    """What each limit weighed in this update."""
    judged: float | None = None
    """The judge's mean score; None without a judge."""


@dataclass(frozen=True)
class PPOReport:
    """How a training went. `stopped` is why it ended; `kl`, `reward` and `costs` are of the state that was kept."""

    steps: tuple[PPOStep, ...]
    stopped: str
    kl: float
    reward: float
    first_reward: float
    optimizer_steps: int
    answers: int
    tokens: int
    kept_iteration: int = 0
    """Updates that the kept state has had."""
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    multipliers: Mapping[str, float] = field(default_factory=dict[str, float])
    """As they were at the end."""


@dataclass(frozen=True)
class _Batch:
    """Rollouts with all that the update needs of them."""

    rollouts: Rollouts
    scores_N: Tensor
    kl_N: Tensor
    log_ratio_NT: Tensor
    features_NF: Tensor
    lower: Mapping[Tokens, Tensor]
    """States below the adapters; see `trainer.core.rollout.Looked`."""

    @property
    def kl(self) -> float:
        return float(self.kl_N.mean())


def improve(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    config: PPOConfig,
    *,
    seed: int,
    overseers: Overseers | None = None,
    on_step: Callable[[PPOStep], None] = lambda step: None,
    should_stop: Callable[[], str | None] = lambda: None,
) -> PPOReport:
    """Train `policy` in place to get more `reward` on `prompts` (token ids), within the limits of `config`.

    `reward` gives normalized rewards N, from features N,F (see `trainer.core.rollout.look`) or from the texts as well
    (`trainer.core.rewards`). `should_stop` is asked before
    each iteration; a reason it returns ends the training early and becomes `stopped`. Deterministic on the CPU
    for a seed and a number of threads.
    """
    run = _Run(policy, reward, prompts, config, seed=seed, overseers=overseers or Overseers())
    stopped = "done"
    for iteration in range(config.iterations):
        reason = should_stop() or run.look()
        if reason is not None:
            stopped = reason
            break
        run.update(iteration)
        on_step(run.steps[-1])
    else:
        if config.closing_prompts:
            stopped = run.look(closing=True) or stopped
    return run.end(stopped)


class _Run:
    """One training: rollouts, multipliers and the states it went through."""

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        prompts: Sequence[Sequence[int]],
        config: PPOConfig,
        *,
        seed: int,
        overseers: Overseers,
    ) -> None:
        self.policy, self.reward, self.prompts, self.config = policy, reward, prompts, config
        self.overseers = overseers
        self.generator = torch.Generator().manual_seed(seed)
        self.trainer = _Trainer(policy, config, overseers)
        self.control = AdaptiveKL(config.beta, config.target_kl, config.kl_horizon)
        self.limits = limits_of(config, overseers)
        self.multipliers = start(self.limits, config.gains)
        self.order = _endless(len(prompts), self.generator)
        self.candidates: Candidates[_Snapshot] = Candidates()
        self.steps: list[PPOStep] = []
        self.batch: _Batch | None = None
        self.costs = Costs({}, {}, {})

    def look(self, *, closing: bool = False) -> str | None:
        """Sample from the policy as it is and measure it; why training must end now, or None.

        A state that is far beyond a KL limit is no candidate: the ones before it are.
        """
        config = self.config
        n = config.closing_prompts if closing else config.prompts_per_iteration
        chosen = [self.prompts[next(self.order)] for _ in range(min(n, len(self.prompts)))]
        batch = collect(self.policy, self.reward, chosen, config, self.generator)
        costs = costs_of(
            self.policy,
            batch.rollouts,
            batch.log_ratio_NT,
            batch.features_NF,
            self.overseers,
            temperature=config.sampling.temperature,
            max_tokens=config.micro_batch_tokens,
        )
        if self.candidates.every and self._far_beyond(costs.means):
            return "kl_budget"
        self.batch, self.costs = batch, costs
        self.multipliers = step(self.multipliers, costs.means)
        self.candidates.add(self._candidate(batch, costs.means))
        return "judge_turned" if self.candidates.turned(config.patience) else None

    def update(self, iteration: int) -> None:
        """Learn from the batch that was looked at."""
        assert self.batch is not None
        made = self.trainer.update(
            self.batch, iteration, self.control.beta, self.generator, costs=self.costs, multipliers=self.multipliers
        )
        self.control = self.control.after(self.batch.kl, len(self.batch.scores_N))
        measured = self.candidates.every[-1]
        self.steps.append(
            replace(made, costs=measured.costs, multipliers=values(self.multipliers), judged=measured.judged)
        )

    def end(self, stopped: str) -> PPOReport:
        """Go back to the best state."""
        best = self.candidates.best()
        if best is None:
            # Not even the state it began with is within the limits; there is nothing better to go back to.
            best = min(self.candidates.every, key=lambda c: c.kl, default=None)
        if best is None:
            return PPOReport((), stopped, 0.0, 0.0, 0.0, 0, 0, 0)
        if self.config.closing_prompts or stopped != "done":
            best.state.restore()
        return PPOReport(
            steps=tuple(self.steps),
            stopped=stopped,
            kl=best.kl,
            reward=best.reward,
            first_reward=self.candidates.every[0].reward,
            optimizer_steps=sum(s.optimizer_steps for s in self.steps),
            answers=len(self.steps) * self.config.prompts_per_iteration * self.config.answers_per_prompt,
            tokens=sum(s.tokens for s in self.steps),
            kept_iteration=best.iteration,
            costs=best.costs,
            multipliers=values(self.multipliers),
        )

    def _far_beyond(self, costs: Mapping[str, float]) -> bool:
        hard = [replace(m, threshold=m.threshold * self.config.hard_stop) for m in self.limits if "kl" in m.name]
        return bool(broken(hard, costs))

    def _candidate(self, batch: _Batch, costs: Mapping[str, float]) -> Candidate["_Snapshot"]:
        judged_N = None if self.overseers.judge is None else self.overseers.judge(batch.features_NF)
        return Candidate(
            iteration=len(self.candidates.every),
            state=_Snapshot.take(self.policy),
            reward=float(batch.scores_N.mean()),
            kl=batch.kl,
            costs=costs,
            kept_limits=not broken(self.limits, costs, slack=self.config.limit_slack),
            judged=None if judged_N is None else float(judged_N.mean()),
            judged_error=0.0 if judged_N is None else float(judged_N.std(correction=0)) / len(judged_N) ** 0.5,
        )


def limits_of(config: PPOConfig, overseers: Overseers) -> tuple[Limit, ...]:
    """The limits that there is something to measure for."""
    return Limits(
        kl_base=config.kl_budget,
        kl_parent=None if overseers.parent is None else config.kl_parent_budget,
        safety=None if overseers.safety is None else overseers.safety_before + config.safety_rise,
        length=None if overseers.parent_length is None else config.length_drift,
    ).as_limits()


def _endless(n: int, generator: torch.Generator) -> Iterator[int]:
    """Numbers 0..n-1 in a new order each round."""
    if n < 1:
        raise ValueError("give at least one prompt to train on")
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


def collect(
    policy: Policy,
    reward: Reward,
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
        keep_lower=True,
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
    if config.critic == "separate":
        cut = replace(cut, values_NT=_values(policy, cut, looked.lower, config.micro_batch_tokens))
    log_ratio_NT = (cut.log_probs_NT - looked.log_probs_NT) * cut.mask_NT
    scores_N = rewards_of(reward, policy.lm, looked.features_NF, cut.prompts, cut.answers()).to(log_ratio_NT.device)
    return _Batch(cut, scores_N, log_ratio_NT.sum(1), log_ratio_NT, looked.features_NF, looked.lower)


@torch.no_grad()
def _values(policy: Policy, rollouts: Rollouts, lower: Mapping[Tokens, Tensor], max_tokens: int) -> Tensor:
    """Values N,T of a separate critic, whose states decoding does not give."""
    values_NT = torch.zeros_like(rollouts.values_NT)
    for groups in micro_batches(group_answers(rollouts.prompts, rollouts.answers()), max_tokens):
        laid = _Laid.out(policy, groups, lower)
        with policy.valuing():
            values_NT[laid.at] = policy.values(laid.states(policy))
    return values_NT


@dataclass(frozen=True)
class _Laid:
    """A micro-batch laid out as rows, with the states below the adapters where they are known."""

    packed: Packed
    lower_RLD: Tensor | None
    real: tuple[Tensor, Tensor]
    """Answer (of the micro-batch) and token of each of the K real tokens."""

    @classmethod
    def out(cls, policy: Policy, groups: list[Group], lower: Mapping[Tokens, Tensor]) -> "_Laid":
        packed = pack(groups, pad_id=policy.lm.pad_id, device=policy.lm.device)
        lower_RLD = place_rows([lower[g.indices] for g in groups], packed) if lower else None
        row_K, column_K = packed.mask_NT.nonzero(as_tuple=True)
        return cls(packed, lower_RLD, (row_K, column_K))

    @property
    def at(self) -> tuple[Tensor, Tensor]:
        """Where (answer, token) the K real tokens stand in the batch."""
        return self.packed.indices_N[self.real[0]], self.real[1]

    def states(self, policy: Policy) -> Tensor:
        """Final states K,D that predict the real tokens, of the trunk as it is switched now."""
        packed = self.packed
        states_RLD = policy.lm.states(
            packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL, lower_BTD=self.lower_RLD
        )[-1]
        return states_RLD.flatten(0, 1)[packed.sources_NT[self.real]]


def advantages(
    batch: _Batch,
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


class _Snapshot:
    """The trainable tensors as they were, to go back to."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.values = [p.detach().clone() for p in parameters]

    @classmethod
    def take(cls, policy: Policy) -> "_Snapshot":
        return cls([*policy.adapter_parameters(), *policy.value_parameters()])

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)


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

    def __init__(self, policy: Policy, config: PPOConfig, overseers: Overseers) -> None:
        if (policy.critic == "separate") != (config.critic == "separate"):
            raise ValueError(f"the policy's critic is {policy.critic!r} and the configuration's {config.critic!r}")
        self.policy, self.config, self.overseers = policy, config, overseers
        self.parameters = [*policy.adapter_parameters(), *policy.value_parameters()]
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy.adapter_parameters(), "lr": config.learning_rate},
                {"params": policy.value_parameters(), "lr": config.value_learning_rate},
            ],
            eps=1e-5,
        )

    def update(
        self,
        batch: _Batch,
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
        ):
            (config.ptx_coefficient * loss).backward()  # pyright: ignore[reportUnknownMemberType]

    def _step(
        self,
        minibatch: list[Group],
        batch: _Batch,
        advantages_NT: Tensor,
        returns_NT: Tensor,
        tally: _Tally,
        demonstrations: Sequence[Demonstration] = (),
    ) -> None:
        """One optimizer step; gradients are gathered over micro-batches."""
        config, old = self.config, batch.rollouts
        rows = torch.tensor([i for g in minibatch for i in g.indices], device=old.mask_NT.device)
        n_tokens = int(old.mask_NT[rows].sum())
        self.optimizer.zero_grad(set_to_none=True)
        for groups in micro_batches(minibatch, config.micro_batch_tokens):
            new_K, values_K, at = self._forward(groups, batch.lower)
            old_K = old.log_probs_NT[at]
            surrogate = policy_loss(new_K, old_K, advantages_NT[at], clip=config.clip)
            value = value_loss(values_K, old.values_NT[at], returns_NT[at], clip=config.value_clip)
            if config.critic == "none":
                value = torch.zeros_like(value)
            ((surrogate.loss + config.value_coefficient * value) / n_tokens).backward()
            if tally.first_ratio != tally.first_ratio:
                tally.first_ratio = float((new_K - old_K).detach().exp().mean())
            tally.clipped += float(surrogate.clipped)
            tally.kl += float(surrogate.kl_sum)
            tally.value_loss += float(value.detach())
        if demonstrations:
            self._imitate(demonstrations)
        tally.grad_norm += float(nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm))
        self.optimizer.step()
        tally.tokens += n_tokens
        tally.steps += 1

    def _forward(
        self, groups: list[Group], lower: Mapping[Tokens, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """New log-probs K, new values K, and where (answer, token) these stand in the batch."""
        policy = self.policy
        laid = _Laid.out(policy, groups, lower)
        states_KD = laid.states(policy)
        tokens_K = laid.packed.tokens_RL.flatten()[laid.packed.places_NT[laid.real]]
        new_K = selected_log_probs(states_KD, policy.lm.head_weight(), tokens_K, self.config.sampling.temperature)
        if self.config.critic == "none":
            return new_K, torch.zeros_like(new_K), laid.at
        if self.config.critic == "separate":
            with policy.valuing():
                states_KD = laid.states(policy)
        return new_K, policy.values(states_KD), laid.at
