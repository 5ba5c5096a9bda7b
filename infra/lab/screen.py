"""A lab in the terminal: progress while it runs, a table at its end, and the log in a file."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.lab.options import LabOptions
from infra.lab.results import CycleResult, Range
from infra.lab.stop import Stop
from infra.lab.summary import sentence, summarise
from schemas.logs import JsonFormatter

LOG = "lab.log"


@dataclass(frozen=True)
class Screen:
    """What a run is given to talk to: see `infra.lab.runner.run`."""

    told: Callable[[int, int, str, float], None]
    ended: Callable[[CycleResult], None]
    stop: Stop


@contextlib.contextmanager
def watched(options: LabOptions, console: Console, *, finished: int) -> Iterator[Screen]:
    """A bar of cycles with a line for each that ends. The first Ctrl-C or SIGTERM asks the run to stop; a second one
    ends the process, which costs what is not stored yet."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cycles"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
        console=console,
        transient=True,
    )
    total = options.seeds * options.cycles
    asked = threading.Event()
    with _asking(asked, console), progress:
        task = progress.add_task("lab", total=total, completed=finished, at="")

        def told(seed: int, cycle: int, what: str, share: float) -> None:
            progress.update(task, at=f"seed {seed}, cycle {cycle}: {what} {share:.0%}")

        def ended(result: CycleResult) -> None:
            progress.advance(task)
            progress.console.print(line(result), markup=False)

        yield Screen(told, ended, asked.is_set)


@contextlib.contextmanager
def _asking(asked: threading.Event, console: Console) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        asked.set()
        console.print("stopping; once more ends it at once")
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to(folder: Path) -> None:
    """Send every logger of this process to `lab.log` in the folder, as the services write theirs.

    Transformers' own bars, one for each time that a model is loaded, would break ours.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    handler.setFormatter(JsonFormatter("lab"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def line(result: CycleResult) -> str:
    """One finished cycle in a line."""
    what = f"{result.version} promoted" if result.promoted else f"{result.status.value}: {result.reason}"
    worse = {"yes": ", WORSE than its parent", "unclear": ", perhaps worse than its parent"}.get(
        result.regression or "", ""
    )
    truth = f"; true win rate over the base {share(result.vs_base)}" if result.vs_base else ""
    return f"seed {result.seed}, cycle {result.cycle}: {what}{worse}{truth}"


def table(results: Sequence[CycleResult], grid: Table) -> Table:
    """The cycles as rows of an empty table that has `columns()`."""
    for row in summarise(results).rows:
        serving = f"{row.serving.value:.0%} ({row.serving.low:.0%} to {row.serving.high:.0%})"
        grid.add_row(
            str(row.cycle),
            str(row.seeds),
            f"{row.labels:,.0f}",
            serving,
            "-" if row.kl is None else f"{row.kl:.2f}",
            *(str(n) for n in (row.promoted, row.refused, row.failed, row.worse, row.maybe_worse)),
        )
    return grid


def columns() -> tuple[str, ...]:
    """Of the table; all hold numbers."""
    counts = ("promoted", "refused", "failed", "worse", "perhaps worse")
    return ("cycle", "seeds", "labels", "serves, over base", "KL", *counts)


def closing(results: Sequence[CycleResult]) -> str:
    """The last word."""
    return sentence(summarise(results))


def share(rate: Range) -> str:
    """`62% (57% to 67%)`."""
    return f"{rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})"
