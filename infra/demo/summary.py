"""`summary.json`: all that a run showed, as plain data, for people's scripts and for the report."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.demo.evaluate import Evaluation
from infra.demo.options import DemoOptions, Tuning
from infra.demo.progress import CycleRecord, Progress, order_of
from infra.demo.statistics import Estimate, wilson
from infra.demo.verdict import judge_run
from infra.simulate.ledger import Ledger
from schemas.cycles import CycleStatus
from schemas.feedback import FeedbackKind
from schemas.versions import ModelVersion

FILE = "summary.json"
BRONZE = ("outputs", "feedback", "labels")
"""The tables of events that users and labelers send."""
BUCKET_SECONDS = 15
METHOD = {
    "win_rate": "share of (answer of the version, answer of the base) pairs to one held-out prompt in which the "
    "version's is worth more to the users' true taste; ties count one half; 95 % percentile bootstrap over prompts",
    "preference_rate": "share of thumbs up among the rated answers of a version in gold.ratings, noise and spam "
    "included; 95 % Wilson interval",
}


@dataclass(frozen=True)
class Exactness:
    """Acknowledged events held against the tables. All is well when `missing` and `doubled` are zero."""

    acknowledged: int
    missing: int
    doubled: int

    @property
    def holds(self) -> bool:
        return not self.missing and not self.doubled


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves in memory."""

    options: DemoOptions
    tuning: Tuning
    started_at: datetime
    seconds: float
    progress: Progress
    evaluation: Evaluation
    ledger: Ledger
    labels: int
    thumbs: Mapping[str, tuple[int, int]]
    tables: Mapping[str, int]
    dead_letters: Mapping[str, int]
    feedback: Exactness
    outputs: Exactness
    samples: Sequence[tuple[float, int, int]] = field(default_factory=tuple[tuple[float, int, int], ...])
    restarts: int = 0


def exactness(expected: set[str], found: Counter[str]) -> Exactness:
    """Every expected id once: how many are missing, and how many rows are there beyond the first of an id."""
    return Exactness(
        acknowledged=len(expected),
        missing=len(expected - found.keys()),
        doubled=sum(n - 1 for n in found.values()),
    )


def build(outcome: Outcome) -> dict[str, Any]:
    """The summary. The keys that other programs may rely on come first."""
    ledger, serving = outcome.ledger, outcome.progress.serving
    scores = outcome.evaluation.scores
    versions = [_version(outcome, s.event) for s in _in_order(outcome.progress)]
    final = scores[serving].win_rate if serving in scores else None
    return {
        "versions": versions,
        "events": {
            "sent": ledger.answers + len(ledger.acknowledged) + outcome.labels,
            "in_tables": sum(outcome.tables.get(name, 0) for name in BRONZE),
            "dead_letters": sum(outcome.dead_letters.values()),
            "dead_letters_by_reason": dict(outcome.dead_letters),
            "bad_on_purpose": ledger.bad_on_purpose,
            "refused_on_purpose": ledger.refused_on_purpose,
            "answers": ledger.answers,
            "feedback": len(ledger.acknowledged),
            "feedback_sendings": ledger.acknowledged.total(),
            "feedback_by_kind": dict(ledger.kinds),
            "labels": outcome.labels,
            "retries": ledger.retries,
        },
        "seconds": round(outcome.seconds, 1),
        "seed": outcome.options.seed,
        "model": outcome.options.model,
        "verdict": asdict(judge_run(serving, final, cycles=len(outcome.progress.ended))),
        "serving": serving,
        "exactly_once": {"feedback": _exact(outcome.feedback), "outputs": _exact(outcome.outputs)},
        "tables": dict(outcome.tables),
        "cycles": [_cycle(c, outcome.started_at) for c in outcome.progress.cycles.values()],
        "examples": [
            {"prompt": e.prompt, "answers": {v: {"text": t, "taste": round(w, 3)} for v, (t, w) in e.answers.items()}}
            for e in outcome.evaluation.examples
        ],
        "left_out_of_evaluation": dict(outcome.evaluation.left_out),
        "promotions": [
            {"second": _second(time, outcome.started_at), "version": version}
            for time, version in outcome.progress.promotions
        ],
        "traffic": traffic(ledger.history),
        "growth": [{"second": round(s, 1), "sent": sent, "rows": rows} for s, sent, rows in outcome.samples],
        "restarts": outcome.restarts,
        "started_at": outcome.started_at.isoformat(timespec="seconds"),
        "settings": {k: None if v is None else str(v) if isinstance(v, Path) else v
                     for k, v in asdict(outcome.options).items()},
        "tuning": asdict(outcome.tuning),
        "method": METHOD,
    }  # fmt: skip


def write(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write it in one step: a reader sees the whole file or none."""
    path, partial = folder / FILE, folder / (FILE + ".partial")
    partial.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return partial.replace(path)


def traffic(history: Sequence[tuple[float, str, FeedbackKind | None]]) -> list[dict[str, Any]]:
    """Answers and thumbs of each version in stretches of time."""
    counts: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for second, version, thumb in history:
        bucket = counts[int(second // BUCKET_SECONDS) * BUCKET_SECONDS, version]
        bucket["answers"] += 1
        bucket["up"] += thumb is FeedbackKind.THUMBS_UP
        bucket["down"] += thumb is FeedbackKind.THUMBS_DOWN
    return [{"second": s, "version": v, **counts[s, v]} for s, v in sorted(counts)]


def _in_order(progress: Progress) -> list[Any]:
    return sorted(progress.board.standings.values(), key=lambda s: order_of(s.event.version))


def _version(outcome: Outcome, event: ModelVersion) -> dict[str, Any]:
    score = outcome.evaluation.scores.get(event.version)
    up, down = outcome.thumbs.get(event.version, (0, 0))
    rate = wilson(up, up + down)
    return {
        "version": event.version,
        "parent": event.parent,
        "true_taste_mean": round(score.true_taste.value, 4) if score else None,
        "true_taste_ci": _interval(score.true_taste) if score else None,
        "win_rate_vs_base": round(score.win_rate.value, 4) if score else None,
        "win_rate_ci": _interval(score.win_rate) if score else None,
        # The event of a version that was refused has no figures beside its gates.
        "kl": event.kl if event.kl is not None else next((g.value for g in event.gates if g.name == "kl"), None),
        "promoted": event.version in {version for _, version in outcome.progress.promotions},
        "state": event.state.value,
        "judge_win_rate_vs_parent": event.win_rate,
        "preference_rate": round(rate.value, 4) if rate else None,
        "preference_rate_ci": _interval(rate) if rate else None,
        "thumbs_up": up,
        "thumbs_down": down,
        "answers": outcome.ledger.answers_of[event.version],
        "mean_words": round(score.mean_words, 1) if score else None,
        "gates": [gate.model_dump() for gate in event.gates],
        "cycle_id": event.cycle_id,
        "reason": event.reason,
    }


def _cycle(record: CycleRecord, start: datetime) -> dict[str, Any]:
    last = record.last
    return {
        "cycle_id": last.cycle_id,
        "status": last.status.value,
        "version": last.version,
        "reason": last.reason,
        "began_second": _second(record.began, start),
        "ended_second": _second(record.at, start) if record.ended else None,
        "failed": last.status is CycleStatus.FAILED,
        "cost": last.cost.model_dump(),
        "stage_seconds": {name: round(seconds, 1) for name, seconds in record.stage_seconds.items()},
        "metrics": record.metrics,
    }


def _second(time: datetime, start: datetime) -> float:
    return round((time - start).total_seconds(), 1)


def _interval(estimate: Estimate) -> list[float]:
    return [round(estimate.low, 4), round(estimate.high, 4)]


def _exact(exact: Exactness) -> dict[str, Any]:
    return asdict(exact) | {"holds": exact.holds}
