"""What the commands found, as a person reads it in a terminal: rich tables, and lines of markup. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table as Grid

from infra.cli.terminal import table as grid
from infra.lake import texts
from infra.lake.commits import Commit, writer
from infra.lake.diff import Change, Difference
from infra.lake.export import Exported
from infra.lake.overview import Summary
from schemas.tables import Table
from streams.upkeep import TableReport

if TYPE_CHECKING:
    from infra.lake.importing import Tally

Row = Mapping[str, Any]


def overview(found: Sequence[Summary | Table]) -> Grid:
    """`tables list`."""
    columns = ("table", "rows", "stored", "files", "size", "version", "newest event", "behind")
    result = grid(*columns, right=("rows", "stored", "files", "size", "version", "behind"), whole=columns)
    for one in found:
        if isinstance(one, Summary):
            result.add_row(
                one.table.path,
                f"{one.rows:,}",
                f"{one.stored:,}" if one.stored != one.rows else "",
                f"{one.files:,}",
                texts.size(one.bytes),
                str(one.version),
                texts.moment(one.newest),
                "" if one.behind is None else f"{one.behind:,}",
            )
        else:
            result.add_row(f"[dim]{one.path}[/]", *([""] * 5), "[dim]not there yet[/]", "")
    return result


def history(commits: Sequence[Commit]) -> Grid:
    """`tables history`."""
    columns = ("version", "time", "operation", "rows", "files", "size", "moved to")
    result = grid(*columns, right=("version", "rows", "files", "size"), whole=columns[:6])
    for commit in commits:
        result.add_row(
            str(commit.version),
            texts.moment(commit.time),
            commit.operation,
            _came_and_went(commit.rows_added, commit.rows_removed),
            _came_and_went(len(commit.added), len(commit.removed)),
            texts.size(sum(f.bytes for f in commit.added)) if commit.added else "",
            escape(moved(commit.moves)),
        )
    return result


def moved(moves: Mapping[str, int]) -> str:
    """`refine: outputs 121 + 111, feedback 117 + 179`: who wrote, and the position reached in each partition."""
    reached: dict[str, dict[str, list[str]]] = {}
    for app, position in sorted(moves.items()):
        topic = app.split("/")[1].removeprefix("thumbwheel.").removesuffix(".v1") if "/" in app else ""
        reached.setdefault(writer(app), {}).setdefault(topic, []).append(f"{position:,}")
    return "; ".join(
        f"{who}: " + ", ".join(f"{topic} {' + '.join(places)}".strip() for topic, places in by_topic.items())
        for who, by_topic in reached.items()
    )


def difference(found: Difference, title: str, *, limit: int, width: int) -> Iterator[str]:
    """`tables diff`."""
    again = f", {found.unchanged:,} written again" if found.unchanged else ""
    yield (
        f"{title}: [green]{found.added:,} added[/], [red]{found.removed:,} removed[/], "
        f"[yellow]{found.changed:,} changed[/]{again}"
    )
    if found.columns:
        yield "changed columns: " + ", ".join(f"{name} {count:,}" for name, count in found.columns.items())
    for change in found.changes:
        yield from _change(change, width)
    left = found.added + found.removed + found.changed - len(found.changes)
    if left and limit:
        yield f"and {_many(left, 'more row')}; --limit shows them"


def row(of: Row, key: str, *, width: int) -> Iterator[str]:
    """A row of `tables show`: its id, then a line for each column that holds something."""
    yield f"[bold]{escape(str(of[key]))}[/]"
    wide = max(len(name) for name in of)
    for column, text in texts.lines(of, width=width - wide - 4, aside=(key,)):
        yield f"  [dim]{column:<{wide}}[/]  {escape(text)}"
    yield ""


def upkept(reports: Sequence[TableReport]) -> Grid:
    """`tables upkeep`."""
    columns = ("table", "files", "now", "size", "expired rows", "removed files", "put off")
    result = grid(*columns, right=columns[1:6], whole=columns[:6])
    for report in reports:
        result.add_row(
            report.table,
            f"{report.files_before:,}",
            f"{report.files:,}",
            texts.size(report.bytes),
            f"{report.expired_rows:,}" if report.expired_rows else "",
            f"{report.removed_files:,}" if report.removed_files else "",
            escape(texts.cut(texts.value(report.put_off), 80)) if report.put_off else "",
        )
    return result


def exported(done: Exported, path: str) -> Iterator[str]:
    """`tables export`."""
    yield f"{_many(done.rows, 'row')} of {done.target} to {escape(path)} ({texts.size(done.bytes)})"
    yield f"content sha256 {done.content}"
    for why, number in done.left_out.items():
        yield f"left out: {number:,}, {why}"


def imported(tally: "Tally", name: str, *, where: str | None) -> Iterator[str]:
    """`tables import`; `where` is the broker that has the events, None for a dry run."""
    events = ", ".join(f"{number:,} {kind}" for kind, number in sorted(tally.events.items())) or "none"
    done = f"acknowledged by {where}" if where else "that would be sent (--dry-run)"
    yield f"{_many(tally.rows, 'row')} of {escape(name)}; events {done}: {events}"
    if tally.silent:
        yield f"{_many(tally.silent, 'row')} without a word of an answer, passed over"
    if tally.redacted:
        found = ", ".join(f"{number:,} {kind}" for kind, number in sorted(tally.redacted.items()))
        yield f"personal data replaced: {found}"


def bad_rows(tally: "Tally") -> Iterator[str]:
    """The bad rows of `tables import`."""
    if tally.bad:
        yield f"{_many(tally.bad, 'bad row')}:"
        yield from (f"  row {number}: {escape(why)}" for number, why in tally.bad_rows)
    if tally.bad > len(tally.bad_rows):
        yield f"  and {tally.bad - len(tally.bad_rows):,} more"


def _change(change: Change, width: int) -> Iterator[str]:
    if change.kind != "changed":
        sign = "[green]+" if change.kind == "added" else "[red]-"
        yield f"{sign} {escape(change.key)}[/]"
        yield f"    {escape(texts.brief(change.after or change.before or {}, width=width - 4))}"
        return
    assert change.before is not None
    assert change.after is not None
    yield f"[yellow]~ {escape(change.key)}[/]"
    for column in change.columns:
        room = max(12, (width - len(column) - 10) // 2)
        before, after = (texts.cut(texts.value(side[column]), room) for side in (change.before, change.after))
        yield f"    [dim]{column}[/]  {escape(before)} -> {escape(after)}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _came_and_went(came: int | None, went: int | None) -> str:
    plus = "+?" if came is None else f"+{came:,}" if came else ""
    minus = "-?" if went is None else f"-{went:,}" if went else ""
    return f"{plus} {minus}".strip()
