"""What a cycle computes, from pinned rows to an evaluated policy: the core's functions on one base model.

    labels ─► features on the frozen base ─► reward ensemble (training raters) ─► signal ─► PPO ─► policy
                                         └─► judge ensemble  (other raters) ───────────────┐         │
    held-out prompts ─► answers of parent and base (before), of the new policy (after) ────┴─► evaluation

Deterministic on the CPU for a configuration, rows, a parent and a number of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from schemas.cycles import Stage
from trainer import probing
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.lake import Pinned
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy
from trainer.adapters.probes import load_suite
from trainer.adapters.rewards import ExtraReward
from trainer.core import dataset, gates, judge, reward
from trainer.core.dataset import Dataset, Labels, rater_of
from trainer.core.gates import Candidate, Distance, LabelOutcomes, Share
from trainer.core.gates.labels import outcomes
from trainer.core.gates.paired import bootstrap
from trainer.core.judge import Answers, WinRate
from trainer.core.overseers import Overseers
from trainer.core.parents import Parent
from trainer.core.ppo import PPOReport, PPOStep, improve
from trainer.core.reward import Estimate, RewardEnsemble, RewardReport, RewardSignal
from trainer.core.rewards import CombinedReward
from trainer.features import FeatureTable, Progress, answers_of, encode_prompt, featurize, reward_data
from trainer.methods import Report, reward_shares, train_directly, with_extra
from trainer.overseeing import overseers, written
from trainer.probing import HeldOut, Probed, SafetyCost
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
    outcomes: LabelOutcomes
    """The reward model on each held-out label."""
    cost: SafetyCost | None = None


@dataclass(frozen=True)
class Learned:
    """What the learning made: a trained policy, what trained it and judged it, and how it did."""

    policy: Policy
    dataset: Dataset
    fitted: Fitted
    evaluation: Evaluation
    report: Report
    probed: Probed
    kl_N: Tensor
    """Log-ratio of each held-out answer against the base."""
    work: float
    """Weights multiplied for a token, as a share of the parent's."""
    figures: Mapping[str, float | None]
    """Of the data, and of how reward model and judge agree with labels that are for judging only."""


@dataclass(frozen=True)
class Before:
    """What parent and base answer to the held-out prompts before training, and the normalized reward signal."""

    prompts: tuple[tuple[int, ...], ...]
    parent: Answers
    base: Answers
    signal: RewardSignal | CombinedReward
    tokens: int


def learn(
    lm: LanguageModel,
    pinned: Pinned,
    config: CycleConfig,
    parent_dir: Path | None,
    stages: Stages,
    folder: CycleFolder | None = None,
    extra: ExtraReward | None = None,
) -> Learned:
    """Everything between the pinned rows and the gates; `folder`, if given, gets the reports and the metrics.

    `extra` is a reward of the user's own; `config.extra_reward` tells of it.
    """
    suite = load_suite(config.probes.file)  # first of all: a file that can't be read shall not cost a training run
    with stages.stage(Stage.REWARD_MODEL):
        data = dataset.build(pinned.pairs, pinned.ratings, pinned.prompts, config.split)
        parts = (data.train, data.held_out, data.judge, data.judge_only)
        answers = [a for part in parts for a in answers_of(part)]
        table = featurize(lm, answers, config.limits, lambda share: stages.progress(0.95 * share))
        fitted = fit(data, table, config)
        if folder is not None:
            folder.reward_report(reward_figures(fitted))
    with stages.stage(Stage.POLICY):
        policy = start_policy(lm, config, parent_dir)
        parent = Parent(policy)
        before = look_before(
            policy,
            data,
            fitted,
            config,
            parent_is_base=parent_dir is None,
            progress=lambda _: stages.progress(0.0),
            extra=extra,
        )
        stages.use(generated=before.tokens)
        watched_by = overseers(
            fitted.judge,
            safety=fitted.cost,
            parent=None if parent_dir is None else parent,
            parent_features_NF=before.parent.features_NF,
            parent_length=before.parent.tokens,
            demonstrations=written(lm, data.train.pairs, config.limits),
        )
        report = _train(policy, data, before, watched_by, config, stages, folder)
    with stages.stage(Stage.EVALUATE):
        evaluation, after = evaluate(policy, data, before, fitted, config, progress=stages.progress)
        stages.use(generated=round(after.tokens * len(before.prompts)))
        held = HeldOut(
            questions=tuple(prompt[-1][1] for prompt in data.held_out_prompts),
            prompts=before.prompts,
            new=after,
            parent=before.parent,
            base=None if parent_dir is None else before.base,
        )
        probed = probing.probe(policy, parent, suite, held, config, progress=stages.progress, cost=fitted.cost)
        stages.use(generated=probed.tokens)
    evaluation, work = probing.noted(evaluation, probed), work_share(policy, parent_is_base=parent_dir is None)
    figures = {**data.figures, **agreement(data.judge_only, table, fitted), **reward_shares(before.signal)}
    return Learned(policy, data, fitted, evaluation, report, probed, after.kl_N, work, figures)


def work_share(policy: Policy, *, parent_is_base: bool) -> float:
    """Weights multiplied for a token: the new version's to its parent's, whose adapter it began with."""
    added = sum(p.numel() for p in policy.adapter_parameters())
    base = policy.lm.n_parameters()
    return (base + added) / (base if parent_is_base else base + added)


def _train(
    policy: Policy,
    data: Dataset,
    before: Before,
    watched_by: Overseers,
    config: CycleConfig,
    stages: Stages,
    folder: CycleFolder | None,
) -> Report:
    if config.method != "ppo":
        return train_directly(policy, config.method, data, before.signal, config, stages, folder)

    def on_step(step: PPOStep) -> None:
        if folder is not None:
            folder.step(asdict(step))
        stages.use(generated=step.tokens, trained=round(step.tokens * step.optimizer_steps / config.ppo.minibatches))
        figures = {"reward": step.reward, "kl": step.kl, "entropy": step.entropy, "length": step.length}
        stages.progress((step.iteration + 1) / config.ppo.iterations, figures)

    prompts = [encode_prompt(policy.lm, p, config.limits) for p in data.train_prompts]
    return improve(
        policy,
        before.signal,
        prompts,
        config.ppo,
        seed=config.seed,
        overseers=watched_by,
        on_step=on_step,
        should_stop=stages.early_stop,
    )


def fit(dataset: Dataset, table: FeatureTable, config: CycleConfig) -> Fitted:
    """The reward ensemble on the training set, the judge's on its own."""
    generator = torch.Generator().manual_seed(config.seed)
    train, held_out, judged = (reward_data(s, table) for s in (dataset.train, dataset.held_out, dataset.judge))
    ensemble, report = reward.fit_ensemble(train, config.reward, generator, held_out=held_out)
    other, other_report = reward.fit_ensemble(judged, config.reward, generator)
    seen = outcomes(ensemble.score(held_out.features_NF).mean(1), held_out, train)
    return Fitted(ensemble, report, other, other_report, seen)


def agreement(judge_only: Labels, table: FeatureTable, fitted: Fitted) -> dict[str, float | None]:
    """How far reward model and judge agree with labels that neither has learned from, of all raters; with intervals."""
    figures: dict[str, float | None] = {"judge_only_labels": float(len(judge_only))}
    if not len(judge_only):
        return figures
    data = reward_data(judge_only, table)
    for who, ensemble in (("reward", fitted.reward), ("judge", fitted.judge)):
        found = reward.as_metrics(reward.evaluate(ensemble, data, l2=0.0, trained_on=data))
        figures |= {f"judge_only_{who}_{name}": value for name, value in found.items() if "_accuracy_" in name}
    return figures


def start_policy(lm: LanguageModel, config: CycleConfig, adapter_dir: Path | None) -> Policy:
    """The policy as it is before training: the parent's adapter, or a new one that changes nothing yet."""
    torch.manual_seed(config.seed)  # a new adapter draws its A from the global generator
    lora = LoraSettings(**config.lora.model_dump())
    return attach_policy(lm, lora, adapter_dir=adapter_dir, critic=config.ppo.critic)


def look_before(
    policy: Policy,
    dataset: Dataset,
    fitted: Fitted,
    config: CycleConfig,
    *,
    parent_is_base: bool,
    progress: Progress,
    extra: ExtraReward | None = None,
) -> Before:
    """Answers to compare with later, and the reward normalized on what the base answers to training prompts."""
    held = [encode_prompt(policy.lm, p, config.limits) for p in dataset.held_out_prompts]
    train = [encode_prompt(policy.lm, p, config.limits) for p in dataset.train_prompts[:REFERENCE_PROMPTS]]
    seed = config.seed + 1
    base = answers_to(policy, held, config, seed=seed, reference=True, progress=progress)
    parent = base if parent_is_base else answers_to(policy, held, config, seed=seed, progress=progress)
    reference = answers_to(policy, train, config, seed=config.seed + 2, reference=True, progress=progress)
    alone = reward.signal(fitted.reward, reference.features_NF, config.reward)
    signal = with_extra(alone, extra, policy.lm, dataset.train_prompts, reference, config)
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
        ids=tuple(answer for part in parts for answer in part.ids),
        log_prob_N=torch.cat([part.log_prob_N for part in parts]),
        kl_N=torch.cat([part.kl_N for part in parts]),
    )


def evaluate(
    policy: Policy, dataset: Dataset, before: Before, fitted: Fitted, config: CycleConfig, *, progress: Progress
) -> tuple[Evaluation, Answers]:
    """The trained policy on the held-out prompts, by the judge; and its answers."""
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
    return evaluation, after


def measured(fitted: Fitted, report: Report, evaluation: Evaluation) -> dict[str, float | None]:
    """Every figure of a cycle, flat."""
    training = {
        "ppo_reward": report.reward,
        "ppo_first_reward": report.first_reward,
        "ppo_kl": report.kl,
        "ppo_steps": float(report.optimizer_steps),
        "ppo_answers": float(report.answers),
    }
    limits: dict[str, float | None] = {}
    if isinstance(report, PPOReport):
        limits["ppo_kept_iteration"] = float(report.kept_iteration)
        limits |= {f"cost_{name}": value for name, value in report.costs.items()}
        limits |= {f"multiplier_{name}": value for name, value in report.multipliers.items()}
    found = {
        "kl": evaluation.kl,
        "length": evaluation.length,
        "finished": evaluation.finished,
        "win_rate_vs_parent": evaluation.win_rate_vs_parent.mean,
        "win_rate_vs_base": evaluation.win_rate_vs_base.mean,
    }
    return {**reward_figures(fitted), **training, **limits, **found}


def candidate(learned: Learned, config: CycleConfig, figures: Mapping[str, float | None]) -> Candidate:
    """What the gates look at."""
    fitted, evaluation, probed = learned.fitted, learned.evaluation, learned.probed
    probes = {f"probe_{figure.name}": figure.new for figure in evaluation.probes}
    return Candidate(
        reward_model=accuracy_of(fitted.reward_report),
        calibration=fitted.outcomes.calibration(config.seed),
        beyond_length=fitted.outcomes.beyond_length(config.seed),
        judge=accuracy_of(fitted.judge_report),
        win_rate_vs_parent=gates.Share(**evaluation.win_rate_vs_parent.model_dump()),
        comparisons=comparisons(learned.dataset),
        kl=_distance(learned.kl_N, config),
        kl_parent=_distance(probed.kl_parent_N, config),
        length=evaluation.length,
        parent_length=evaluation.parent_length,
        work=learned.work,
        probes=probed.paired,
        figures={name: value for name, value in {**figures, **probes}.items() if value is not None},
        seed=config.seed,
    )


def comparisons(dataset: Dataset) -> tuple[float, float, float]:
    """Prompts compared, and the effective number of prompts and of people behind the judge."""
    rows = [*dataset.judge.pairs, *dataset.judge.ratings]
    by_prompt = gates.effective((row.prompt_id, row.weight) for row in rows)
    by_rater = gates.effective((rater_of(row), row.weight) for row in rows)
    return float(len(set(dataset.held_out_prompts))), by_prompt, by_rater


def _distance(ratio_N: Tensor, config: CycleConfig) -> Distance:
    low, high = bootstrap(ratio_N.double(), torch.Generator().manual_seed(config.seed))
    return Distance(float(ratio_N.mean()), low, high, len(ratio_N), config.ppo.kl_budget)


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
