"""The loop around the formulas: ratios, step counts, KL control, and that it learns."""

from dataclasses import replace

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.adapters.policies import LoraSettings, Policy
from trainer.core.losses import leave_one_out
from trainer.core.overseers import Demonstration, Overseers, imitation_loss
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig, PPOStep
from trainer.core.rollout import SamplingConfig, sample

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4], [12, 13, 14, 15]]
SMALL = PPOConfig(
    iterations=1,
    prompts_per_iteration=4,
    answers_per_prompt=8,
    sampling=SamplingConfig(max_new_tokens=8, temperature=1.0),
    epochs=3,
    minibatches=2,
    learning_rate=1e-2,
    max_update_kl=1e9,
    kl_budget=1e9,
    closing_prompts=0,
)


def first_feature(features_NF: torch.Tensor) -> torch.Tensor:
    return (features_NF[:, 0] * 3).clamp(-3, 3)


def test_leave_one_out_compares_each_answer_with_the_others_to_its_prompt() -> None:
    found = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    torch.testing.assert_close(found, torch.tensor([-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]))


def test_an_iteration_makes_epochs_times_minibatches_optimizer_steps_and_starts_at_ratio_one() -> None:
    report = improve(policy(trained=True), first_feature, PROMPTS, SMALL, seed=0)
    assert report.optimizer_steps == 6
    assert report.steps[0].first_ratio == pytest.approx(1.0, abs=1e-5)


def test_micro_batches_do_not_change_the_update() -> None:
    wide, narrow = policy(), policy()
    improve(wide, first_feature, PROMPTS, replace(SMALL, epochs=1), seed=0)
    improve(narrow, first_feature, PROMPTS, replace(SMALL, epochs=1, micro_batch_tokens=30), seed=0)
    for a, b in zip(wide.adapter_parameters(), narrow.adapter_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_training_is_the_same_again_with_the_same_seed() -> None:
    first, second = policy(), policy()
    config = replace(SMALL, iterations=2)
    assert improve(first, first_feature, PROMPTS, config, seed=3) == improve(
        second, first_feature, PROMPTS, config, seed=3
    )
    for a, b in zip(first.adapter_parameters(), second.adapter_parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_raises_the_reward_and_more_beta_costs_less_kl() -> None:
    config = replace(SMALL, iterations=12, closing_prompts=4, answers_per_prompt=16, kl_horizon=1e9)
    loose = improve(policy(), first_feature, PROMPTS, replace(config, beta=0.01), seed=0)
    tight = improve(policy(), first_feature, PROMPTS, replace(config, beta=1.0), seed=0)
    assert loose.reward > loose.first_reward + 0.5
    assert tight.kl < 0.5 * loose.kl


def test_a_state_beyond_the_kl_budget_is_thrown_away() -> None:
    made = policy()
    config = replace(SMALL, iterations=30, kl_budget=0.3, hard_stop=1.0, limit_slack=0.0)
    report = improve(made, first_feature, PROMPTS, config, seed=0)
    assert report.stopped == "kl_budget"
    assert report.kl <= 0.3
    rollouts = sample(made, PROMPTS, 64, SMALL.sampling, torch.Generator().manual_seed(9))
    with made.reference():
        reference = made.lm.model(input_ids=torch.tensor([[5]])).logits
    assert reference.shape[-1] == 24
    assert len(rollouts.answers()) == 256


def test_a_reason_to_stop_ends_the_training_before_the_next_iteration() -> None:
    seen: list[PPOStep] = []
    report = improve(
        policy(),
        first_feature,
        PROMPTS,
        replace(SMALL, iterations=5),
        seed=0,
        on_step=seen.append,
        should_stop=lambda: "budget" if len(seen) == 2 else None,
    )
    assert (report.stopped, len(report.steps)) == ("budget", 2)


def test_a_multiplier_holds_kl_at_its_limit_where_nothing_else_does() -> None:
    config = replace(SMALL, iterations=16, closing_prompts=4, beta=0.0, kl_horizon=1e9, hard_stop=100.0)
    free = improve(policy(), first_feature, PROMPTS, replace(config, kl_budget=1e6), seed=0)
    held = improve(policy(), first_feature, PROMPTS, replace(config, kl_budget=1.0), seed=0)
    assert free.kl > 2.0
    assert held.kl <= 1.1
    assert max(step.multipliers["kl_base"] for step in held.steps) > 0
    assert all(step.multipliers["kl_base"] == 0 for step in free.steps)


def test_a_safety_cost_that_the_reward_asks_for_is_kept_at_its_limit() -> None:
    """The reward is the cost: without the limit all of it is taken, with it only as much as is allowed."""

    def cost(features_NF: torch.Tensor) -> torch.Tensor:
        return (features_NF[:, 0] * 3).sigmoid()

    config = replace(SMALL, iterations=16, closing_prompts=4, beta=0.0, safety_rise=0.03, limit_slack=0.2)
    before = Overseers(safety=cost, safety_before=10.0)
    free = improve(policy(), first_feature, PROMPTS, config, seed=0, overseers=before)
    start = free.steps[0].costs["safety"]
    held = improve(
        policy(), first_feature, PROMPTS, config, seed=0, overseers=Overseers(safety=cost, safety_before=start)
    )
    assert free.costs["safety"] > start + 0.1
    assert held.costs["safety"] <= start + 0.03 + 0.2 * 0.1
    assert max(step.multipliers["safety"] for step in held.steps) > 0


def test_what_is_kept_is_what_the_judge_likes_and_not_what_the_reward_does() -> None:
    """The judge likes the opposite of the reward: the best state is the one that it all began with."""
    made = policy()
    start = [p.detach().clone() for p in made.adapter_parameters()]
    config = replace(SMALL, iterations=8, closing_prompts=4, patience=0)
    report = improve(
        made, first_feature, PROMPTS, config, seed=0, overseers=Overseers(judge=lambda x: -first_feature(x))
    )
    assert report.steps[-1].reward > report.first_reward + 0.1
    assert report.kept_iteration <= 1
    if report.kept_iteration == 0:
        assert all(torch.equal(a, b) for a, b in zip(start, made.adapter_parameters(), strict=True))


def test_a_training_that_the_judge_turns_from_ends() -> None:
    config = replace(SMALL, iterations=20, closing_prompts=4, patience=3)
    report = improve(
        policy(), first_feature, PROMPTS, config, seed=0, overseers=Overseers(judge=lambda x: -first_feature(x))
    )
    assert report.stopped == "judge_turned"
    assert len(report.steps) < 20


def test_demonstrations_become_likelier_where_they_weigh_something() -> None:
    written = Demonstration((5, 6, 7, 8, 9), (7, 7, 7, 2))

    def log_prob(of: Policy) -> float:
        loss = imitation_loss(of, [written], temperature=1.0, max_tokens=100)
        return -float(next(loss).detach())

    config = replace(SMALL, iterations=4, closing_prompts=0)
    plain, taught = policy(), policy()
    improve(plain, first_feature, PROMPTS, config, seed=0, overseers=Overseers(demonstrations=[written]))
    improve(
        taught,
        first_feature,
        PROMPTS,
        replace(config, ptx_coefficient=1.0),
        seed=0,
        overseers=Overseers(demonstrations=[written]),
    )
    assert log_prob(taught) > log_prob(plain) + 0.5


def test_an_update_from_above_the_unadapted_blocks_is_that_of_whole_passes() -> None:
    half = LoraSettings(rank=4, alpha=8, top_share=0.5)
    short, whole = policy(lora=half), policy(lora=half)
    whole.lm.split = 0
    improve(short, first_feature, PROMPTS, SMALL, seed=0)
    improve(whole, first_feature, PROMPTS, SMALL, seed=0)
    for a, b in zip(short.adapter_parameters(), whole.adapter_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_separate_critic_learns_in_an_adapter_of_its_own_and_leaves_the_policys_first_update_as_it_is() -> None:
    config = replace(SMALL, epochs=1, max_grad_norm=1e9)
    shared, separate = policy(), policy(critic="separate")
    before = [p.detach().clone() for p in separate.value_parameters()]
    improve(shared, first_feature, PROMPTS, config, seed=0)
    report = improve(separate, first_feature, PROMPTS, replace(config, critic="separate"), seed=0)
    # Both critics begin at zero, so the advantages of the first iteration are the same.
    for a, b in zip(shared.adapter_parameters(), separate.adapter_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert report.steps[0].first_ratio == pytest.approx(1.0, abs=1e-5)
    moved = [not torch.equal(a, b) for a, b in zip(before, separate.value_parameters(), strict=True)]
    # Two optimizer steps: the head in the first, then the fourteen B; an A has no gradient before its B has left zero.
    assert sum(moved) == 16


def test_a_separate_critic_is_worth_its_parameters() -> None:
    config = replace(SMALL, epochs=8, learning_rate=1e-9, value_learning_rate=1e-2, value_clip=1e9)
    shared = improve(policy(), first_feature, PROMPTS, config, seed=0)
    separate = improve(policy(critic="separate"), first_feature, PROMPTS, replace(config, critic="separate"), seed=0)
    assert separate.steps[0].value_loss < shared.steps[0].value_loss


def test_without_a_critic_the_value_head_stays_and_the_reward_rises() -> None:
    config = replace(SMALL, iterations=8, closing_prompts=4, answers_per_prompt=16, critic="none", beta=0.01)
    made = policy()
    report = improve(made, first_feature, PROMPTS, config, seed=0)
    assert not made.head.weight.any()
    assert report.steps[0].value_loss == 0.0
    assert report.steps[0].first_ratio == pytest.approx(1.0, abs=1e-5)
    assert report.reward > report.first_reward + 0.4


def test_one_answer_to_a_prompt_is_enough_for_a_critic_and_not_for_rloo() -> None:
    assert improve(policy(), first_feature, PROMPTS, replace(SMALL, answers_per_prompt=1), seed=0).answers == 4
    with pytest.raises(ValueError, match="2 without a critic"):
        replace(SMALL, answers_per_prompt=1, critic="none")


def test_a_policy_without_the_critic_that_the_configuration_asks_for_is_refused() -> None:
    with pytest.raises(ValueError, match="critic is 'shared' and the configuration's 'separate'"):
        improve(policy(), first_feature, PROMPTS, replace(SMALL, critic="separate"), seed=0)
