"""How the policy is trained and what for: by PPO from rollouts or directly on the labels (DPO, KTO), for the reward
model's reward or for that and one of the user's own."""

from collections.abc import Sequence
from dataclasses import asdict

from schemas.errors import NotEnoughData
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.policies import LanguageModel, Policy
from trainer.adapters.rewards import ExtraReward
from trainer.core.dataset import Dataset, Labels, Turn
from trainer.core.direct import DirectData, DirectReport, DirectStep, Method, improve_directly
from trainer.core.judge import Answers
from trainer.core.models import Tokens
from trainer.core.ppo_config import PPOReport
from trainer.core.reward_looks import ModelReward
from trainer.core.rewards import CombinedReward, Reward, thumbs_share
from trainer.features import answers_of, encode_answer, encode_prompt
from trainer.settings import CycleConfig, Limits
from trainer.stages import Stages

Report = PPOReport | DirectReport
"""Both tell why the training ended, the KL and the reward of the state that was kept, and what it took."""


def train_directly(
    policy: Policy,
    method: Method,
    data: Dataset,
    reward: Reward,
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
        reward,
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


def with_extra(
    signal: ModelReward,
    extra: ExtraReward | None,
    lm: LanguageModel,
    asked: Sequence[Sequence[Turn]],
    prompts: Sequence[Sequence[Turn]],
    reference: Answers,
    config: CycleConfig,
) -> ModelReward | CombinedReward:
    """The reward to train for: the reward model's alone, or mixed with the user's own.

    `prompts` are those to train on; `asked` are those of the `reference` answers of the base.
    """
    if extra is None:
        return signal
    known = [*asked, *prompts]
    texts: dict[Tokens, str] = {tuple(encode_prompt(lm, p, config.limits)): prompt_text(p) for p in known}
    info = extra.info
    return CombinedReward.normalized_on(
        signal,
        extra.raw,
        share=thumbs_share(info.ensemble_weight, info.weight, info.thumbs_ceiling),
        clip=config.reward.clip,
        features_NF=reference.features_NF,
        prompts=[prompt_text(p) for p in asked],
        texts=reference.texts,
        tokens=[tuple(encode_prompt(lm, p, config.limits)) for p in asked],
        prompt_texts=texts,
    )


def reward_shares(signal: Reward) -> dict[str, float]:
    """What a mixed reward was made of: its share from the reward model, and the units of the user's own."""
    if not isinstance(signal, CombinedReward):
        return {}
    return {
        "reward_share_thumbs": signal.share,
        "reward_own_center": signal.own.center,
        "reward_own_scale": signal.own.scale,
    }


def prompt_text(prompt: Sequence[Turn]) -> str:
    """A prompt as a reward of the user's own reads it: one user's turn as it is, a longer one a line for each turn."""
    if len(prompt) == 1 and prompt[0][0] == "user":
        return prompt[0][1]
    return "\n".join(f"{role}: {content}" for role, content in prompt)
