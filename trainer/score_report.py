"""`thumbwheel score`: what a reward model says of answers, for a look at drift and for choosing what is judged next.

Production answers (the newest ones that consent to training) or a file of them are scored by the newest reward model,
or by a named one; scores of production go to gold.scores, where active learning finds them.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from schemas.errors import NotEnoughData, SettingsError
from trainer.adapters.answers_file import read_answers
from trainer.adapters.environment import base_model_info
from trainer.adapters.lake import Answer, TrainerLake
from trainer.adapters.policies import LanguageModel
from trainer.adapters.registry import SAFETY_FILE, Registry
from trainer.core.drift import drift
from trainer.core.reward import RewardEnsemble
from trainer.core.safety import SafetyHead
from trainer.journal import BaseModelInfo
from trainer.kept_features import kept_features
from trainer.scoring import RewardModel, features_of, latest_reward_model, rows_of
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreRequest:
    """Which answers, by which reward model. `reward_model` is an id (reward-v3) or its version (v3)."""

    limit: int = 256
    version: str | None = None
    since: datetime | None = None
    file: Path | None = None
    reward_model: str | None = None
    dry_run: bool = False


class Scores(BaseModel):
    """Mean scores are calibrated logits of a thumb up. `spread` is the mean over answers of the heads' deviation;
    `safety_cost` the mean P(unsafe), None without a safety head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: int
    mean: float
    deviation: float
    spread: float
    below_zero: float
    safety_cost: float | None
    psi: float | None
    drift: str | None


class ScoreReport(BaseModel):
    """What was scored. `written` rows went to gold.scores: those that this reward model had not scored before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward_model: str
    total: Scores
    by_version: dict[str, Scores]
    written: int

    def table(self) -> str:
        """The report for a terminal."""
        names = f"{'version':<16}{'answers':>8}{'mean':>8}{'sd':>7}{'spread':>8}"
        header = f"{names}{'below 0':>9}{'unsafe':>8}{'PSI':>7}  drift"
        named = [*(self.by_version.items() if len(self.by_version) > 1 else ()), ("all", self.total)]
        rows = [_row(name, scores) for name, scores in named]
        return "\n".join([header, *rows, f"by {self.reward_model}; {self.written} rows written to gold/scores"])


def _row(name: str, s: Scores) -> str:
    cost = "-" if s.safety_cost is None else f"{s.safety_cost:.3f}"
    psi = "-" if s.psi is None else f"{s.psi:.2f}"
    meaning = s.drift or "not known: the reward model is of an earlier release"
    return (
        f"{name:<16}{s.answers:>8}{s.mean:>8.2f}{s.deviation:>7.2f}{s.spread:>8.2f}{s.below_zero:>9.0%}{cost:>8}"
        f"{psi:>7}  {meaning}"
    )


def run_score(
    settings: TrainerSettings,
    request: ScoreRequest,
    load_base: Callable[[], LanguageModel],
    *,
    now: Callable[[], datetime],
) -> ScoreReport:
    """Score and report; raises `NotEnoughData` where there is no reward model or no answer."""
    lake, registry = TrainerLake(settings.lake), Registry(settings.registry)
    model, safety = _models(registry, request.reward_model)
    name, ensemble = model.id, model.ensemble
    answers = _answers(lake, request)
    if not answers:
        raise NotEnoughData("there are no answers to score: widen --since or --version, or let the gateway serve some")
    base = load_base()
    reader = model.reads(base)
    kept = None if request.file else kept_features(settings, _base_info(settings), base)
    features_NF = features_of(reader, answers, limits=settings.limits, cache=kept if reader is base else None)
    scores_NH = model.scores(features_NF, answers)
    cost_N = None
    if safety is not None:  # fitted on the frozen base, whatever the reward model reads
        same = reader is base
        cost_N = safety.cost(features_NF if same else features_of(base, answers, limits=settings.limits, cache=kept))
    written = 0
    if not request.dry_run and request.file is None:
        known = lake.scored(name)
        fresh = [row for row in rows_of(answers, scores_NH, name, now) if row.response_id not in known]
        lake.append_scores(fresh)
        written = len(fresh)
    return _report(name, answers, scores_NH, cost_N, ensemble, written)


def _base_info(settings: TrainerSettings) -> BaseModelInfo:
    return base_model_info(settings.base_model_name, settings.base_model)


def _models(registry: Registry, wanted: str | None) -> tuple[RewardModel, SafetyHead | None]:
    if wanted is None:
        found = latest_reward_model(registry)
        if found is None:
            raise NotEnoughData("there is no reward model yet that passed its gate: run `thumbwheel train --now` first")
        wanted = found.id
    by_id = {registry.record(version).reward_model.id: version for version in registry.versions()}
    version = by_id.get(wanted, wanted if wanted in by_id.values() else None)
    if version is None:
        raise SettingsError(f"there is no reward model {wanted}; there: {', '.join(by_id) or 'none yet'}")
    folder = registry.folder(version)
    safety = SafetyHead.load(folder / SAFETY_FILE) if (folder / SAFETY_FILE).is_file() else None
    return RewardModel.of(registry, version), safety


def _answers(lake: TrainerLake, request: ScoreRequest) -> list[Answer]:
    if request.file is not None:
        return read_answers(request.file, limit=request.limit)
    return lake.answers(limit=request.limit, version=request.version, since=request.since)


def _report(
    name: str,
    answers: Sequence[Answer],
    scores_NH: Tensor,
    cost_N: Tensor | None,
    ensemble: RewardEnsemble,
    written: int,
) -> ScoreReport:
    versions = sorted({a.version for a in answers})
    rows = {v: torch.tensor([a.version == v for a in answers]) for v in versions}
    by_version = {
        v: _scores(scores_NH[mask], None if cost_N is None else cost_N[mask], ensemble) for v, mask in rows.items()
    }
    return ScoreReport(
        reward_model=name, total=_scores(scores_NH, cost_N, ensemble), by_version=by_version, written=written
    )


def _scores(scores_NH: Tensor, cost_N: Tensor | None, ensemble: RewardEnsemble) -> Scores:
    mean_N = scores_NH.mean(1)
    moved = None if ensemble.quantiles_Q is None else drift(mean_N, ensemble.quantiles_Q)
    return Scores(
        answers=len(mean_N),
        mean=float(mean_N.mean()),
        deviation=float(mean_N.std(correction=0)),
        spread=float(scores_NH.std(1).mean()),
        below_zero=float((mean_N < 0).float().mean()),
        safety_cost=None if cost_N is None else float(cost_N.mean()),
        psi=None if moved is None else moved.psi,
        drift=None if moved is None else moved.meaning,
    )


def as_json(report: ScoreReport) -> str:
    """One line for programs."""
    return json.dumps(report.model_dump())
