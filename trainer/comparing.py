"""Versions side by side: what base, parent and new one answer to the same prompts, and what the judge says of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.adapters.policies import Policy
from trainer.adapters.rewards import ExtraReward
from trainer.core import judge
from trainer.core.dataset import Dataset, Turn
from trainer.core.domains import Shares
from trainer.core.judge import Answers, WinRate
from trainer.core.parallel import ALONE, Peers
from trainer.core.reward import RewardEnsemble
from trainer.core.reward_looks import ModelReward, Read
from trainer.core.rewards import CombinedReward
from trainer.features import Progress, encode_prompt
from trainer.fitting import Fitted, reward_signal
from trainer.methods import with_extra
from trainer.records import Evaluation, Interval, Sample
from trainer.settings import CycleConfig

REFERENCE_ANSWERS = (32, 128)
"""Of the base, at least and at most, for the center and the scale of the reward."""
SAMPLE_BATCH = 48
"""A decoding step reads all weights, however few rows there are: by 16 SmolLM2 takes a fifth more time than by 40. So
parts are of like size, too."""
KEPT_SAMPLES = 12


@dataclass(frozen=True)
class Before:
    """What parent and base answer to the held-out prompts before training, and the normalized reward signal."""

    prompts: tuple[tuple[int, ...], ...]
    parent: Answers
    base: Answers
    signal: ModelReward | CombinedReward
    tokens: int


def look_before(
    policy: Policy,
    dataset: Dataset,
    fitted: Fitted,
    config: CycleConfig,
    *,
    parent_is_base: bool,
    progress: Progress,
    extra: ExtraReward | None = None,
    read: Read | None = None,
    asked: Mapping[tuple[int, ...], Shares] | None = None,
    peers: Peers = ALONE,
) -> Before:
    """Answers to compare with later, and the reward normalized on the base's.

    To each held-out prompt `config.answers_per_held_out`: all prompts once, then all again. All that the training gets
    of them are the reward's center and scale, two numbers without a label; where they are few, the base answers
    training prompts as well.
    """
    held = [encode_prompt(policy.lm, p, config.limits) for p in dataset.held_out_prompts]
    seed = config.seed + 1
    every = held * config.answers_per_held_out
    base = answers_to(policy, every, config, seed=seed, reference=True, progress=progress, peers=peers)
    parent = base if parent_is_base else answers_to(policy, every, config, seed=seed, progress=progress, peers=peers)
    answered, reference = _reference(policy, dataset, base, config, progress=progress, peers=peers)
    prompts = [encode_prompt(policy.lm, p, config.limits) for p in answered]
    alone = reward_signal(fitted, config, reference, prompts=prompts, read=read, asked=asked)
    signal = with_extra(alone, extra, policy.lm, answered, dataset.train_prompts, reference, config)
    drawn = [base] if parent_is_base else [base, parent]
    tokens = sum(len(ids) for answers in drawn for ids in answers.ids)
    tokens += sum(len(ids) for ids in reference.ids[len(every) :])
    return Before(tuple(map(tuple, held)), parent, base, signal, tokens)


def _reference(
    policy: Policy, dataset: Dataset, base: Answers, config: CycleConfig, *, progress: Progress, peers: Peers
) -> tuple[list[tuple[Turn, ...]], Answers]:
    """Prompts, and what the base answers to them: `base`, its answers to the held-out prompts, and more if need be."""
    least, most = REFERENCE_ANSWERS
    asked = (list(dataset.held_out_prompts) * config.answers_per_held_out)[:most]
    more = list(dataset.train_prompts[: max(0, least - len(asked))])
    if not more:
        return asked, base.first(len(asked))
    encoded = [encode_prompt(policy.lm, p, config.limits) for p in more]
    others = answers_to(policy, encoded, config, seed=config.seed + 2, reference=True, progress=progress, peers=peers)
    return asked + more, joined([base, others])


def answers_to(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    config: CycleConfig,
    *,
    seed: int,
    progress: Progress,
    reference: bool = False,
    peers: Peers = ALONE,
) -> Answers:
    """One answer to each prompt, in parts so short that a request to stop is soon heard."""
    parts: list[Answers] = []
    sampling = config.ppo.sampling
    size = math.ceil(len(prompts) / math.ceil(len(prompts) / SAMPLE_BATCH))
    for n, start in enumerate(range(0, len(prompts), size)):
        part = prompts[start : start + size]
        drawn = judge.sample_answers(policy, part, sampling, seed=seed * 1000 + n, reference=reference, peers=peers)
        parts.append(drawn)
        progress((start + len(part)) / len(prompts))
    return joined(parts)


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers end to end; their means are those of all."""
    n = sum(len(part.texts) for part in parts)
    weights = [len(part.texts) / n for part in parts]
    return Answers(
        texts=tuple(text for part in parts for text in part.texts),
        features_NF=torch.cat([part.features_NF for part in parts]),
        kl=sum(w * part.kl for w, part in zip(weights, parts, strict=True)),
        finished=sum(w * part.finished for w, part in zip(weights, parts, strict=True)),
        tokens=sum(w * part.tokens for w, part in zip(weights, parts, strict=True)),
        ids=tuple(answer for part in parts for answer in part.ids),
        log_prob_N=torch.cat([part.log_prob_N for part in parts]),
        kl_N=torch.cat([part.kl_N for part in parts]),
    )


def evaluate(
    policy: Policy,
    dataset: Dataset,
    before: Before,
    judging: RewardEnsemble,
    config: CycleConfig,
    *,
    progress: Progress,
    peers: Peers = ALONE,
) -> tuple[Evaluation, Answers]:
    """The trained policy on the held-out prompts, and its answers; a prompt is judged by the mean of its answers."""
    every = before.prompts * config.answers_per_held_out
    after = answers_to(policy, every, config, seed=config.seed + 1, progress=progress, peers=peers)
    by_head = {
        name: judging.score(answers.features_NF).unflatten(0, (-1, len(before.prompts))).mean(0)
        for name, answers in (("after", after), ("parent", before.parent), ("base", before.base))
    }
    scores = {name: scores_NH.mean(1).tolist() for name, scores_NH in by_head.items()}
    samples = tuple(
        Sample(prompt=prompt[-1][1], before=old, after=new, judge_before=old_score, judge_after=new_score)
        for prompt, old, new, old_score, new_score in zip(
            dataset.held_out_prompts, before.parent.texts, after.texts, scores["parent"], scores["after"], strict=False
        )
    )
    evaluation = Evaluation(
        prompts=len(before.prompts),
        judged_by=dataset.judged_by,
        win_rate_vs_parent=_interval(judge.win_rate(scores["after"], scores["parent"], seed=config.seed)),
        win_certainty=judge.certainty(by_head["after"], by_head["parent"], seed=config.seed),
        win_rate_vs_base=_interval(judge.win_rate(scores["after"], scores["base"], seed=config.seed)),
        kl=after.kl,
        length=after.tokens,
        parent_length=before.parent.tokens,
        base_length=before.base.tokens,
        finished=after.finished,
        samples=samples[:KEPT_SAMPLES],
    )
    return evaluation, after


def _interval(rate: WinRate) -> Interval:
    return Interval(mean=rate.mean, low=rate.low, high=rate.high, n=rate.n)
