"""What a cycle computes, from pinned rows to an evaluated policy: the core's functions on one base model.

    labels ─► features on the frozen base ─► reward ensemble (training raters) ─► signal ─► PPO ─► policy
                                         ├─► judge ensemble  (other raters) ───────────────┐         │
                                         └─► safety head     (flags) ──────────────────────┤         │
    held-out prompts ─► answers of parent and base (before), of the new policy (after) ────┴─► evaluation, probes

Deterministic on the CPU for a configuration, rows, a parent and a number of threads. What is finished goes into
`Checkpoints`, and what is there already is not computed again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from schemas.cycles import Stage
from trainer import probing
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.lake import Pinned
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy
from trainer.adapters.probes import load_suite
from trainer.adapters.rewards import ExtraReward
from trainer.comparing import Before, evaluate, look_before
from trainer.core import dataset
from trainer.core.checkpoint import copy_into
from trainer.core.dataset import Dataset
from trainer.core.domains import Traffic
from trainer.core.generation import Drawing
from trainer.core.parallel import ALONE, Peers
from trainer.core.parents import Parent
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOStep
from trainer.core.ppo_update import State
from trainer.core.probes.suite import Suite
from trainer.core.reward_looks import Read
from trainer.core.safety_examples import SafetyExample
from trainer.domain_figures import domain_figures
from trainer.features import FeatureTable, encode_prompt, featurize, in_order_of_time
from trainer.fitting import Fitted, agreement, asked_by, fit, reward_figures
from trainer.methods import Report, reward_shares, train_directly
from trainer.overseeing import overseers, written
from trainer.probing import HeldOut, Probed
from trainer.records import Evaluation
from trainer.reward_trunks import ParentTrunk, Trunks
from trainer.settings import CycleConfig
from trainer.stages import Stages

OWN_REWARD = "reward"
"""The name by which a checkpoint knows the user's own reward, which each process loads itself."""
OWN_LOOK = "reward_trunk"
"""The same for the look of the reward model's own trunk."""


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
    """Log-ratio against the base, the mean of each held-out prompt's answers."""
    work: float
    """Weights multiplied for a token, as a share of the parent's."""
    changed: bool
    """Whether the adapter is another than the one that the training began with."""
    figures: Mapping[str, float | None]
    """Of the data, and of how reward model and judge agree with labels that are for judging only."""


@dataclass(frozen=True)
class _Evaluated:
    """What is kept of the evaluation."""

    evaluation: Evaluation
    probed: Probed
    kl_N: Tensor


@dataclass(frozen=True)
class Work:
    """One cycle's learning at work: what all its steps need."""

    lm: LanguageModel
    config: CycleConfig
    stages: Stages
    folder: CycleFolder | None
    keep: Checkpoints
    parent_is_base: bool
    trunks: Trunks
    cache: FeatureCache | None = None
    peers: Peers = ALONE
    drawing: Drawing | None = None


def learn(
    lm: LanguageModel,
    pinned: Pinned,
    config: CycleConfig,
    parent_dir: Path | None,
    stages: Stages,
    folder: CycleFolder | None = None,
    keep: Checkpoints | None = None,
    extra: ExtraReward | None = None,
    *,
    trunk: ParentTrunk | None = None,
    cache: FeatureCache | None = None,
    peers: Peers = ALONE,
    drawing: Drawing | None = None,
) -> Learned:
    """Everything between the pinned rows and the gates; `folder`, if given, gets the reports and the metrics.

    `extra` is a reward of the user's own; `config.extra_reward` tells of it. `trunk` is the parent's reward model's.
    `cache` saves reading what was read before, and changes nothing else. With `peers` all of them call this
    (`trainer.together`); `drawing` is a server that draws PPO's answers.
    """
    trunks = Trunks.of(lm, config, progress=stages.progress, parent=trunk, tokens=lambda n: stages.use(trained=n))
    kept, from_base = keep or Checkpoints(None), parent_dir is None
    work = Work(lm, config, stages, folder, kept, from_base, trunks, cache, peers, drawing)
    work.keep.live[OWN_LOOK] = trunks.read
    if extra is not None:
        work.keep.live[OWN_REWARD] = extra.raw
    suite = load_suite(config.probes.file)  # first of all: a file that can't be read shall not cost a training run
    with stages.stage(Stage.REWARD_MODEL):
        data = dataset.build(
            pinned.pairs,
            pinned.ratings,
            pinned.prompts,
            config.split,
            thumbs=pinned.thumbs,
            older=pinned.older,
        )
        table = _features(work, data, pinned.safety)
        fitted = work.keep.result(
            "fitted",
            lambda: fit(
                data,
                table,
                config,
                examples=pinned.safety,
                segments=pinned.segments,
                trunks=trunks,
                traffic=pinned.traffic,
            ),
        )
        read = trunks.reader(fitted.trunk)  # whether it was fitted here or by a process before
        if folder is not None:
            folder.reward_report(reward_figures(fitted) | domain_figures(fitted.reward_report))
        stages.shared(peers)
    with stages.stage(Stage.POLICY):
        policy = start_policy(lm, config, parent_dir)
        parent = Parent(policy)
        before = work.keep.result("before", lambda: _before(work, policy, data, fitted, extra, read, pinned.traffic))
        report = _trained(work, policy, parent, data, before, fitted)
        stages.shared(peers)
    with stages.stage(Stage.EVALUATE):
        found = work.keep.result("evaluation", lambda: _evaluated(work, policy, parent, suite, data, before, fitted))
        stages.shared(peers)
    return Learned(
        policy=policy,
        dataset=data,
        fitted=fitted,
        evaluation=found.evaluation,
        report=report,
        probed=found.probed,
        kl_N=found.kl_N,
        work=work_share(policy, parent_is_base=parent_dir is None),
        changed=parent.differs(),
        figures={
            **data.figures,
            **agreement(data.judge_only, table, fitted, trunks, pinned.traffic),
            **reward_shares(before.signal),
        },
    )


def _features(work: Work, data: Dataset, safety: tuple[SafetyExample, ...]) -> FeatureTable:
    """Features of every answer that a label speaks of; the rows follow from the labels, so only the tensor is kept."""
    labelled = (data.train, data.held_out, data.judge, data.judge_only)
    answers = in_order_of_time(labelled, (example.key for example in safety))

    def read() -> tuple[Tensor, int]:
        progress = work.stages.progress
        table = featurize(
            work.lm, answers, work.config.limits, lambda share: progress(0.95 * share), work.cache, peers=work.peers
        )
        return table.features_NF, table.tokens

    features_NF, tokens = work.keep.result("features", read)
    return FeatureTable({key: n for n, key in enumerate(answers)}, features_NF, tokens)


def start_policy(lm: LanguageModel, config: CycleConfig, adapter_dir: Path | None) -> Policy:
    """The policy as it is before training: the parent's adapter, or a new one that changes nothing yet."""
    torch.manual_seed(config.seed)  # a new adapter draws its A from the global generator
    lora = LoraSettings(**config.lora.model_dump())
    return attach_policy(lm, lora, adapter_dir=adapter_dir, critic=config.ppo.critic)


def work_share(policy: Policy, *, parent_is_base: bool) -> float:
    """Weights multiplied for a token: the new version's to its parent's, whose adapter it began with."""
    added = sum(p.numel() for p in policy.adapter_parameters())
    base = policy.lm.n_parameters()
    return (base + added) / (base if parent_is_base else base + added)


def _before(
    work: Work,
    policy: Policy,
    data: Dataset,
    fitted: Fitted,
    extra: ExtraReward | None,
    read: Read | None,
    traffic: Traffic,
) -> Before:
    before = look_before(
        policy,
        data,
        fitted,
        work.config,
        parent_is_base=work.parent_is_base,
        progress=lambda _: work.stages.progress(0.0),
        extra=extra,
        read=read,
        asked=asked_by(policy.lm, (*data.train_prompts, *data.held_out_prompts), traffic, work.config.limits),
        peers=work.peers,
    )
    work.stages.use(generated=before.tokens)
    return before


def _trained(work: Work, policy: Policy, parent: Parent, data: Dataset, before: Before, fitted: Fitted) -> Report:
    """Train `policy` in place, or make it what it had become when a process died after its training."""
    parameters = [*policy.adapter_parameters(), *policy.value_parameters()]

    def train() -> tuple[Report, tuple[Tensor, ...]]:
        report = _train(work, policy, parent, data, before, fitted)
        return report, tuple(p.detach() for p in parameters)

    report, values = work.keep.result("trained", train)
    copy_into(parameters, values)
    return report


def _train(work: Work, policy: Policy, parent: Parent, data: Dataset, before: Before, fitted: Fitted) -> Report:
    config, stages, folder, keep = work.config, work.stages, work.folder, work.keep
    if config.method != "ppo":
        return train_directly(policy, config.method, data, before.signal, config, stages, folder)
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
        overseers=overseers(
            fitted.judge,
            safety=fitted.cost,
            parent=None if work.parent_is_base else parent,
            parent_answers=before.parent,
            prompts=before.prompts,
            demonstrations=written(policy.lm, data.train.pairs, config.limits),
        ),
        on_step=on_step,
        should_stop=stages.early_stop,
        resume=resume,
        on_state=lambda state: keep.save_now_and_then("ppo", state),
        peers=work.peers,
        drawing=work.drawing,
    )


def _evaluated(
    work: Work, policy: Policy, parent: Parent, suite: Suite, data: Dataset, before: Before, fitted: Fitted
) -> _Evaluated:
    progress, peers = work.stages.progress, work.peers
    evaluation, after = evaluate(policy, data, before, fitted.judge, work.config, progress=progress, peers=peers)
    work.stages.use(generated=round(after.tokens * len(after.texts)))
    n = len(before.prompts)  # one answer to each: those to one prompt are no cases of their own
    held = HeldOut(
        questions=tuple(prompt[-1][1] for prompt in data.held_out_prompts),
        prompts=before.prompts,
        new=after.first(n),
        parent=before.parent.first(n),
        base=None if work.parent_is_base else before.base.first(n),
    )
    probed = probing.probe(policy, parent, suite, held, work.config, progress=progress, cost=fitted.cost, peers=peers)
    work.stages.use(generated=probed.tokens)
    return _Evaluated(probing.noted(evaluation, probed), probed, after.kl_N.view(-1, n).mean(0))
