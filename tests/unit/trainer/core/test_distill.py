"""A student learns from a teacher, on random models of letters."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.trainer.core.language import EOS, policy
from trainer.adapters.students import cut_student, learning
from trainer.adapters.trees import from_file, to_bytes
from trainer.core.distill import (
    Hooks,
    Pair,
    TrainState,
    divergences,
    learn_on_policy,
    learn_supervised,
    learning_rate,
    measure_gap,
    own_answers,
)
from trainer.core.distill_config import DistillConfig
from trainer.core.distill_data import Lessons
from trainer.core.rollout import Rollouts, SamplingConfig, sample

SAMPLING = SamplingConfig(max_new_tokens=5, temperature=0.8)
PROMPTS = tuple((3 + n, 4 + n % 5) for n in range(12))
CONFIG = DistillConfig(
    answers=2, keep=1, epochs=4, batch_answers=8, learning_rate=1e-2, iterations=8, prompts_per_iteration=6,
    answers_per_prompt=2, checks=4, patience=4,
)  # fmt: skip


def pair(*, shared: bool = True, lora: int = 0) -> Pair:
    """A teacher with an adapter, and a student of one of its two blocks."""
    teacher = policy(trained=True)
    torch.manual_seed(1)
    student, parameters = learning(cut_student(teacher, 1), lora)
    return Pair(student, parameters, teacher if shared else None, SAMPLING)


def lessons(made: Pair, prompts: tuple[tuple[int, ...], ...], seed: int) -> Lessons:
    teacher = made.teacher or policy(trained=True)
    rollouts = sample(teacher, prompts, 2, SAMPLING, torch.Generator().manual_seed(seed))
    return Lessons(rollouts.prompts, tuple(rollouts.answers()))


def taught(made: Pair) -> tuple[Lessons, Lessons]:
    return lessons(made, PROMPTS[:9], 0), lessons(made, PROMPTS[9:], 1)


def weights(made: Pair) -> list[Tensor]:
    return [p.detach().clone() for p in made.parameters]


@pytest.mark.parametrize("lora", [0, 4])
def test_a_student_comes_nearer_to_its_teacher_in_both_stages(lora: int) -> None:
    made = pair(lora=lora)
    train = lessons(made, PROMPTS, 0)
    teacher_before = [p.detach().clone() for p in made.teacher.lm.model.parameters()]  # type: ignore[union-attr]
    # Looked at on the prompts that it learns: twelve prompts of a random model tell nothing about others.
    first = learn_supervised(made, train, train, CONFIG, seed=0)
    assert first.gap.value < 0.7 * first.looks[0].gap.value and first.stopped == "done"
    second = learn_on_policy(made, PROMPTS, train, replace(CONFIG, iterations=16), seed=7)
    assert second.gap.value < 0.9 * second.looks[0].gap.value
    # The figure is of the state that was kept, and that is the one that is left behind.
    assert measure_gap(made, train, CONFIG, seed=8) == second.gap
    assert second.looks[-1].length is not None and first.looks[-1].length is None
    after = list(made.teacher.lm.model.parameters())  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(teacher_before, after, strict=True))


def test_the_state_that_is_kept_is_the_nearest_one_and_not_the_last() -> None:
    made = pair()
    train, aside = taught(made)
    before = weights(made)
    report = learn_supervised(made, train, aside, replace(CONFIG, learning_rate=50.0, max_grad_norm=1e9), seed=0)
    assert report.kept_step == 0 and report.looks[-1].gap.value > report.looks[0].gap.value
    assert all(torch.equal(a, b) for a, b in zip(before, weights(made), strict=True))


def test_a_stage_that_comes_no_nearer_ends_after_so_many_looks() -> None:
    made = pair()
    train, aside = taught(made)
    still = replace(CONFIG, learning_rate=1e-30, patience=2)
    report = learn_supervised(made, train, aside, still, seed=0)
    # 18 lessons in eights for four epochs are nine steps, looked at after 0, 2, 4: twice no nearer.
    assert (report.stopped, report.steps, [look.step for look in report.looks]) == ("no_nearer", 4, [0, 2, 4])


@pytest.mark.parametrize("stage", ["supervised", "on_policy"])
def test_a_stage_that_is_gone_on_with_comes_to_the_same_weights(stage: str, tmp_path: Path) -> None:
    def run(made: Pair, hooks: Hooks, resume: TrainState | None) -> object:
        train, aside = taught(made)
        if stage == "supervised":
            return learn_supervised(made, train, aside, CONFIG, seed=3, hooks=hooks, resume=resume)
        return learn_on_policy(made, PROMPTS[:9], aside, CONFIG, seed=3, hooks=hooks, resume=resume)

    kept: list[Path] = []

    def keep(state: TrainState) -> None:
        kept.append(tmp_path / f"{len(kept)}.safetensors")
        kept[-1].write_bytes(to_bytes(state))

    whole = pair()
    report = run(whole, Hooks(on_state=keep), None)
    for n in (0, len(kept) - 1):  # one whose parameters are the best, and the last one
        again = pair()
        assert run(again, Hooks(), from_file(str(kept[n]))) == report
        assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def test_without_shared_tokens_a_student_learns_the_answers_alone() -> None:
    made = pair(shared=False)
    train, aside = taught(made)
    report = learn_supervised(made, train, aside, CONFIG, seed=0)
    assert report.gap.forward is None and report.gap.value == report.gap.nll < report.looks[0].gap.nll
    with pytest.raises(ValueError, match="share no tokenizer"):
        learn_on_policy(made, PROMPTS, aside, CONFIG, seed=0)


def test_divergences_of_a_model_from_itself_are_nothing_and_else_above() -> None:
    made = pair()
    train, _ = taught(made)
    itself = Pair(made.teacher, (), made.teacher, SAMPLING)  # type: ignore[arg-type]
    assert all(float(sums_N.abs().max()) < 1e-5 for sums_N in divergences(itself, train, CONFIG))
    assert all(bool((sums_N > 0).all()) for sums_N in divergences(made, train, CONFIG))


def test_an_own_answer_weighs_by_its_reward_against_the_other_to_its_prompt() -> None:
    answers = torch.tensor([[4, EOS], [5, EOS]])
    rollouts = Rollouts(
        ((3,), (3,)), answers, torch.ones(2, 2, dtype=torch.bool), *(torch.zeros(2, 2) for _ in range(3)),
        torch.ones(2, dtype=torch.bool),
    )  # fmt: skip
    config = replace(CONFIG, reward_weight=0.5)
    batch = own_answers(rollouts, config, lambda prompts, said: torch.tensor([1.0, 3.0]))
    assert batch.nll_N.tolist() == [-1.0, 1.0]  # half of 1 - 3 and of 3 - 1
    assert (batch.divergence, batch.beta, batch.generated) == (1.0, 1.0, 4)
    assert own_answers(rollouts, config, None).nll_N.tolist() == [0.0, 0.0]


def test_a_reward_leads_the_student_to_what_it_likes() -> None:
    made = pair()
    _, aside = taught(made)

    def likes_seven(prompts: object, answers: object) -> Tensor:
        return torch.tensor([float(7 in a) for a in answers])  # type: ignore[attr-defined]

    def share() -> float:
        drawn = sample(made.student, PROMPTS, 8, SAMPLING, torch.Generator().manual_seed(5))
        return sum(7 in a for a in drawn.answers()) / 96

    before = share()
    config = replace(CONFIG, reward_weight=20.0, iterations=12, learning_rate=2e-2, checks=1)
    report = learn_on_policy(made, PROMPTS, aside, config, seed=0, rewards=likes_seven)
    assert report.looks[-1].reward is not None and math.isfinite(report.looks[-1].reward)
    assert report.looks[-1].reward > before


def test_the_rate_rises_to_its_peak_and_falls_to_its_share() -> None:
    config = DistillConfig(warmup_share=0.2, final_lr_share=0.1)
    rates = [learning_rate(step, 10, 1.0, config) for step in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and rates[-1] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
