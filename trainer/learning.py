"""What a cycle computes, from pinned rows to an evaluated policy: the core's functions on one base model.

    labels ─► features on the frozen base ─► reward ensemble (training raters) ─► signal ─► PPO ─► policy
                                         └─► judge ensemble  (other raters) ───────────────┐         │
    held-out prompts ─► answers of parent and base (before), of the new policy (after) ────┴─► evaluation

Deterministic on the CPU for a configuration, rows, a parent and a number of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from schemas.cycles import Stage
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.lake import Pinned
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy
from trainer.core import dataset, gates, judge, reward
from trainer.core.checkpoint import copy_into
from trainer.core.dataset import Dataset
from trainer.core.gates import Candidate, Share
from trainer.core.judge import Answers, WinRate
from trainer.core.ppo import PPOReport, PPOStep, State, improve
from trainer.core.reward import Estimate, RewardEnsemble, RewardReport, RewardSignal
from trainer.features import FeatureTable, Progress, answers_of, encode_prompt, featurize, reward_data
from trainer.records import Evaluation, Interval, Sample
from trainer.settings import CycleConfig
from trainer.stages import Stages

REFERENCE_PROMPTS = 32
SAMPLE_BATCH = 16
KEPT_SAMPLES = 12


@dataclass(frozen=True)
class Fitted:
    """The reward model and the judge, each with a report on labels it has not seen."""

    reward: RewardEnsemble
    reward_report: RewardReport
    judge: RewardEnsemble
    judge_report: RewardReport


@dataclass(frozen=True)
class Learned:
    """What the learning made: a trained policy, what trained it and judged it, and how it did."""

    policy: Policy
    dataset: Dataset
    fitted: Fitted
    evaluation: Evaluation
    report: PPOReport


@dataclass(frozen=True)
class Before:
    """What parent and base answer to the held-out prompts before training, and the normalized reward signal."""

    prompts: tuple[tuple[int, ...], ...]
    parent: Answers
    base: Answers
    signal: RewardSignal
    tokens: int


def learn(
    lm: LanguageModel,
    pinned: Pinned,
    config: CycleConfig,
    parent_dir: Path | None,
    stages: Stages,
    folder: CycleFolder | None = None,
    keep: Checkpoints = Checkpoints(None),  # noqa: B008 - it has no state
) -> Learned:
    """Everything between the pinned rows and the gates; `folder`, if given, gets the reports and the metrics.

    What is finished goes into `keep`, and what is there already is not computed again.
    """
    with stages.stage(Stage.REWARD_MODEL):
        data = dataset.build(pinned.pairs, pinned.ratings, pinned.prompts, config.split)
        fitted = keep.result("fitted", lambda: fit(data, _features(lm, data, config, stages, keep), config))
        if folder is not None:
            folder.reward_report(reward_figures(fitted))
    with stages.stage(Stage.POLICY):
        policy = start_policy(lm, config, parent_dir)
        before = keep.result("before", lambda: _before(policy, data, fitted, config, parent_dir, stages))
        report = _trained(policy, data, before, config, stages, folder, keep)
    with stages.stage(Stage.EVALUATE):
        evaluation = keep.result("evaluation", lambda: _evaluated(policy, data, before, fitted, config, stages))
    return Learned(policy, data, fitted, evaluation, report)


def _features(lm: LanguageModel, data: Dataset, config: CycleConfig, stages: Stages, keep: Checkpoints) -> FeatureTable:
    """Features of every answer that a label speaks of; the rows follow from the labels, so only the tensor is kept."""
    answers = [a for part in (data.train, data.held_out, data.judge) for a in answers_of(part)]

    def read() -> tuple[Tensor, int]:
        table = featurize(lm, answers, config.limits, lambda share: stages.progress(0.95 * share))
        return table.features_NF, table.tokens

    features_NF, tokens = keep.result("features", read)
    return FeatureTable({key: n for n, key in enumerate(dict.fromkeys(answers))}, features_NF, tokens)


def _before(
    policy: Policy, data: Dataset, fitted: Fitted, config: CycleConfig, parent_dir: Path | None, stages: Stages
) -> Before:
    before = look_before(
        policy, data, fitted, config, parent_is_base=parent_dir is None, progress=lambda _: stages.progress(0.0)
    )
    stages.use(generated=before.tokens)
    return before


def _evaluated(
    policy: Policy, data: Dataset, before: Before, fitted: Fitted, config: CycleConfig, stages: Stages
) -> Evaluation:
    evaluation, tokens = evaluate(policy, data, before, fitted, config, progress=stages.progress)
    stages.use(generated=tokens)
    return evaluation


def _trained(
    policy: Policy,
    data: Dataset,
    before: Before,
    config: CycleConfig,
    stages: Stages,
    folder: CycleFolder | None,
    keep: Checkpoints,
) -> PPOReport:
    """Train `policy` in place, or make it what it had become when a process died after its training."""
    parameters = [*policy.adapter_parameters(), *policy.value_parameters()]

    def train() -> tuple[PPOReport, tuple[Tensor, ...]]:
        report = _train(policy, data, before, config, stages, folder, keep)
        return report, tuple(p.detach() for p in parameters)

    report, values = keep.result("trained", train)
    copy_into(parameters, values)
    return report


def _train(
    policy: Policy,
    data: Dataset,
    before: Before,
    config: CycleConfig,
    stages: Stages,
    folder: CycleFolder | None,
    keep: Checkpoints,
) -> PPOReport:
    resume = cast("State | None", keep.load("ppo"))
    if folder is not None:
        folder.keep_steps(len(resume.steps) if resume else 0)

    def on_step(step: PPOStep) -> None:
        if folder is not None:
            folder.step(asdict(step))
        stages.use(generated=step.tokens, trained=round(step.tokens * step.optimizer_steps / config.ppo.minibatches))
        figures = {"reward": step.reward, "kl": step.kl, "entropy": step.entropy, "length": step.length}
        stages.progress((step.iteration + 1) / config.ppo.iterations, figures)

    return improve(
        policy,
        before.signal,
        [encode_prompt(policy.lm, p, config.limits) for p in data.train_prompts],
        config.ppo,
        seed=config.seed,
        on_step=on_step,
        should_stop=stages.early_stop,
        resume=resume,
        on_state=lambda state: keep.save_now_and_then("ppo", state),
    )


def fit(dataset: Dataset, table: FeatureTable, config: CycleConfig) -> Fitted:
    """The reward ensemble on the training set, the judge's on its own."""
    generator = torch.Generator().manual_seed(config.seed)
    train, held_out, judged = (reward_data(s, table) for s in (dataset.train, dataset.held_out, dataset.judge))
    ensemble, report = reward.fit_ensemble(train, config.reward, generator, held_out=held_out)
    other, other_report = reward.fit_ensemble(judged, config.reward, generator)
    return Fitted(ensemble, report, other, other_report)


def start_policy(lm: LanguageModel, config: CycleConfig, adapter_dir: Path | None) -> Policy:
    """The policy as it is before training: the parent's adapter, or a new one that changes nothing yet."""
    torch.manual_seed(config.seed)  # a new adapter draws its A from the global generator
    return attach_policy(lm, LoraSettings(**config.lora.model_dump()), adapter_dir=adapter_dir)


def look_before(
    policy: Policy, dataset: Dataset, fitted: Fitted, config: CycleConfig, *, parent_is_base: bool, progress: Progress
) -> Before:
    """Answers to compare with later, and the reward normalized on what the base answers to training prompts."""
    held = [encode_prompt(policy.lm, p, config.limits) for p in dataset.held_out_prompts]
    train = [encode_prompt(policy.lm, p, config.limits) for p in dataset.train_prompts[:REFERENCE_PROMPTS]]
    seed = config.seed + 1
    base = answers_to(policy, held, config, seed=seed, reference=True, progress=progress)
    parent = base if parent_is_base else answers_to(policy, held, config, seed=seed, progress=progress)
    reference = answers_to(policy, train, config, seed=config.seed + 2, reference=True, progress=progress)
    signal = reward.signal(fitted.reward, reference.features_NF, config.reward)
    tokens = len(held) * (base.tokens + (0.0 if parent_is_base else parent.tokens)) + len(train) * reference.tokens
    return Before(tuple(map(tuple, held)), parent, base, signal, round(tokens))


def answers_to(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    config: CycleConfig,
    *,
    seed: int,
    progress: Progress,
    reference: bool = False,
) -> Answers:
    """One answer to each prompt, in parts so short that a request to stop is soon heard."""
    parts: list[Answers] = []
    sampling = config.ppo.sampling
    for n, start in enumerate(range(0, len(prompts), SAMPLE_BATCH)):
        part = prompts[start : start + SAMPLE_BATCH]
        parts.append(judge.sample_answers(policy, part, sampling, seed=seed * 1000 + n, reference=reference))
        progress((start + len(part)) / len(prompts))
    weights = [len(part.texts) / len(prompts) for part in parts]
    return Answers(
        texts=tuple(text for part in parts for text in part.texts),
        features_NF=torch.cat([part.features_NF for part in parts]),
        kl=sum(w * part.kl for w, part in zip(weights, parts, strict=True)),
        finished=sum(w * part.finished for w, part in zip(weights, parts, strict=True)),
        tokens=sum(w * part.tokens for w, part in zip(weights, parts, strict=True)),
    )


def evaluate(
    policy: Policy, dataset: Dataset, before: Before, fitted: Fitted, config: CycleConfig, *, progress: Progress
) -> tuple[Evaluation, int]:
    """The trained policy on the held-out prompts, by the judge; and the tokens generated for it."""
    after = answers_to(policy, before.prompts, config, seed=config.seed + 1, progress=progress)
    scores = {
        name: fitted.judge.score(answers.features_NF).mean(1).tolist()
        for name, answers in (("after", after), ("parent", before.parent), ("base", before.base))
    }
    samples = tuple(
        Sample(prompt=prompt[-1][1], before=old, after=new, judge_before=old_score, judge_after=new_score)
        for prompt, old, new, old_score, new_score in zip(
            dataset.held_out_prompts, before.parent.texts, after.texts, scores["parent"], scores["after"], strict=True
        )
    )
    evaluation = Evaluation(
        prompts=len(before.prompts),
        judged_by=dataset.judged_by,
        win_rate_vs_parent=_interval(judge.win_rate(scores["after"], scores["parent"], seed=config.seed)),
        win_rate_vs_base=_interval(judge.win_rate(scores["after"], scores["base"], seed=config.seed)),
        kl=after.kl,
        length=after.tokens,
        parent_length=before.parent.tokens,
        base_length=before.base.tokens,
        finished=after.finished,
        samples=samples[:KEPT_SAMPLES],
    )
    return evaluation, round(after.tokens * len(before.prompts))


def measured(fitted: Fitted, report: PPOReport, evaluation: Evaluation) -> dict[str, float | None]:
    """Every figure of a cycle, flat."""
    training = {
        "ppo_reward": report.reward,
        "ppo_first_reward": report.first_reward,
        "ppo_kl": report.kl,
        "ppo_steps": float(report.optimizer_steps),
        "ppo_answers": float(report.answers),
    }
    found = {
        "kl": evaluation.kl,
        "length": evaluation.length,
        "finished": evaluation.finished,
        "win_rate_vs_parent": evaluation.win_rate_vs_parent.mean,
        "win_rate_vs_base": evaluation.win_rate_vs_base.mean,
    }
    return {**reward_figures(fitted), **training, **found}


def candidate(
    fitted: Fitted, evaluation: Evaluation, config: CycleConfig, figures: Mapping[str, float | None]
) -> Candidate:
    """What the gates look at."""
    return Candidate(
        reward_model=accuracy_of(fitted.reward_report),
        judge=accuracy_of(fitted.judge_report),
        win_rate_vs_parent=gates.Share(**evaluation.win_rate_vs_parent.model_dump()),
        kl=evaluation.kl,
        kl_budget=config.ppo.kl_budget,
        length=evaluation.length,
        parent_length=evaluation.parent_length,
        figures={name: value for name, value in figures.items() if value is not None},
    )


def accuracy_of(report: RewardReport) -> Share | None:
    """The accuracy on pairs or on ratings, whichever rests on more cases."""
    found = [e for e in (report.pair_accuracy, report.rating_accuracy) if e is not None]
    best: Estimate | None = max(found, key=lambda e: e.n, default=None)
    return None if best is None else Share(best.mean, best.low, best.high, best.n)


def reward_figures(fitted: Fitted) -> dict[str, float | None]:
    """The reports of both ensembles, flat."""
    reward_model = {f"reward_{name}": value for name, value in reward.as_metrics(fitted.reward_report).items()}
    judged = {f"judge_{name}": value for name, value in reward.as_metrics(fitted.judge_report).items()}
    return reward_model | judged


def _interval(rate: WinRate) -> Interval:
    return Interval(mean=rate.mean, low=rate.low, high=rate.high, n=rate.n)
