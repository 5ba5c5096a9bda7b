"""`thumbwheel tables rebuild`: silver and gold again from bronze, beside the live job."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from streams.rebuild import Progress, Report
    from streams.settings import StreamSettings

STOPPED = 130
WITHOUT_BROKER = "what is mended could not be announced"


def rebuild(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Some tables only; by default all that follow.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare; exit code 1 where a table is not what bronze comes to.")
    ] = False,
    patience: Annotated[
        float, typer.Option("--patience", min=0.0, help="Seconds to wait for `refine` where it stands still.")
    ] = 10.0,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make silver and gold again from bronze, while everything runs: responses, ratings, preferences, annotators.

    Every row is computed from bronze and compared; the content hash of both sides is printed (over the cells of all
    current rows: revision numbers, order and files don't count). What is missing, too much or different is mended by
    new revisions. Ctrl-C leaves the tables right as far as they are mended; the same command goes on.

    Examples:

      thumbwheel tables rebuild --check

      thumbwheel tables rebuild ratings preferences
    """
    from infra.cli.terminal import out
    from streams.settings import StreamSettings

    place = locate(data, bootstrap_servers)
    settings = StreamSettings(data=place.data, kafka=place.kafka)
    with _until_interrupted() as stop, _progress() as progress, _readable(place):
        reports = _run(place, settings, names or [], check=check, patience=patience, stop=stop, progress=progress)
    for report in reports:
        _show(report, check=check)
    if stop.is_set():
        out().print("stopped; what is mended stays. Run the same command again to go on")
        raise typer.Exit(STOPPED)
    wrong = [r for r in reports if not (r.identical if check else r.right)]
    if check and wrong:
        out().print("`thumbwheel tables rebuild` mends them")
    raise typer.Exit(1 if wrong else 0)


def _run(
    place: Place,
    settings: "StreamSettings",
    names: list[str],
    *,
    check: bool,
    patience: float,
    stop: threading.Event,
    progress: "Progress",
) -> "list[Report]":
    from infra.lake.audit import ensure_reachable, publish
    from streams.rebuild import Rebuild, announcer

    if check:
        return Rebuild(settings, progress=progress, stop=stop, patience_seconds=patience).run(names, mend=False)
    ensure_reachable(place.kafka, WITHOUT_BROKER, "--check")
    made = Rebuild(settings, publish=announcer(settings), progress=progress, stop=stop, patience_seconds=patience)
    reports = made.run(names, mend=True)
    detail = "; ".join(f"{r.table}: {r.mended} rows mended, {r.after}" for r in reports)
    publish(place.kafka, "rebuild", target=", ".join(names) or "silver and gold", detail=detail)
    return reports


def _show(report: "Report", *, check: bool) -> None:
    from infra.cli.terminal import out

    state = (
        "identical"
        if report.identical
        else f"{report.missing} missing, {report.extra} extra, {report.differing} differing"
    )
    out().print(f"[bold]{report.table}[/]  {report.rebuilt.rows:,} rows  {state}")
    out().print(f"  live     {report.live}")
    out().print(f"  rebuilt  {report.rebuilt}")
    out().print(f"  columns  {', '.join(report.rebuilt.columns)}", markup=False)
    for difference in report.examples:
        columns = f": {', '.join(difference.columns)}" if difference.columns else ""
        out().print(f"  {difference.kind}  {difference.row_id}{columns}", markup=False)
    if report.unconsumed:
        out().print(f"  {report.unconsumed:,} events are not consumed yet; `refine` is on its way to them, if it runs")
    if not check and not report.identical:
        ending = "as it should be now" if report.right else "not all is right yet: run the same command again"
        again = f" ({report.conflicts} tried again, because refine came first)" if report.conflicts else ""
        out().print(f"  mended   {report.mended:,} rows{again}; {ending}")


@contextlib.contextmanager
def _readable(place: Place) -> "Iterator[None]":
    """What to do about a table whose files are gone or broken: a derived one can be made anew."""
    import polars as pl
    from deltalake.exceptions import DeltaError

    from schemas.errors import SettingsError

    try:
        yield
    except (FileNotFoundError, DeltaError, pl.exceptions.PolarsError) as error:
        raise SettingsError(
            f"a table can't be read: {error}. If it is one of silver or gold, move its folder out of {place.data}/lake"
            " and run this again: it is made anew from bronze. For bronze itself you need a backup"
        ) from error


@contextlib.contextmanager
def _until_interrupted() -> "Iterator[threading.Event]":
    """Ctrl-C and SIGTERM ask for the end of the present step; a second one ends at once, which harms nothing either."""
    stop = threading.Event()

    def ask(signum: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(signum, signal.SIG_DFL)

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar for each table on stderr; nothing where that is no terminal."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from infra.cli.terminal import err

    with Bars(console=err(), transient=True, disable=not err().is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def told(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bars.add_task(table, total=total)
            bars.update(tasks[table], completed=done, total=total)

        yield told
