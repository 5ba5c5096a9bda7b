"""`thumbwheel label`: two answers, one key.

gold.label_queue - bronze.labels ─► open tasks ─► screen, key ─► label events ─► ... bronze.labels
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import Bootstrap, Data, locate

if TYPE_CHECKING:
    from infra.cli.labeling import Sitting
    from infra.local.log import Publisher
    from schemas.labels import Label, LabelTask
    from schemas.tables import Table

SOURCE = "infra/cli/label"
HELP_LINE = (
    "[bold]1[/] or [bold]←[/] left   [bold]2[/] or [bold]→[/] right   [bold]t[/] tie   [bold]b[/] both bad   "
    "[bold]s[/] skip   [bold]u[/] undo   [bold]q[/] quit"
)


def label(
    labeler: Annotated[
        str | None, typer.Option("--labeler", help="Who labels (default: your login name).", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many tasks; 0 is all.")] = 0,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Compare two answers to a prompt with one key: those that the reward model is least sure of, and some others.

    Which version wrote which answer is not shown. Stop at any time; what is answered is kept.

    Examples:

      thumbwheel label --labeler ada --limit 20

      printf '1\\n2\\nt\\n' | thumbwheel label        (answers from a pipe, one a line)
    """
    import getpass

    from infra.cli.labeling import Sitting, open_tasks
    from infra.cli.terminal import out
    from infra.local.log import Publisher

    place, who = locate(data, bootstrap_servers), labeler or getpass.getuser()
    tasks = open_tasks(_queued(place.data), _labels(place.data), who)
    if not tasks:
        out().print("nothing to label: the queue is empty. It fills after an update cycle has scored answers.")
        return
    sitting = Sitting(tasks[:limit] if limit else tasks, who)
    publisher = Publisher(place.kafka)
    try:
        _sit(sitting, publisher)
    finally:
        _publish(publisher, sitting.finish())
        publisher.flush()
    told = ", ".join(f"{n} {verdict.replace('_', ' ')}" for verdict, n in sitting.counts.items() if n) or "none"
    out().print(f"labels acknowledged: {publisher.acknowledged} ({told}); tasks left: {len(tasks) - sitting.position}")


def _sit(sitting: "Sitting", publisher: "Publisher") -> None:
    from infra.cli.keys import read_key, single_keys
    from infra.cli.labeling import Command, meaning
    from infra.cli.terminal import out

    with single_keys():
        note = ""
        while (task := sitting.current) is not None:
            _show(task, sitting, note)
            note = ""
            started = time.monotonic()
            while (chosen := meaning(read_key())) is None:
                out().print("[dim]that key means nothing here:[/] " + HELP_LINE)
            if chosen is Command.QUIT:
                return
            if chosen is Command.UNDO:
                note = "" if sitting.undo() else "nothing to undo: what came before is on the log"
            elif not isinstance(chosen, Command):
                _publish(publisher, sitting.answer(chosen, seconds=time.monotonic() - started))


def _show(task: "LabelTask", sitting: "Sitting", note: str) -> None:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table as Grid
    from rich.text import Text

    from infra.cli.terminal import out

    console = out()
    if console.is_terminal:
        console.clear()
    turns = [Text(f"{turn.role}: {turn.content}" if len(task.prompt) > 1 else turn.content) for turn in task.prompt]
    title = f"{sitting.position + 1} of {len(sitting.tasks)}"
    console.print(Panel(Text("\n\n").join(turns), title=title, title_align="right", box=box.ROUNDED))
    sides = Grid.grid(expand=True, padding=(0, 1, 0, 0))
    sides.add_column(ratio=1)
    sides.add_column(ratio=1)
    sides.add_row(
        Panel(Text(task.left.completion), title="1 ←", box=box.ROUNDED, border_style="cyan"),
        Panel(Text(task.right.completion), title="→ 2", box=box.ROUNDED, border_style="magenta"),
    )
    console.print(sides)
    console.print(HELP_LINE)
    if note:
        console.print(f"[yellow]{note}[/]")


def _publish(publisher: "Publisher", label: "Label | None") -> None:
    from infra.cli.labeling import label_event_id
    from schemas import topics
    from schemas.envelope import new_event

    if label is not None:
        publisher.publish(topics.LABELS, new_event(label, source=SOURCE, id=label_event_id(label)))


def _queued(data: Path) -> "list[LabelTask]":
    from schemas.labels import LabelTask
    from schemas.tables import LABEL_QUEUE

    rows = _rows(data, LABEL_QUEUE, sort="queued_at")
    return [LabelTask.model_validate({k: v for k, v in row.items() if k != "queued_at"}) for row in rows]


def _labels(data: Path) -> list[tuple[str, str, str]]:
    from schemas.tables import LABELS

    rows = _rows(data, LABELS, columns=["task_id", "labeler_id", "verdict"])
    return [(row["task_id"], row["labeler_id"], row["verdict"]) for row in rows]


def _rows(
    data: Path, table: "Table", *, columns: list[str] | None = None, sort: str | None = None
) -> list[dict[str, Any]]:
    import polars as pl
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        frame = pl.scan_delta(DeltaTable(str(data / "lake" / table.path)))
    except TableNotFoundError:
        return []
    if columns:
        frame = frame.select(columns)
    return (frame.sort(sort) if sort else frame).collect().to_dicts()
