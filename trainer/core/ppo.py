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
- limits on KL to the base, KL to the parent, safety cost, length and sameness, each with a multiplier of its own
  (`trainer.core.constraints`); far beyond a KL limit the state is thrown away and training ends;
- the state that is kept is chosen among those within all limits by the judge (`trainer.core.candidates`);
- demonstrations mixed into every gradient (PTX, eq. 2 of InstructGPT, 2203.02155).
Left out on purpose: an entropy bonus (short cycles on a frozen base don't collapse: see the experiment log), value
gradients into the trunk, KL in the loss (only its k2 form would have the right gradient).

Shapes: N answers, T tokens, K real tokens of a micro-batch laid end to end, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer.core.candidates import Candidate, Candidates
from trainer.core.checkpoint import Order, PPOState, copy_into, optimizer_state
from trainer.core.collecting import Batch, collect
from trainer.core.constraints import Limit, broken, start, step, values
from trainer.core.generation import Drawing
from trainer.core.losses import AdaptiveKL
from trainer.core.models import Policy
from trainer.core.overseers import Costs, Limits, Overseers, costs_of
from trainer.core.parallel import ALONE, Peers
from trainer.core.ppo_config import PPOConfig, PPOReport, PPOStep
from trainer.core.ppo_update import State, Trainer
from trainer.core.rewards import Reward

Values = tuple[Tensor, ...]
"""The trainable tensors: adapter, then value head."""


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
    resume: State | None = None,
    on_state: Callable[[State], None] = lambda state: None,
    peers: Peers = ALONE,
    drawing: Drawing | None = None,
) -> PPOReport:
    """Train `policy` in place to get more `reward` on `prompts` (token ids), within the limits of `config`.

    `reward` gives normalized rewards N, from features N,F (see `trainer.core.rollout.look`) or from the texts as well
    (`trainer.core.rewards`). `should_stop` is asked before each iteration; a reason it returns ends the training early
    and becomes `stopped`. `on_state` is given what the training is after each iteration, and `resume` goes on from
    there to the same weights. Deterministic on the CPU for a seed, a number of threads and a number of processes.

    With `peers` all of them call this with the same arguments and share the work (`trainer.core.parallel`); `reward`,
    `should_stop`, `on_step` and `on_state` are asked and told in process 0 alone. `drawing` is a server that draws the
    answers (`trainer.core.generation`); of several processes 0 asks it.
    """
    run = _Run(policy, reward, prompts, config, seed=seed, overseers=overseers or Overseers(), peers=peers)
    run.drawing = drawing
    if resume is not None:
        run.restore(resume)
    stopped = "done"
    for iteration in range(resume.iteration if resume else 0, config.iterations):
        reason = peers.told(should_stop) or run.look()
        if reason is not None:
            stopped = reason
            break
        run.update(iteration)
        if peers.rank == 0:
            on_step(run.steps[-1])
            on_state(run.state(iteration + 1))
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
        peers: Peers,
    ) -> None:
        self.policy, self.reward, self.prompts, self.config = policy, reward, prompts, config
        self.overseers, self.peers = overseers, peers
        self.generator = torch.Generator().manual_seed(seed)
        self.trainer = Trainer(policy, config, overseers, peers)
        self.control = AdaptiveKL(config.beta, config.target_kl, config.kl_horizon)
        self.limits = limits_of(config, overseers)
        self.multipliers = start(self.limits, config.gains)
        self.order = Order(len(prompts), self.generator)
        self.candidates: Candidates[Values] = Candidates()
        self.steps: list[PPOStep] = []
        self.batch: Batch | None = None
        self.drawing: Drawing | None = None
        self.costs = Costs({}, {}, {})

    def state(self, iteration: int) -> State:
        """Everything that the next iteration depends on."""
        parameters = self.trainer.parameters
        return PPOState(
            iteration=iteration,
            generator=self.generator.get_state(),
            order=tuple(self.order.left),
            parameters=tuple(p.detach() for p in parameters),
            optimizer=optimizer_state(self.trainer.optimizer, parameters),
            control=self.control,
            steps=tuple(self.steps),
            multipliers=self.multipliers,
            candidates=tuple(self.candidates.every),
        )

    def restore(self, state: State) -> None:
        """Become what the training was then."""
        self.generator.set_state(state.generator)
        self.order = Order(len(self.prompts), self.generator, state.order)
        self.trainer.restore(state)
        self.control, self.steps, self.multipliers = state.control, list(state.steps), state.multipliers
        self.candidates = Candidates(list(state.candidates))

    def look(self, *, closing: bool = False) -> str | None:
        """Sample from the policy as it is and measure it; why training must end now, or None.

        A state that is far beyond a KL limit is no candidate: the ones before it are.
        """
        config = self.config
        n = config.closing_prompts if closing else config.prompts_per_iteration
        chosen = [self.prompts[i] for i in self.order.take(min(n, len(self.prompts)))]
        batch = collect(
            self.policy, self.reward, chosen, config, self.generator, peers=self.peers, drawing=self.drawing
        )
        costs = costs_of(
            self.policy,
            batch.rollouts,
            batch.log_ratio_NT,
            batch.features_NF,
            self.overseers,
            temperature=config.sampling.temperature,
            max_tokens=config.micro_batch_tokens,
            peers=self.peers,
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
            copy_into(self.trainer.parameters, best.state)
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

    def _candidate(self, batch: Batch, costs: Mapping[str, float]) -> Candidate[Values]:
        judged_N = None if self.overseers.judge is None else self.overseers.judge(batch.features_NF)
        return Candidate(
            iteration=len(self.candidates.every),
            state=tuple(p.detach().clone() for p in self.trainer.parameters),
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
        sameness=None if overseers.parent_sameness is None else overseers.parent_sameness + config.sameness_rise,
    ).as_limits()
