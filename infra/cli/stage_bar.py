"""A bar of a cycle's stages, moved by the log lines of the trainer."""

import json
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.cycles import Stage

SHOWN = ("warning", "error", "critical")
STAGES = tuple(stage.value for stage in Stage)
FIGURES = ("reward", "kl", "gap", "loss")


class StageBar:
    """Shows the stage, how much of it is done, and its latest figures. On a pipe: one line a stage."""

    def __init__(self, console: Console, stages: tuple[str, ...] = STAGES) -> None:
        self._console, self._stages = console, stages
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=float(len(stages)), figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def heard(self, line: str) -> None:
        """One line of the trainer's log; what is no log line is shown as it is."""
        from infra.cli.foreground import readable

        record = _record(line)
        if record is None or record.get("level") in SHOWN:
            self._console.print(readable(line), markup=False)
        elif record.get("message") == "progress" and record.get("stage") in self._stages:
            self._moved(record)
        elif record.get("message") == "stage done" and not self._console.is_terminal:
            self._console.print(readable(line), markup=False)

    def _moved(self, record: dict[str, Any]) -> None:
        stage = record["stage"]
        figures = " ".join(f"{name} {record[name]:.3g}" for name in FIGURES if name in record)
        done = self._stages.index(stage) + float(record.get("fraction", 0.0))
        self._progress.update(self._task, description=stage.replace("_", " "), completed=done, figures=figures)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "message" in record else None
