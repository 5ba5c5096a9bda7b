"""What a GPU computes is what the CPU computes: log-probs, a training step, and bfloat16 with adapters in fp32."""

from dataclasses import replace

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.adapters.policies import LoraSettings, Policy
from trainer.core.models import Critic
from trainer.core.overseers import Demonstration, Overseers, log_probs_of
from trainer.core.parents import Parent
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig, PPOReport
from trainer.core.rollout import SamplingConfig, look, sample

DEVICE = "cuda"
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4], [12, 13, 14, 15]]
SMALL = PPOConfig(
    iterations=1,
    prompts_per_iteration=4,
    answers_per_prompt=4,
    sampling=SamplingConfig(max_new_tokens=8, temperature=0.9),
    epochs=1,
    minibatches=2,
    learning_rate=1e-2,
    max_update_kl=1e9,
    kl_budget=1e9,
    closing_prompts=0,
    ptx_coefficient=0.1,
)
HALF = LoraSettings(rank=4, alpha=8, top_share=0.5)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def on_gpu(made: Policy) -> Policy:
    made.lm.model.to(DEVICE)
    made.head.to(DEVICE)
    return made


def improved(made: Policy, config: PPOConfig) -> PPOReport:
    """One training with everything that watches it, which has to be on the right device as well."""
    overseers = Overseers(
        judge=lambda features_NF: features_NF[:, 1].cpu(),
        safety=lambda features_NF: features_NF[:, 2].sigmoid().cpu(),
        parent=Parent(made),
        parent_length=5.0,
        parent_sameness=0.1,
        demonstrations=[Demonstration((5, 6), (7, 8, 2))],
    )
    return improve(made, lambda x: (x[:, 0] * 3).clamp(-3, 3).cpu(), PROMPTS, config, seed=1, overseers=overseers)


def test_log_probs_and_features_are_those_of_the_cpu() -> None:
    here, there = policy(trained=True, lora=HALF), on_gpu(policy(trained=True, lora=HALF))
    rollouts = sample(here, PROMPTS, 4, SMALL.sampling, torch.Generator().manual_seed(0))
    for made in (here, there):
        looked = look(made.lm, rollouts.prompts, rollouts.answers(), temperature=0.9, keep_lower=True)
        own_NT = log_probs_of(made, rollouts, temperature=0.9, max_tokens=200)
        if made is here:
            expected, own = looked, own_NT
            continue
        width = expected.log_probs_NT.shape[1]
        torch.testing.assert_close(looked.log_probs_NT.cpu()[:, :width], expected.log_probs_NT, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(looked.features_NF.cpu(), expected.features_NF, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(own_NT.cpu(), own.cpu(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("critic", ["shared", "separate", "none"])
def test_one_iteration_of_ppo_comes_to_the_adapter_of_the_cpu(critic: Critic) -> None:
    config = replace(SMALL, critic=critic)
    here, there = policy(trained=True, lora=HALF, critic=critic), policy(trained=True, lora=HALF, critic=critic)
    before = [p.detach().clone() for p in here.adapter_parameters()]
    expected, found = improved(here, config), improved(on_gpu(there), config)
    if found.steps[0].tokens != expected.steps[0].tokens:
        pytest.skip("a uniform number fell on the edge of a slice: another answer was drawn")
    assert found.steps[0].first_ratio == pytest.approx(1.0, abs=1e-3)
    assert found.steps[0].kl == pytest.approx(expected.steps[0].kl, abs=1e-2)
    assert found.steps[0].grad_norm == pytest.approx(expected.steps[0].grad_norm, rel=1e-2)
    for start, a, b in zip(before, here.adapter_parameters(), there.adapter_parameters(), strict=True):
        # Adam's first steps have the size of the learning rate whatever the gradient: compare directions.
        moved, there_moved = (a.detach() - start).flatten(), (b.detach().cpu() - start).flatten()
        if float(moved.norm()) > 0:
            assert float(torch.nn.functional.cosine_similarity(moved, there_moved, dim=0)) > 0.99


def test_in_bfloat16_adapters_and_optimizer_stay_in_single_precision_and_the_ratio_begins_near_one() -> None:
    made = on_gpu(policy(trained=True, lora=HALF, dtype=torch.bfloat16))
    assert {p.dtype for p in made.adapter_parameters()} == {torch.float32}
    report = improved(made, SMALL)
    assert report.steps[0].first_ratio == pytest.approx(1.0, abs=0.05)
    assert all(torch.isfinite(p).all() for p in made.adapter_parameters())
