"""What a cycle's figures are called, and what the gates are shown of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.core import gates
from trainer.core.dataset import Dataset, rater_of
from trainer.core.gates import Candidate, Distance, Share
from trainer.core.gates.paired import bootstrap
from trainer.core.ppo_config import PPOReport
from trainer.core.reward import RewardReport
from trainer.fitting import Fitted, reward_figures
from trainer.learning import Learned
from trainer.methods import Report
from trainer.records import Evaluation
from trainer.settings import CycleConfig


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
        "win_certainty": evaluation.win_certainty,
        "win_rate_vs_base": evaluation.win_rate_vs_base.mean,
    }
    return {**reward_figures(fitted), **training, **limits, **found}


def candidate(learned: Learned, config: CycleConfig, figures: Mapping[str, float | None]) -> Candidate:
    """What the gates look at."""
    fitted, evaluation, probed = learned.fitted, learned.evaluation, learned.probed
    probes = {f"probe_{figure.name}": figure.new for figure in evaluation.probes}
    return Candidate(
        reward_model=ordered_by(fitted.reward_report),
        calibration=fitted.outcomes.calibration(config.seed),
        beyond_length=fitted.outcomes.beyond_length(config.seed),
        judge=ordered_by(fitted.judge_report),
        win_rate_vs_parent=gates.Share(**evaluation.win_rate_vs_parent.model_dump()),
        win_certainty=evaluation.win_certainty,
        comparisons=comparisons(learned.dataset),
        kl=_distance(learned.kl_N, config.ppo.kl_budget, config.seed),
        kl_parent=_distance(probed.kl_parent_N, config.ppo.kl_parent_budget, config.seed),
        length=evaluation.length,
        parent_length=evaluation.parent_length,
        work=learned.work,
        changed=learned.changed,
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


def _distance(ratio_N: Tensor, budget: float, seed: int) -> Distance:
    low, high = bootstrap(ratio_N.double(), torch.Generator().manual_seed(seed))
    return Distance(float(ratio_N.mean()), low, high, len(ratio_N), budget)


def ordered_by(report: RewardReport) -> Share | None:
    """How often the scores have people's order, over pairs and thumbs."""
    found = report.ordering
    return None if found is None else Share(found.mean, found.low, found.high, found.n)
