"""What a student is cut from and learns from, and the table of it beside its teacher."""

import pytest
import torch

from trainer.core.distill_config import DistillConfig, Gap
from trainer.core.distill_data import Lessons, best_of, set_aside, spread_layers
from trainer.core.distill_table import Timed, cost_of_thousand, latency


@pytest.mark.parametrize(
    ("n_layers", "wanted", "expected"),
    [
        (12, 6, (0, 2, 4, 7, 9, 11)),  # the blocks of BERT that DistilBERT began with
        (5, 3, (0, 2, 4)),
        (4, 3, (0, 2, 3)),  # 1.5 is rounded up
        (6, 1, (0,)),
        (3, 2, (0, 2)),
    ],
)
def test_blocks_are_taken_evenly_with_the_first_and_the_last(
    n_layers: int, wanted: int, expected: tuple[int, ...]
) -> None:
    assert spread_layers(n_layers, wanted) == expected


@pytest.mark.parametrize("wanted", [0, 4, 5])
def test_no_block_or_all_blocks_make_no_student(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"{wanted} of 4 blocks can't be taken: name a number from 1 to 3"):
        spread_layers(4, wanted)


def test_the_best_distinct_answers_of_each_prompt_are_kept_and_of_equals_the_earlier() -> None:
    scores = torch.tensor([0.0, 3.0, 3.0, 1.0, 5.0, 5.0, 5.0, 4.0])
    answers = [(1,), (2,), (3,), (4,), (5,), (5,), (6,), (7,)]
    assert best_of(scores, answers, group=4, keep=2) == [1, 2, 4, 6]
    assert best_of(scores, answers, group=4, keep=4) == [1, 2, 3, 0, 4, 6, 7]  # (5,) was said twice
    with pytest.raises(ValueError, match="not whole groups of 3"):
        best_of(scores, answers, group=3, keep=1)


def test_prompts_are_set_aside_for_good_and_at_least_one_is() -> None:
    prompts = [f"p{n}" for n in range(16)]
    train, aside = set_aside(prompts, 0.25, seed=0)
    assert (len(train), len(aside)) == (12, 4) and sorted(train + aside) == list(range(16))
    assert set_aside(prompts, 0.25, seed=0) == (train, aside) != set_aside(prompts, 0.25, seed=1)
    assert len(set_aside(prompts[:2], 0.9, seed=0)[0]) == len(set_aside(prompts, 0.01, seed=0)[1]) == 1
    with pytest.raises(ValueError, match="two prompts at least"):
        set_aside(prompts[:1], 0.5, seed=0)


def test_each_answer_of_a_lesson_has_its_prompt() -> None:
    with pytest.raises(ValueError, match="1 prompts for 2 answers"):
        Lessons(((1,),), ((2,), (3,)))


def test_the_gap_is_the_mean_of_both_directions_or_what_there_is() -> None:
    assert Gap(nll=3.0, forward=0.2, reverse=0.6).value == pytest.approx(0.4)
    assert Gap(nll=3.0, forward=None, reverse=None).value == 3.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": 5}, "5 answers can't be kept of 4"),
        ({"prompts": 8}, r"8 prompts are fewer than min_prompts \(16\)"),
        ({"epochs": 0, "iterations": 0}, "one of the first two above it"),
        ({"beta": 1.5}, "between 0 and 1"),
        ({"patience": 0}, "must be 1 at least"),
        ({"reward_weight": 0.1, "answers_per_prompt": 1}, "one is the other's baseline"),
    ],
)
def test_a_configuration_that_can_not_work_is_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DistillConfig(**changes)  # type: ignore[arg-type]


def test_a_ratio_of_times_is_that_of_sums_for_a_token_each_by_its_own_tokens() -> None:
    student = [Timed(first=1.0, whole=4.0, tokens=4), Timed(first=1.0, whole=8.0, tokens=8)]
    teacher = [Timed(first=2.0, whole=20.0, tokens=5), Timed(first=2.0, whole=20.0, tokens=5)]
    found = latency(student, teacher, seed=0)
    assert (found.student.token, found.teacher.token) == (1.0, 4.0)
    assert (found.token.mean, found.answer.mean) == (pytest.approx(0.25), pytest.approx(12 / 40))
    # Each prompt has the same ratio to the first token, so that no resample has another.
    assert (found.first_token.low, found.first_token.mean, found.first_token.high) == (0.5, 0.5, 0.5)
    # Of answers a resample has 4 or 8 (0.2 and 0.4) or one of each.
    assert (found.answer.low, found.answer.high) == (pytest.approx(0.2), pytest.approx(0.4))
    with pytest.raises(ValueError, match="as many timings"):
        latency(student, teacher[:1], seed=0)


def test_a_thousand_answers_cost_money_by_the_hour_or_seconds() -> None:
    assert cost_of_thousand(0.36, None) == pytest.approx(360.0)
    assert cost_of_thousand(0.36, 2.0) == pytest.approx(0.2)
