"""Who does which part of a batch, and that parts are those of the whole."""

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.core.packing import IDLE, Group, in_step
from trainer.core.parallel import ALONE, Alone, own_groups, own_rows, sum_gradients, whole
from trainer.core.rollout import SamplingConfig, look, sample

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4]]
SAMPLING = SamplingConfig(max_new_tokens=10, temperature=0.9)


class One(Alone):
    """One of several processes that never hears of the others: what it has made itself stays visible."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_every_answer_belongs_to_one_process_and_each_prompts_are_spread() -> None:
    assert [own_rows(One(rank, 3), 7) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    group = Group((9,), ((1,), (2,), (3,), (4,)), (4, 5, 6, 7))
    assert own_groups(One(0, 3), [group]) == [Group((9,), ((3,),), (6,))]
    assert own_groups(One(1, 3), [group]) == [Group((9,), ((1,), (4,)), (4, 7))]
    assert own_groups(One(2, 3), [group]) == [Group((9,), ((2,),), (5,))]
    assert own_groups(One(3, 9), [group]) == []
    assert own_groups(ALONE, [group]) == [group]


def test_some_rows_of_a_batch_are_those_of_the_whole_batch() -> None:
    made = policy(trained=True)
    every = sample(made, PROMPTS, 4, SAMPLING, generator())
    rows = [1, 2, 7, 8, 11]
    some = sample(made, PROMPTS, 4, SAMPLING, generator(), rows=rows)
    assert some.prompts == tuple(every.prompts[n] for n in rows)
    assert some.answers() == [every.answers()[n] for n in rows]
    for name in ("log_probs_NT", "values_NT", "entropies_NT"):
        torch.testing.assert_close(getattr(some, name), getattr(every, name)[rows], atol=1e-5, rtol=1e-5)
    assert some.finished_N.tolist() == every.finished_N[rows].tolist()


def test_rows_that_no_process_has_made_are_zero_and_the_others_stay_what_they_were() -> None:
    flags, numbers = torch.tensor([True, True]), torch.tensor([[1.5], [-2.5]])
    found = whole(ALONE, [2, 0], 4, [flags, numbers])
    assert found[0].tolist() == [True, False, True, False] and found[0].dtype == torch.bool
    assert found[1].tolist() == [[-2.5], [0.0], [1.5], [0.0]]
    assert whole(ALONE, [], 2, [numbers])[0].tolist() == [[0.0], [0.0]]


def test_a_look_at_some_groups_fills_their_rows_alone() -> None:
    made = policy(trained=True)
    answers = [(5, 6), (7,), (8, 9, 2)]
    prompts = [(5, 6)] * 3
    every = look(made.lm, prompts, answers)
    some = look(made.lm, prompts, answers, groups=[Group((5, 6), (answers[1],), (1,))])
    torch.testing.assert_close(some.features_NF[1], every.features_NF[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(some.log_probs_NT[1], every.log_probs_NT[1], atol=1e-5, rtol=1e-5)
    assert not some.features_NF[[0, 2]].any() and not some.log_probs_NT[[0, 2]].any()


def test_a_parameter_that_no_process_has_reached_keeps_no_gradient() -> None:
    reached, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    reached.grad = torch.ones(2)
    sum_gradients(One(0, 2), [reached, other])
    assert reached.grad.tolist() == [1.0, 1.0]
    assert other.grad is None


@pytest.mark.parametrize(("rounds", "idle"), [(1, 0), (3, 2)])
def test_a_process_with_less_to_read_idles_in_step_with_the_others(rounds: int, idle: int) -> None:
    mine = [[Group((1,), ((2,),), (0,))]]
    found = list(in_step(mine, rounds))
    assert found == [(mine[0], True)] + [([IDLE], False)] * idle
