"""What a student learns from and how: the teacher's answers, the two stages, and what is kept of them on the way.

Shapes: N answers, F features.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.policies import Policy
from trainer.core.checkpoint import copy_into
from trainer.core.dataset import Dataset
from trainer.core.distill import Hooks, Pair, Rewards, TrainState, learn_on_policy, learn_supervised
from trainer.core.distill_config import DistillLook, StageName, StageReport
from trainer.core.distill_data import Lessons, best_of, set_aside
from trainer.core.domains import Traffic
from trainer.core.models import Tokens
from trainer.core.reward import RewardSignal
from trainer.core.reward_looks import DomainReward, normalized_signal, rated
from trainer.core.rollout import look, sample
from trainer.distill_records import Recipe
from trainer.distill_sources import Raters
from trainer.distill_steps import Step, Steps
from trainer.features import encode_prompt
from trainer.fitting import asked_by

PROMPTS_AT_ONCE = 16
SAVING_SHARE = 20
ANSWER_SEED, ON_POLICY_SEED = 7, 11
"""Apart from one another and from those of an evaluation: added to the seed times 1000."""


@dataclass(frozen=True)
class Part:
    """The teacher's answers to some prompts, those to one prompt together."""

    answers: tuple[Tokens, ...]
    features_NF: Tensor
    finished_N: Tensor


@dataclass(frozen=True)
class Taught:
    """All answers of the teacher to the training prompts, and their rewards as PPO would see them."""

    answers: tuple[Tokens, ...]
    finished_N: Tensor
    scores_N: Tensor
    signal: RewardSignal | DomainReward


@dataclass(frozen=True)
class Classroom:
    """One distillation's learning at work: what all its parts need. `shared`: both use the same tokens."""

    recipe: Recipe
    teacher: Policy
    student: Policy
    parameters: tuple[nn.Parameter, ...]
    shared: bool
    raters: Raters
    data: Dataset
    steps: Steps
    keep: Checkpoints
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def pair(self) -> Pair:
        """Student and teacher as the core sees them."""
        sampling = self.recipe.cycle.ppo.sampling
        return Pair(self.student, self.parameters, self.teacher if self.shared else None, sampling)


def teach(room: Classroom) -> Taught:
    """The teacher's answers to every training prompt, with their rewards; part by part, so that none is drawn twice."""
    prompts = [encode_prompt(room.teacher.lm, p, room.recipe.cycle.limits) for p in room.data.train_prompts]
    parts: list[Part] = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        some = prompts[start : start + PROMPTS_AT_ONCE]
        number = start // PROMPTS_AT_ONCE
        parts.append(
            room.keep.result(f"answers-{number}", lambda some=some, number=number: _answers(room, some, number))
        )
        room.steps.progress((start + len(some)) / len(prompts))
    config = room.recipe.cycle
    features_NF = torch.cat([part.features_NF for part in parts])
    finished_N = torch.cat([part.finished_N for part in parts])
    asked_for = [*room.data.train_prompts, *room.data.held_out_prompts]
    asked = asked_by(room.teacher.lm, asked_for, room.traffic, config.limits)
    each = [tuple(prompt) for prompt in prompts for _ in range(room.recipe.distill.answers)]
    signal = normalized_signal(room.raters.reward, config.reward, features_NF, each, asked)
    scores_N = rated(signal, features_NF, each) - config.ppo.missing_eos_penalty * (~finished_N).float()
    return Taught(tuple(a for part in parts for a in part.answers), finished_N, scores_N, signal)


def _answers(room: Classroom, prompts: list[list[int]], number: int) -> Part:
    seed = (room.recipe.cycle.seed + ANSWER_SEED) * 1000 + number
    sampling, group = room.recipe.cycle.ppo.sampling, room.recipe.distill.answers
    generator = torch.Generator().manual_seed(seed)
    rollouts = sample(room.teacher, prompts, group, sampling, generator, keep_lower=True)
    answers = tuple(rollouts.answers())
    looked = look(room.teacher.lm, rollouts.prompts, answers, log_probs_too=False, lower=rollouts.lower)
    room.steps.use(generated=sum(map(len, answers)))
    return Part(answers, looked.features_NF.cpu(), rollouts.finished_N.cpu())


def lessons_of(room: Classroom, taught: Taught) -> tuple[Lessons, Lessons]:
    """The best answers to most prompts, to learn from; and all answers to those that are set aside, to look at."""
    config, group = room.recipe.distill, room.recipe.distill.answers
    train, aside = set_aside(room.data.train_prompts, config.check_share, room.recipe.cycle.seed)
    rows = [n * group + g for n in train for g in range(group)]
    best = best_of(taught.scores_N[rows], [taught.answers[r] for r in rows], group=group, keep=config.keep)
    looked_at = [n * group + g for n in aside for g in range(group)]
    return _lessons(room, taught, [rows[n] for n in best]), _lessons(room, taught, looked_at)


def _lessons(room: Classroom, taught: Taught, rows: list[int]) -> Lessons:
    """Answers by their numbers, in the student's tokens. One that ran into the limit does not end there."""
    lm, group = room.student.lm, room.recipe.distill.answers
    encoded = [tuple(encode_prompt(lm, p, room.recipe.cycle.limits)) for p in room.data.train_prompts]
    answers = [taught.answers[row] for row in rows]
    if not room.shared:
        finished = taught.finished_N.tolist()
        texts = [room.teacher.lm.decode(answer) for answer in answers]
        whole = [tuple(lm.encode_completion(text)) for text in texts]
        answers = [ids if finished[row] or len(ids) == 1 else ids[:-1] for ids, row in zip(whole, rows, strict=True)]
    return Lessons(tuple(encoded[row // group] for row in rows), tuple(answers))


def learn(room: Classroom, taught: Taught, lessons: Lessons, aside: Lessons) -> tuple[StageReport, ...]:
    """Both stages; the student is left in the state that was nearest to its teacher on prompts set aside."""
    seed, config = room.recipe.cycle.seed, room.recipe.distill
    stages: list[StageReport] = []

    def supervised(hooks: Hooks, resume: TrainState | None) -> StageReport:
        return learn_supervised(room.pair, lessons, aside, config, seed=seed, hooks=hooks, resume=resume)

    def on_policy(hooks: Hooks, resume: TrainState | None) -> StageReport:
        prompts = list(dict.fromkeys(lessons.prompts))
        rewards = _rewards(room, taught.signal) if config.reward_weight else None
        apart = (seed + ON_POLICY_SEED) * 1000
        return learn_on_policy(
            room.pair, prompts, aside, config, seed=apart, rewards=rewards, hooks=hooks, resume=resume
        )

    if config.epochs:
        with room.steps.step(Step.SUPERVISED):
            stages.append(_stage(room, "supervised", supervised))
    if config.iterations and room.shared:
        with room.steps.step(Step.ON_POLICY):
            stages.append(_stage(room, "on_policy", on_policy))
    return tuple(stages)


def _stage(room: Classroom, name: StageName, train: Callable[[Hooks, TrainState | None], StageReport]) -> StageReport:
    """One stage: what was kept of it, gone on with, or from its beginning; the student is as the stage left it."""

    def made() -> tuple[StageReport, tuple[Tensor, ...]]:
        resume = cast("TrainState | None", room.keep.load(f"{name}-state"))
        save = paced(lambda state: room.keep.save_now_and_then(f"{name}-state", state))
        hooks = Hooks(room.steps.progress, told, save)
        report = train(hooks, resume)
        return report, tuple(p.detach() for p in room.parameters)

    def told(seen: DistillLook) -> None:
        room.steps.use(generated=seen.generated_tokens, trained=seen.trained_tokens)
        figures = {"gap": seen.gap.value, "loss": seen.loss}
        room.steps.progress(seen.step / max(1, n_steps(room, name)), figures)

    report, values = room.keep.result(name, made)
    room.keep.forget(f"{name}-state")
    copy_into(room.parameters, values)
    return report


def paced(
    save: Callable[[TrainState], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[TrainState], None]:
    """`save`, but so seldom that it takes a twentieth of the time at most: a student's state is four times its size."""
    last, took = float("-inf"), 0.0

    def saved(state: TrainState) -> None:
        nonlocal last, took
        began = clock()
        if began - last < SAVING_SHARE * took:
            return
        save(state)
        last = clock()
        took = last - began

    return saved


def n_steps(room: Classroom, name: StageName) -> int:
    """Optimizer steps of a stage, about: for a share of what is done."""
    config = room.recipe.distill
    if name == "on_policy":
        return config.iterations
    return max(1, len(room.data.train_prompts) * config.keep * config.epochs // config.batch_answers)


def _rewards(room: Classroom, signal: RewardSignal | DomainReward) -> Rewards:
    """The reward of the student's answers as PPO would see it: read by the teacher's base, fined for no end."""
    lm, penalty = room.teacher.lm, room.recipe.cycle.ppo.missing_eos_penalty

    def rate(prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> Tensor:
        features_NF = look(lm, prompts, answers, log_probs_too=False).features_NF
        unfinished_N = torch.tensor([answer[-1] != lm.eos_id for answer in answers])
        return rated(signal, features_NF, prompts) - penalty * unfinished_N.float()

    return rate
