"""From labels to the models that rate answers: what the reward model, the judge and the safety head are fitted on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from trainer.core import reward
from trainer.core.dataset import Dataset, Labels
from trainer.core.gates import LabelOutcomes
from trainer.core.gates.labels import outcomes
from trainer.core.reward import RewardEnsemble, RewardReport
from trainer.core.safety import SafetyHead, SafetyReport, fit_safety
from trainer.core.safety_examples import SafetyExample
from trainer.features import FeatureTable, numbered, reward_data, safety_data
from trainer.settings import CycleConfig

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
) -> Fitted:
    """The reward ensemble on the training set, the judge's on its own, the safety head on its examples."""
    generator = torch.Generator().manual_seed(config.seed)
    people = numbered(dataset.train, dataset.held_out)
    train, held_out = (reward_data(s, table, segments, people) for s in (dataset.train, dataset.held_out))
    judged = reward_data(dataset.judge, table, segments)
    ensemble, report = reward.fit_ensemble(train, config.reward, generator, held_out=held_out)
    other, other_report = reward.fit_ensemble(judged, config.reward, generator)
    seen = outcomes(ensemble.score(held_out.features_NF).mean(1), held_out, train)
    safety, safety_report = fit_safety(safety_data(examples, table), config.safety, generator)
    return Fitted(ensemble, report, other, other_report, seen, safety, safety_report)


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
    return reward_model | judged | safety
