"""That PPO learns on the small base model that CI uses: three seeds, a reward in a direction of its features."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from infra.simulate.prompts import as_messages, held_out
from trainer.adapters.policies import LoraSettings, Policy, attach_policy, load_base
from trainer.core.judge import sample_answers
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig, PPOReport
from trainer.core.rollout import SamplingConfig

SAMPLING = SamplingConfig(max_new_tokens=12, temperature=0.8)
BUDGET = 6.0


@dataclass(frozen=True)
class Shaped:
    """The direction in which the base's answers to one prompt differ most in their features, standardized."""

    mean_F: Tensor
    direction_F: Tensor

    @classmethod
    def on(cls, policy: Policy, prompts: list[list[int]]) -> "Shaped":
        repeats = 4
        features_NF = sample_answers(policy, prompts * repeats, SAMPLING, seed=5).features_NF
        features_GPF = features_NF.view(repeats, len(prompts), -1)
        within_NF = (features_GPF - features_GPF.mean(0)).flatten(0, 1)
        direction_F = torch.linalg.svd(within_NF, full_matrices=False).Vh[0]
        return cls(features_NF.mean(0), direction_F / (features_NF @ direction_F).std())

    def __call__(self, features_NF: Tensor) -> Tensor:
        return ((features_NF - self.mean_F) @ self.direction_F).clamp(-3, 3)


def train(model: Path, *, seed: int, beta: float) -> PPOReport:
    lm = load_base(str(model), dtype="float32", device="cpu")
    torch.manual_seed(seed)
    policy = attach_policy(lm, LoraSettings(top_share=1.0))
    prompts = [lm.encode_prompt(as_messages(question)) for question in held_out()[:16]]
    config = PPOConfig(
        iterations=10,
        prompts_per_iteration=4,
        answers_per_prompt=12,
        closing_prompts=8,
        sampling=SAMPLING,
        epochs=2,
        minibatches=2,
        beta=beta,
        kl_horizon=1e9,
        kl_budget=BUDGET,
    )
    return improve(policy, Shaped.on(policy, prompts), prompts, config, seed=seed)


def test_the_reward_rises_within_the_kl_budget_and_more_beta_ends_nearer_to_the_base(tiny_model: Path) -> None:
    loose, tight = ([train(tiny_model, seed=seed, beta=beta) for seed in range(3)] for beta in (0.02, 2.0))
    assert fmean(report.reward - report.first_reward for report in loose) > 0.15
    assert all(report.kl <= BUDGET for report in loose)
    assert all(held.kl < 0.5 * free.kl for held, free in zip(tight, loose, strict=True))
