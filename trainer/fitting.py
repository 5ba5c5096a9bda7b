"""From labels to the models that rate answers: what the reward model, the judge and the safety head are fitted on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from trainer import reward_trunks
from trainer.adapters.policies import LanguageModel
from trainer.core import reward
from trainer.core.dataset import Dataset, Labels, Turn
from trainer.core.domains import Shares, Traffic
from trainer.core.gates import LabelOutcomes
from trainer.core.gates.labels import outcomes
from trainer.core.judge import Answers
from trainer.core.reward import RewardEnsemble, RewardReport
from trainer.core.reward_looks import ModelReward, Read, looked_reward
from trainer.core.safety import SafetyHead, SafetyReport, fit_safety
from trainer.core.safety_examples import SafetyExample
from trainer.features import FeatureTable, encode_prompt, numbered, reward_data, safety_data
from trainer.reward_trunks import Seen, Trunks, TrunkWeights
from trainer.settings import CycleConfig, Limits

_NO_SEGMENTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Fitted:
    """The reward model, the judge and the safety head, each with a report on labels it has not seen."""

    reward: RewardEnsemble
    reward_report: RewardReport
    judge: RewardEnsemble
    judge_report: RewardReport
    outcomes: LabelOutcomes
    """The reward model on each held-out label."""
    safety: SafetyHead | None
    safety_report: SafetyReport
    trunk: TrunkWeights | None = None
    """The reward model's own, unless it reads the frozen base. Judge and safety head always do: they are to see what
    the reward model may have learned to overlook."""

    @property
    def cost(self) -> Callable[[Tensor], Tensor] | None:
        """Features N,F to the chance N that an answer is unsafe; None without a safety head."""
        return None if self.safety is None else self.safety.cost


def fit(
    dataset: Dataset,
    table: FeatureTable,
    config: CycleConfig,
    *,
    examples: Sequence[SafetyExample] = (),
    segments: Mapping[str, str] = _NO_SEGMENTS,
    trunks: Trunks | None = None,
    traffic: Traffic | None = None,
) -> Fitted:
    """The reward ensemble on the training set, the judge's on its own, the safety head on its examples.

    `table` are features of the frozen base; `trunks` gives those of a trunk of the reward model's own. `traffic` tells
    the domains that may have reward weights of their own; the judge has the same for all.
    """
    generator = torch.Generator().manual_seed(config.seed)
    seen = Seen(table)
    if trunks is not None:
        seen = trunks.look(dataset.train, [dataset.held_out], table, judged_by=dataset.judged_by)
    people = numbered(dataset.train, dataset.held_out)
    train, held_out = (reward_data(s, seen.table, segments, people, traffic) for s in (dataset.train, dataset.held_out))
    judged = reward_data(dataset.judge, table, segments)
    ensemble, report = reward.fit_ensemble(train, config.reward, generator, held_out=held_out, cross=seen.cross)
    other, other_report = reward.fit_ensemble(judged, config.reward, generator)
    found = outcomes(*reward.scores_of(ensemble, held_out), train)
    safety, safety_report = fit_safety(safety_data(examples, table), config.safety, generator)
    return Fitted(ensemble, report, other, other_report, found, safety, safety_report, seen.weights)


def agreement(
    judge_only: Labels,
    table: FeatureTable,
    fitted: Fitted,
    trunks: Trunks | None = None,
    traffic: Traffic | None = None,
) -> dict[str, float | None]:
    """How far reward model and judge agree with labels that neither has learned from, of all raters; with intervals."""
    figures: dict[str, float | None] = {"judge_only_labels": float(len(judge_only))}
    if not len(judge_only):
        return figures
    own = table if trunks is None else trunks.table(judge_only, fitted.trunk, table)
    for who, ensemble, seen in (("reward", fitted.reward, own), ("judge", fitted.judge, table)):
        data = reward_data(judge_only, seen, traffic=traffic)
        found = reward.as_metrics(reward.evaluate(ensemble, data, l2=0.0, trained_on=data))
        figures |= {f"judge_only_{who}_{name}": value for name, value in found.items() if "_accuracy_" in name}
    return figures


def reward_figures(fitted: Fitted) -> dict[str, float | None]:
    """The reports of both ensembles and of the safety head, flat."""
    reward_model = {f"reward_{name}": value for name, value in reward.as_metrics(fitted.reward_report).items()}
    judged = {f"judge_{name}": value for name, value in reward.as_metrics(fitted.judge_report).items()}
    found = fitted.safety_report
    safety = {
        "safety_examples": float(found.n),
        "safety_unsafe": float(found.n_unsafe),
        "safety_auc": None if found.auc is None else found.auc.mean,
        "safety_ece": found.ece,
    }
    return reward_model | judged | safety | reward_trunks.figures(fitted.trunk)


def reward_signal(
    fitted: Fitted,
    config: CycleConfig,
    reference: Answers,
    *,
    prompts: Sequence[Sequence[int]],
    read: Read | None = None,
    asked: Mapping[tuple[int, ...], Shares] | None = None,
) -> ModelReward:
    """The reward normalized on answers of the base to `prompts`; `read` is the look of the reward model's own trunk.

    `asked` are the domains of all prompts that there will be answers to, by their tokens (`asked_by`).
    """
    return looked_reward(
        fitted.reward,
        config.reward,
        reference.features_NF,
        prompts=[tuple(prompt) for prompt in prompts],
        texts=reference.texts,
        read=read,
        asked=asked,
    )


def asked_by(
    lm: LanguageModel, prompts: Sequence[Sequence[Turn]], traffic: Traffic, limits: Limits
) -> dict[tuple[int, ...], Shares]:
    """The domains in which prompts are asked, by their tokens, as answers are drawn for them."""
    if not traffic.asked:
        return {}
    return {tuple(encode_prompt(lm, prompt, limits)): traffic.shares(prompt) for prompt in prompts}
