"""CPU seconds of an update cycle over a history of N labels and some new ones, against one over 10 N and as many.

The same model (tiny), settings and new labels on both sides; the tables are written by the lake's own code, as many
files for each thousand labels on either side, and seven answers for a label. Before the first round a cycle learns from
the history alone, as it would have in production; then each round appends new labels and runs a cycle, each side in a
process of its own with one thread (polars too), in turn. Its CPU seconds count from the pins to the scores; loading
the libraries does not count. N is what a cycle learns from at most (`THUMBWHEEL_MAX_LABELS`, 3,000): below it a longer
history is more data to learn from, and costs more as it should (`below_max_labels`, not held to anything).

Both sides learn from the same labels, so their adapters must be the same, byte for byte; the benchmark fails if not.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.result import Result
from infra.simulate import prompts
from schemas import tables
from schemas.ids import prompt_id
from schemas.messages import ChatMessage
from schemas.tables import Table
from streams.adapters.lake import open_table

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "tiny"
MAX_LABELS = 3000
NEW = 200
SHORT = 500
ROUNDS = 3
ANSWERS_FOR_A_LABEL = 7
FILE_LABELS = 1000
RATERS = 200
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KIND = ("Sure, gladly. ", "Happy to help. ", "Of course. ", "Good question. ")
CURT = ("No. ", "Busy now. ", "Look it up. ", "Whatever. ")
TAILS = (
    "It opens at nine.",
    "Try it again later.",
    "The blue one is in stock.",
    "Mix it and wait.",
    "Ask at the desk.",
)


@dataclass(frozen=True)
class Measured:
    """One cycle: its CPU seconds, those of its stages, what its reading found kept, and the SHA-256 of its adapter."""

    cpu_seconds: float
    stages: dict[str, float]
    read: int
    kept: int
    adapter: str


def run() -> Result:
    """Ratio `history_10x`: the longer history's cost by the shorter one's, the median over rounds."""
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} is missing; make it with `thumbwheel models fetch tiny`")
    with tempfile.TemporaryDirectory(prefix="thumbwheel-cycle-") as folder:
        short, long = _sides(Path(folder), MAX_LABELS)
        rounds = [_round(short, long, n) for n in range(ROUNDS)]
        below = _round(*_sides(Path(folder) / "below", SHORT), 0)
    if any(ours.adapter != theirs.adapter for ours, theirs in rounds):
        sys.exit("the cycles of the two sides learned different things: they can't be compared")
    ratio = statistics.median(theirs.cpu_seconds / ours.cpu_seconds for ours, theirs in rounds)
    details: dict[str, float | str] = {
        "note": f"N = {MAX_LABELS:,} labels (what a cycle learns from at most), {ANSWERS_FOR_A_LABEL} answers for each,"
        f" {NEW} new ones a round; one thread, CPU seconds of the whole cycle, reading included"
    }
    for name, side in (("N", [a for a, _ in rounds]), ("10N", [b for _, b in rounds])):
        details[name] = _told(side)
    ours, theirs = below
    details["below_max_labels"] = (
        f"{theirs.cpu_seconds / ours.cpu_seconds:.2f}x: {SHORT} labels {ours.cpu_seconds:.1f} s, "
        f"{10 * SHORT:,} labels, of which {MAX_LABELS:,} are learned from, {theirs.cpu_seconds:.1f} s"
    )
    return Result("cycle", {"history_10x": ratio}, details)


def _told(side: Sequence[Measured]) -> str:
    middle = sorted(side, key=lambda m: m.cpu_seconds)[len(side) // 2]
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in middle.stages.items())
    return f"{middle.cpu_seconds:.1f} s ({stages}); answers read {middle.read:,}, kept from before {middle.kept:,}"


def _sides(folder: Path, labels: int) -> tuple[Path, Path]:
    """Data folders with a history of so many labels and of ten times as many, and a cycle on each."""
    sides = (folder / "short", folder / "long")
    for side, n in zip(sides, (labels, 10 * labels), strict=True):
        fill(side, range(10 * labels - n, 10 * labels))
        _measure(side)
    return sides


def _round(short: Path, long: Path, number: int) -> tuple[Measured, Measured]:
    first = 10**6 + number * NEW  # later than any of the history
    for side in (short, long):
        fill(side, range(first, first + NEW))
    return _measure(short), _measure(long)


def _measure(side: Path) -> Measured:
    """A cycle in a process of its own."""
    alone = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cycle", str(side)],
        env={**os.environ, **alone, "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"a cycle failed:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def cycle(data: Path) -> Measured:
    """One cycle in this process. Versions are not served, so the parent is the base each time."""
    from infra.lab.log import RecordedEvents
    from trainer.app import loader
    from trainer.cycle import CycleRunner
    from trainer.settings import PPOSettings, TrainerSettings

    settings = TrainerSettings(
        data=data,
        base_model=str(MODEL),
        base_model_name="tiny",
        device="cpu",
        dtype="float32",
        threads=1,
        max_labels=MAX_LABELS,
        ppo=PPOSettings(iterations=4),
    )
    runner = CycleRunner(settings, RecordedEvents(data / "silent.jsonl"), load_base=loader(settings))
    began = time.process_time()
    outcome = runner.run()
    seconds = time.process_time() - began
    if outcome.version is None:
        raise RuntimeError(outcome.reason)
    read, kept = (
        runner.metrics.registry.get_sample_value("thumbwheel_featurized_answers_total", {"source": source}) or 0.0
        for source in ("read", "kept")
    )
    stages = {name: cost.cpu_seconds or 0.0 for name, cost in outcome.stages.items()}
    record = runner.registry.record(outcome.version)
    (data / "silent.jsonl").unlink(missing_ok=True)
    return Measured(seconds, stages, round(read), round(kept), record.adapter_sha256)


def fill(data: Path, numbers: range) -> None:
    """Labels with these numbers, and the answers of their time, in appends of `FILE_LABELS` labels."""
    for start in range(numbers.start, numbers.stop, FILE_LABELS):
        part = range(start, min(start + FILE_LABELS, numbers.stop))
        every = range(part.start * ANSWERS_FOR_A_LABEL, part.stop * ANSWERS_FOR_A_LABEL)
        _append(data, tables.RESPONSES, [_response(n) for n in every])
        _append(data, tables.RATINGS, [_rating(n) for n in part if n % 3])
        _append(data, tables.PREFERENCES, [_pair(n) for n in part if not n % 3])


def _append(data: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    lake = open_table(data / "lake", table)
    lake.append(pa.Table.from_pylist(rows, schema=lake.schema), {})


def _asked(n: int) -> tuple[str, list[dict[str, str]]]:
    """The id and the turns of the prompt that belongs to a number."""
    traffic = prompts.traffic()
    turns = [{"role": "user", "content": f"{traffic[n % len(traffic)]} ({n // len(traffic) % 40})"}]
    return prompt_id(ChatMessage(**turn) for turn in turns), turns  # type: ignore[arg-type]


def _answer(n: int, *, kind: bool) -> str:
    rng = random.Random(2 * n + kind)
    return rng.choice(KIND if kind else CURT) + rng.choice(TAILS)


def _judged(n: int) -> dict[str, Any]:
    identity, turns = _asked(n)
    return {
        "revision": 1,
        "retracted": False,
        "prompt_id": identity,
        "prompt": turns,
        "weight": 1.0,
        "source": "label" if n % 3 == 0 else "thumb",
        "rater_id": f"u{n % RATERS}",
        "judged_at": _moment(n),
    }


def _rating(n: int) -> dict[str, Any]:
    kind = random.Random(n).random() < 0.5
    return _judged(n) | {
        "rating_id": f"rating-{n}",
        "completion": _answer(n, kind=kind),
        "label": kind,
        "response_id": _response_id(n * ANSWERS_FOR_A_LABEL),
        "version": "base",
    }


def _pair(n: int) -> dict[str, Any]:
    texts = {"chosen": _answer(n, kind=True), "rejected": _answer(n, kind=False)}
    return _judged(n) | texts | {"preference_id": f"pair-{n}"}


def _response(n: int) -> dict[str, Any]:
    """A production answer; every seventh is judged."""
    identity, turns = _asked(n // ANSWERS_FOR_A_LABEL)
    return {
        "response_id": _response_id(n),
        "prompt_id": identity,
        "prompt": turns,
        "revision": 1,
        "retracted": False,
        "completion": _answer(n, kind=n % 2 == 0),
        "version": "base",
        "base_model": "tiny",
        "temperature": 0.8,
        "top_p": 1.0,
        "max_completion_tokens": 24,
        "routing_probability": 1.0,
        "finish_reason": "stop",
        "input_tokens": 20,
        "output_tokens": 12,
        "latency_seconds": 0.1,
        "segment": "default",
        "user_id": f"u{n % RATERS}",
        "event_time": _moment(n // ANSWERS_FOR_A_LABEL),
        "flags": 0,
        "copies": 0,
        "regenerations": 0,
        "feedback_count": 0,
    }


def _response_id(n: int) -> str:
    return f"chatcmpl-{n:032x}"


def _moment(n: int) -> datetime:
    return BEGIN + timedelta(seconds=n)


if __name__ == "__main__":
    print(json.dumps(asdict(cycle(Path(sys.argv[1])))))
