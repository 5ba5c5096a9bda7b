"""What is measured beside the reward: costs by hand, and the parent's adapter put in and taken out."""

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.core.constraints import Gains, Multiplier
from trainer.core.overseers import Costs, Limits, Overseers, costs_of, given_elsewhere, priced
from trainer.core.parents import Parent
from trainer.core.rollout import Rollouts, SamplingConfig, look, sample

PROMPTS = [[5, 6, 7], [10, 11]]


def rollouts_of(lengths: tuple[int, ...]) -> Rollouts:
    mask_NT = torch.tensor([[t < n for t in range(4)] for n in lengths])
    zeros_NT = torch.zeros(mask_NT.shape)
    prompts = tuple((5,) for _ in lengths)
    tokens_NT = torch.full(mask_NT.shape, 7)
    return Rollouts(prompts, tokens_NT, mask_NT, zeros_NT, zeros_NT, zeros_NT, torch.ones(len(lengths)).bool())


def measured(lengths: tuple[int, ...], overseers: Overseers) -> Costs:
    rollouts = rollouts_of(lengths)
    features_NF = torch.tensor([[0.1], [0.3]])
    return costs_of(policy(), rollouts, torch.zeros(2, 4), features_NF, overseers, temperature=1.0, max_tokens=100)


def test_answers_that_are_too_long_cost_by_the_token_and_too_short_ones_the_other_way_round() -> None:
    # Mean length 3 against the parent's 2: drift 0.5; each answer costs its length over 2.
    long = measured((4, 2), Overseers(parent_length=2.0))
    assert long.means["length"] == pytest.approx(0.5)
    torch.testing.assert_close(long.per_answer["length"], torch.tensor([2.0, 1.0]))
    # Against 4 the drift is 0.25 the other way: the shorter an answer, the more it costs.
    short = measured((4, 2), Overseers(parent_length=4.0))
    assert short.means["length"] == pytest.approx(0.25)
    torch.testing.assert_close(short.per_answer["length"], torch.tensor([-1.0, -0.5]))


def test_the_safety_cost_is_that_of_the_features() -> None:
    found = measured((4, 2), Overseers(safety=lambda features_NF: features_NF[:, 0]))
    assert found.means["safety"] == pytest.approx(0.2)
    torch.testing.assert_close(found.per_answer["safety"], torch.tensor([0.1, 0.3]))


def test_an_answer_is_the_same_only_if_another_prompt_got_it() -> None:
    prompts, answers = [[1], [1], [2], [3]], [[7, 2], [7, 2], [8, 2], [8, 2]]
    assert given_elsewhere(prompts, answers).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_costs_are_taken_off_scores_and_tokens_by_their_multipliers() -> None:
    limits = Limits(kl_base=2.0, safety=0.1).as_limits()
    kl, safety = (Multiplier(limit, Gains(), value=value) for limit, value in zip(limits, (3.0, 0.5), strict=True))
    costs = Costs({"kl_base": torch.tensor([[1.0, 2.0]])}, {"safety": torch.tensor([0.2])}, {})
    scores_N, penalty_NT = priced(torch.tensor([1.0]), torch.tensor([[1.0, 2.0]]), costs, (kl, safety), beta=0.1)
    # 0.5 a tenth of safety cost: 1 - 5 * 0.2. KL: 0.1 for each nat, and 3 for each budget of 2 nats.
    torch.testing.assert_close(scores_N, torch.tensor([0.0]))
    torch.testing.assert_close(penalty_NT, torch.tensor([[1.6, 3.2]]))


def test_kl_to_the_parent_is_zero_for_the_parent_and_the_adapter_is_as_it_was_afterwards() -> None:
    made = policy(trained=True)
    parent = Parent(made)
    with torch.no_grad():
        for parameter in made.adapter_parameters():
            parameter.add_(0.05)
    before = [p.detach().clone() for p in made.adapter_parameters()]
    rollouts = sample(made, PROMPTS, 16, SamplingConfig(6, 1.0), torch.Generator().manual_seed(0))
    looked = look(made.lm, rollouts.prompts, rollouts.answers(), temperature=1.0)
    width = looked.log_probs_NT.shape[1]
    log_ratio_NT = torch.zeros(len(rollouts.prompts), width)

    def kl(of: Parent) -> float:
        overseers = Overseers(parent=of)
        found = costs_of(made, rollouts, log_ratio_NT, looked.features_NF, overseers, temperature=1.0, max_tokens=200)
        return found.means["kl_parent"]

    assert kl(Parent(made)) == pytest.approx(0.0, abs=1e-4)
    assert kl(parent) > 0.01
    assert all(torch.equal(a, b) for a, b in zip(before, made.adapter_parameters(), strict=True))
