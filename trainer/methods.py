"""How the policy is trained: by PPO from rollouts, or directly on the labels (DPO, KTO), to reports of one form."""

from collections.abc import Callable
from dataclasses import asdict

from schemas.errors import NotEnoughData
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.policies import LanguageModel, Policy
from trainer.core.dataset import Dataset, Labels
from trainer.core.direct import DirectData, DirectReport, DirectStep, Method, improve_directly
from trainer.core.ppo import PPOReport
from trainer.features import answers_of, encode_answer, encode_prompt
from trainer.settings import CycleConfig, Limits
from trainer.stages import Stages

Report = PPOReport | DirectReport
"""Both tell why the training ended, the KL and the reward of the state that was kept, and what it took."""


def train_directly(
    policy: Policy,
    method: Method,
    data: Dataset,
    reward: Callable[..., object],
    config: CycleConfig,
    stages: Stages,
    folder: CycleFolder | None,
) -> DirectReport:
    """Train on the labels of the reward model's raters; `reward` rates the answers that are drawn on the way.

    Raises `NotEnoughData` where there are fewer labels that the method learns from than a set must have.
    """

    def on_step(step: DirectStep) -> None:
        if folder is not None:
            folder.step(asdict(step))
        stages.use(generated=step.tokens, trained=step.trained_tokens)
        figures = {"reward": step.reward, "kl": step.kl, "entropy": step.entropy, "length": step.length}
        stages.progress(min(1.0, step.iteration / config.direct.checks), figures)

    found = len(data.train.pairs) if method == "dpo" else len(data.train)
    if found < config.split.min_labels:
        raise NotEnoughData(
            f"there are {found} pairs to train on by {method.upper()} and {config.split.min_labels} are needed: "
            "collect comparisons, or set THUMBWHEEL_METHOD to kto or ppo, which learn from thumbs as well"
        )
    return improve_directly(
        policy,
        method,
        direct_data(policy.lm, data.train, config.limits),
        reward,  # type: ignore[arg-type]
        [encode_prompt(policy.lm, prompt, config.limits) for prompt in data.train_prompts],
        config.direct,
        sampling=config.ppo.sampling,
        kl_budget=config.ppo.kl_budget,
        seed=config.seed,
        on_step=on_step,
        should_stop=stages.early_stop,
    )


def direct_data(lm: LanguageModel, labels: Labels, limits: Limits) -> DirectData:
    """Labels as tokens, each distinct answer once."""
    keys = list(dict.fromkeys(answers_of(labels)))
    row = {key: n for n, key in enumerate(keys)}
    prompts = {prompt: tuple(encode_prompt(lm, prompt, limits)) for prompt in dict.fromkeys(p for p, _ in keys)}
    return DirectData(
        prompts=tuple(prompts[prompt] for prompt, _ in keys),
        answers=tuple(tuple(encode_answer(lm, text, limits)) for _, text in keys),
        pairs=tuple((row[r.prompt, r.chosen], row[r.prompt, r.rejected]) for r in labels.pairs),
        pair_weights=tuple(r.weight for r in labels.pairs),
        rated=tuple(row[r.prompt, r.completion] for r in labels.ratings),
        liked=tuple(r.label for r in labels.ratings),
        rating_weights=tuple(r.weight for r in labels.ratings),
    )
