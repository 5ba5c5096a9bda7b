"""A student learns from a teacher: first from the teacher's answers, then from its own, judged token by token.

    lessons (the teacher's best answers) ─► supervised: -log q and KL(teacher || student) at their tokens
    prompts ─► the student's own answers ─► on_policy:  divergence from the teacher at their tokens (GKD, 2306.13649)
    prompts set aside ─► looks: the gap both ways; the state with the least one is kept, and begins the next stage

Implemented: one optimizer step on freshly drawn answers, so that the on-policy stage is on-policy; a step's loss
divided by its tokens; warm-up and linear decay in each stage; gradient clipping; a training that goes on from a
`TrainState` to the same weights. No gradient goes through the sampling (as in GKD). Without a shared tokenizer there is
no teacher here: the supervised stage is cross-entropy alone, and there is no second one.
Left out on purpose: hidden-state and attention losses, which tie a student to its teacher's architecture.

Shapes: K real tokens laid end to end, N answers, D width.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer.core.checkpoint import Order, copy_into, optimizer_state, restore_optimizer
from trainer.core.distill_config import DistillConfig, DistillLook, Gap, StageName, StageReport
from trainer.core.distill_data import Lessons
from trainer.core.distill_losses import Head, distillation_loss, token_divergences
from trainer.core.losses import leave_one_out
from trainer.core.models import LanguageModel, Policy, Tokens
from trainer.core.packing import Group, group_answers, micro_batches, pack
from trainer.core.rollout import Rollouts, SamplingConfig, sample

Rewards = Callable[[Sequence[Tokens], Sequence[Tokens]], Tensor]
"""Normalized rewards N of the student's answers, aligned with their prompts."""


@dataclass(frozen=True)
class Pair:
    """A student with its weights that learn, and its teacher, which is None where they share no tokenizer."""

    student: Policy
    parameters: tuple[nn.Parameter, ...]
    teacher: Policy | None
    sampling: SamplingConfig


@dataclass(frozen=True)
class Batch:
    """Answers for one optimizer step. `nll_N` weighs -log q of an answer's tokens, `divergence` the teacher's part."""

    prompts: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]
    nll_N: Tensor
    divergence: float
    beta: float
    generated: int = 0
    rewards_N: Tensor | None = None


@dataclass(frozen=True)
class TrainState:
    """A stage after a look. The tensors are the training's own: write them before it goes on."""

    step: int
    generator: Tensor
    order: tuple[int, ...]
    parameters: tuple[Tensor, ...]
    optimizer: tuple[dict[str, Tensor], ...]
    best: tuple[Tensor, ...]
    """The state to keep; empty where the parameters are."""
    kept_step: int
    looks: tuple[DistillLook, ...]


@dataclass(frozen=True)
class Hooks:
    """Whom a stage tells: of every step (its share of the stage), of every look, of the state to go on from."""

    on_step: Callable[[float], None] = lambda share: None
    on_look: Callable[[DistillLook], None] = lambda look: None
    on_state: Callable[[TrainState], None] = lambda state: None


def learn_supervised(
    pair: Pair,
    lessons: Lessons,
    aside: Lessons,
    config: DistillConfig,
    *,
    seed: int,
    hooks: Hooks | None = None,
    resume: TrainState | None = None,
) -> StageReport:
    """Learn from the teacher's answers; the student is left in the state that came nearest to it."""
    n = len(lessons.answers)
    size = min(config.batch_answers, n)

    def draw(order: Order, generator: torch.Generator) -> Batch:
        rows = order.take(size)
        shared = pair.teacher is not None
        return Batch(
            tuple(lessons.prompts[i] for i in rows),
            tuple(lessons.answers[i] for i in rows),
            torch.full((size,), config.cross_entropy if shared else 1.0),
            1.0 if shared else 0.0,
            config.supervised_beta,
        )

    plan = _Plan("supervised", math.ceil(n * config.epochs / size), config.learning_rate, draw, n)
    return _Stage(pair, aside, config, plan, hooks or Hooks(), seed).run(resume)


def learn_on_policy(
    pair: Pair,
    prompts: Sequence[Tokens],
    aside: Lessons,
    config: DistillConfig,
    *,
    seed: int,
    rewards: Rewards | None = None,
    hooks: Hooks | None = None,
    resume: TrainState | None = None,
) -> StageReport:
    """Learn from the student's own answers; raises `ValueError` without a teacher, whose judgement is all there is."""
    if pair.teacher is None:
        raise ValueError("student and teacher share no tokenizer: the teacher can't judge the student's tokens")
    size, group = min(config.prompts_per_iteration, len(prompts)), config.answers_per_prompt

    def draw(order: Order, generator: torch.Generator) -> Batch:
        rollouts = sample(pair.student, [prompts[i] for i in order.take(size)], group, pair.sampling, generator)
        return own_answers(rollouts, config, rewards)

    rate = config.learning_rate * config.on_policy_lr_share
    plan = _Plan("on_policy", config.iterations, rate, draw, len(prompts))
    return _Stage(pair, aside, config, plan, hooks or Hooks(), seed).run(resume)


def own_answers(rollouts: Rollouts, config: DistillConfig, rewards: Rewards | None) -> Batch:
    """The student's answers as a batch: with a reward weight, REINFORCE against the prompt's other answers."""
    answers = tuple(rollouts.answers())
    weights_N, rewards_N = torch.zeros(len(answers)), None
    if rewards is not None:
        rewards_N = rewards(rollouts.prompts, answers)
        weights_N = config.reward_weight * leave_one_out(rewards_N, config.answers_per_prompt)
    generated = sum(map(len, answers))
    return Batch(rollouts.prompts, answers, weights_N, 1.0, config.beta, generated, rewards_N)


@torch.no_grad()
def measure_gap(pair: Pair, aside: Lessons, config: DistillConfig, *, seed: int) -> Gap:
    """The gap on prompts that are set aside; the student's own answers are drawn by `seed`, the same at each look.

    As many to a prompt as the teacher gave: of one each, the noise was larger than what a stage gains.
    """
    nll, forward, _ = _apart(pair, aside, config)
    if pair.teacher is None:
        return Gap(nll, None, None)
    prompts = list(dict.fromkeys(aside.prompts))
    generator = torch.Generator().manual_seed(seed)
    rollouts = sample(pair.student, prompts, config.answers, pair.sampling, generator)
    own = Lessons(rollouts.prompts, tuple(rollouts.answers()))
    return Gap(nll, forward, _apart(pair, own, config)[2])


def divergences(pair: Pair, lessons: Lessons, config: DistillConfig) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) and KL(student || teacher) N of each answer, the sum over its tokens; on the CPU."""
    found = torch.zeros(2, len(lessons.answers), dtype=torch.float64)
    assert pair.teacher is not None
    with torch.no_grad():
        for groups in micro_batches(group_answers(lessons.prompts, lessons.answers), config.micro_batch_tokens):
            student, _, answer_K = token_head(pair.student.lm, groups)
            teacher, _, _ = token_head(pair.teacher.lm, groups)
            for row, values_K in enumerate(token_divergences(student, teacher, temperature=pair.sampling.temperature)):
                found[row].index_add_(0, answer_K.cpu(), values_K.double().cpu())
    return found[0], found[1]


def _apart(pair: Pair, lessons: Lessons, config: DistillConfig) -> tuple[float, float, float]:
    """-log q, KL(teacher || student) and KL(student || teacher), each a token; the last two 0 without a teacher."""
    nll = 0.0
    for groups in micro_batches(group_answers(lessons.prompts, lessons.answers), config.micro_batch_tokens):
        head, tokens_K, _ = token_head(pair.student.lm, groups)
        none_K = torch.zeros(len(tokens_K), device=tokens_K.device)
        temperature = pair.sampling.temperature
        found = distillation_loss(head, tokens_K, None, nll_K=none_K, divergence=0, beta=0, temperature=temperature)
        nll += float(found.nll_K.double().sum())
    n_tokens = sum(map(len, lessons.answers))
    if pair.teacher is None:
        return nll / n_tokens, 0.0, 0.0
    forward_N, reverse_N = divergences(pair, lessons, config)
    return nll / n_tokens, float(forward_N.sum()) / n_tokens, float(reverse_N.sum()) / n_tokens


def token_head(lm: LanguageModel, groups: Sequence[Group]) -> tuple[Head, Tensor, Tensor]:
    """Final states at the groups' answer tokens with the output matrix, the tokens K, and the answer K of each."""
    packed = pack(groups, pad_id=lm.pad_id, device=lm.device)
    states = lm.states(packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL)[-1]
    row_K, column_K = packed.mask_NT.nonzero(as_tuple=True)
    tokens_K = packed.tokens_RL.flatten()[packed.places_NT[row_K, column_K]]
    states_KD = states.flatten(0, 1)[packed.sources_NT[row_K, column_K]]
    return Head(states_KD, lm.head_weight()), tokens_K, packed.indices_N[row_K]


def learning_rate(step: int, n_steps: int, peak: float, config: DistillConfig) -> float:
    """Of optimizer step `step` (from 0): a linear rise to `peak`, then a linear fall to its final share."""
    warmup = round(n_steps * config.warmup_share)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, n_steps - 1 - warmup)
    return peak * (1 - (1 - config.final_lr_share) * done)


@dataclass(frozen=True)
class _Plan:
    """What a stage does: so many steps at this peak rate, each on what `draw` gives; `n_items` are taken in turns."""

    name: StageName
    n_steps: int
    peak: float
    draw: Callable[[Order, torch.Generator], Batch]
    n_items: int

    def looks_at(self, checks: int) -> set[int]:
        """Steps before which the student is looked at: the first, then `checks` evenly to the end."""
        return {0, *(max(1, round(self.n_steps * n / checks)) for n in range(1, checks + 1))}


@dataclass
class _Since:
    """What happened since the last look."""

    loss: float = 0.0
    tokens: int = 0
    generated: int = 0
    grad_norm: float = 0.0
    rewards: list[float] = field(default_factory=list[float])
    lengths: list[int] = field(default_factory=list[int])


class _Stage:
    """One stage at work."""

    def __init__(self, pair: Pair, aside: Lessons, config: DistillConfig, plan: _Plan, hooks: Hooks, seed: int) -> None:
        self._pair, self._aside, self._config, self._plan, self._hooks = pair, aside, config, plan, hooks
        self._parameters = list(pair.parameters)
        self._optimizer = torch.optim.Adam(self._parameters, lr=plan.peak, betas=(0.9, 0.99), eps=1e-8)
        self._generator = torch.Generator().manual_seed(seed)
        self._seed, self._since = seed, _Since()
        self._order = Order(plan.n_items, self._generator)
        self._looks: list[DistillLook] = []
        self._best = [p.detach().clone() for p in self._parameters]
        self._kept_step = 0

    def run(self, resume: TrainState | None) -> StageReport:
        """From the start or from a state, to the best state."""
        first = self._restore(resume)
        looks_at = self._plan.looks_at(self._config.checks)
        stopped, step = "done", first
        while True:
            if step in looks_at:
                if resume is None or step > first:
                    self._look(step)
                if self._stuck():
                    stopped = "no_nearer"
                    break
            if step == self._plan.n_steps:
                break
            self._update(step)
            step += 1
            self._hooks.on_step(step / self._plan.n_steps)
        copy_into(self._parameters, self._best)
        kept = next(look for look in self._looks if look.step == self._kept_step)
        return StageReport(self._plan.name, stopped, step, self._kept_step, kept.gap, tuple(self._looks))

    def _look(self, step: int) -> None:
        pair, config, since = self._pair, self._config, self._since
        gap = measure_gap(pair, self._aside, config, seed=self._seed + 1)
        look = DistillLook(
            stage=self._plan.name,
            step=step,
            loss=since.loss / max(1, since.tokens),
            gap=gap,
            learning_rate=learning_rate(min(step, self._plan.n_steps - 1), self._plan.n_steps, self._plan.peak, config),
            grad_norm=since.grad_norm,
            reward=_mean(since.rewards),
            length=_mean(since.lengths),
            generated_tokens=since.generated,
            trained_tokens=since.tokens,
        )
        if not self._looks or gap.value < min(seen.gap.value for seen in self._looks):
            self._best = [p.detach().clone() for p in self._parameters]
            self._kept_step = step
        self._looks.append(look)
        self._since = _Since()
        self._hooks.on_look(look)
        if step:  # before the first one nothing has been learned that could be lost
            self._hooks.on_state(self._state(step))

    def _stuck(self) -> bool:
        """Whether the last looks all found it no nearer, or it is no number any more."""
        if not math.isfinite(self._looks[-1].gap.value):
            return True
        return sum(look.step > self._kept_step for look in self._looks) >= self._config.patience

    def _update(self, step: int) -> None:
        """One optimizer step."""
        config, since = self._config, self._since
        batch = self._plan.draw(self._order, self._generator)
        n_tokens = sum(map(len, batch.answers))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._plan.n_steps, self._plan.peak, config)
        self._optimizer.zero_grad(set_to_none=True)
        for groups in micro_batches(group_answers(batch.prompts, batch.answers), config.micro_batch_tokens):
            loss = self._loss(batch, groups) / n_tokens
            loss.backward()
            since.loss += float(loss.detach()) * n_tokens
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm)
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
        since.grad_norm = float(norm)
        since.tokens += n_tokens
        since.generated += batch.generated
        if batch.generated:
            since.lengths += [len(a) for a in batch.answers]
        if batch.rewards_N is not None:
            since.rewards += batch.rewards_N.tolist()

    def _loss(self, batch: Batch, groups: Sequence[Group]) -> Tensor:
        """Summed over the groups' tokens."""
        pair = self._pair
        student, tokens_K, answer_K = token_head(pair.student.lm, groups)
        teacher = None
        if pair.teacher is not None:
            with torch.no_grad():
                teacher, _, _ = token_head(pair.teacher.lm, groups)
        return distillation_loss(
            student,
            tokens_K,
            teacher,
            nll_K=batch.nll_N.to(answer_K.device)[answer_K],
            divergence=batch.divergence,
            beta=batch.beta,
            temperature=pair.sampling.temperature,
        ).loss

    def _state(self, step: int) -> TrainState:
        return TrainState(
            step=step,
            generator=self._generator.get_state(),
            order=tuple(self._order.left),
            parameters=tuple(p.detach() for p in self._parameters),
            optimizer=optimizer_state(self._optimizer, self._parameters),
            best=() if self._kept_step == step else tuple(self._best),
            kept_step=self._kept_step,
            looks=tuple(self._looks),
        )

    def _restore(self, state: TrainState | None) -> int:
        if state is None:
            return 0
        copy_into(self._parameters, state.parameters)
        restore_optimizer(self._optimizer, state.optimizer)
        self._generator.set_state(state.generator)
        self._order = Order(self._plan.n_items, self._generator, state.order)
        best = state.best or state.parameters
        self._best = [b.to(p.device, copy=True) for b, p in zip(best, self._parameters, strict=True)]
        self._kept_step, self._looks = state.kept_step, list(state.looks)
        return state.step


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
