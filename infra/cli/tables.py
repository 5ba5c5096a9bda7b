"""`thumbwheel tables`: what is in the lake, what has changed, and data sets out of it and into it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from infra.lake.catalog import Catalog, Snapshot
    from infra.lake.export import Exported, Wanted
    from schemas.consent import Purposes
    from schemas.tables import Table
    from streams.settings import StreamSettings

app = typer.Typer(
    help="See what the tables hold and how it changed; take data sets out, bring data in.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A table, as `ratings` or `gold/ratings`.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]
Version = Annotated[
    int | None, typer.Option("--version", min=0, help="The version to read (default: the newest).", show_default=False)
]


@app.command("list", epilog="Example: thumbwheel tables list --json")
def list_tables(data: Data = None, as_json: AsJson = False) -> None:
    """Every table: rows that count and rows stored, files, version, how fresh it is, how far behind bronze."""
    from infra.cli.terminal import err, out
    from infra.lake import records, screen
    from infra.lake.overview import overview

    catalog = _catalog(locate(data, None))
    with _progress("looking into") as note:
        found = overview(catalog, on_table=lambda name: note(name, 0, 0))
    if as_json:
        return _json(records.summary(one) for one in found)
    out().print(screen.overview(found))
    err().print("[dim]stored: with earlier revisions. behind: log offsets that bronze has and the table has not.[/]")
    return None


@app.command(epilog="Example: thumbwheel tables history preferences --limit 5")
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="At most so many versions, the newest first.")] = 20,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """The versions of a table: when, by what, how many rows and files came and went."""
    from infra.cli.terminal import err, out
    from infra.lake import records, screen
    from infra.lake.catalog import find_table
    from infra.lake.commits import history as read

    catalog, wanted = _catalog(locate(data, None)), find_table(name)
    catalog.open(wanted)
    commits = read(catalog.log(wanted), limit=limit)
    if as_json:
        return _json(map(records.commit, commits))
    out().print(screen.history(commits))
    if commits and len(commits) < limit and commits[-1].version > 0:
        err().print(
            f"[dim]the log has forgotten what came before version {commits[-1].version}; how long it is kept is the"
            " setting THUMBWHEEL_KEEP_LOG_MINUTES (bronze: THUMBWHEEL_KEEP_BRONZE_LOG_MINUTES)[/]"
        )
    return None


@app.command(epilog="Examples: thumbwheel tables diff preferences 12 20 --limit 5 | thumbwheel tables diff ratings v3")
def diff(
    name: Name,
    old: Annotated[
        str,
        typer.Argument(metavar="FROM", help="The earlier version, or v3 for what the trained version v3 has read."),
    ],
    new: Annotated[str | None, typer.Argument(metavar="[TO]", help="The later one (the newest), or v4.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows of each kind; 0 is the counts alone.")] = 10,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Rows added, removed and changed between two versions, by id and latest revision.

    With a trained version first: what has come in since it was trained. That reads the files that it has read, and
    works for versions that the table's log has forgotten.
    """
    from infra.cli.terminal import err, out
    from infra.lake import records, screen
    from infra.lake.catalog import find_table
    from infra.lake.diff import difference
    from schemas.errors import SettingsError

    place, wanted = locate(data, None), find_table(name)
    catalog = _catalog(place)
    before, after = _side(catalog, wanted, old, place), _side(catalog, wanted, new, place)
    if before.version > after.version:
        raise SettingsError(f"version {before.version} comes after {after.version}; name the earlier version first")
    with _progress("comparing"):
        found = difference(before, after, catalog.log(wanted), limit=limit)
    if as_json:
        first = records.difference(found, wanted, before.version, after.version)
        return _json([first, *map(records.change, found.changes)])
    title = f"{wanted.path}: version {before.version} to {after.version}"
    for line in screen.difference(found, title, limit=limit, width=out().width):
        out().print(line)
    err().print(f"[dim]read {found.files:,} files with {found.rows_read:,} of {found.rows_total:,} stored rows[/]")
    return None


@app.command(
    epilog="Examples: thumbwheel tables show responses --where thumb=-1 --limit 3 | thumbwheel tables show ratings "
    "--id rating-chatcmpl-... --revisions"
)
def show(
    name: Name,
    version: Version = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only such rows; several must all hold. Empty: null."),
    ] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Only these rows.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows, the newest first.")] = 5,
    revisions: Annotated[bool, typer.Option("--revisions", help="Earlier revisions, too, and retracted rows.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Rows of a table, long texts cut; with --json whole."""
    from infra.cli.terminal import err, out
    from infra.lake import screen
    from infra.lake.catalog import find_table
    from infra.lake.show import select

    snapshot = _catalog(locate(data, None)).open(find_table(name), version)
    with _progress("reading"):
        found = select(snapshot, where=where or (), ids=ids or (), limit=limit, revisions=revisions)
    if as_json:
        return _json(found.rows)
    for row in found.rows:
        for line in screen.row(row, snapshot.table.key, width=out().width):
            out().print(line)
    err().print(f"[dim]{len(found.rows):,} of {found.total:,} rows of {snapshot.name}[/]")
    return None


@app.command(epilog="Examples: thumbwheel tables upkeep | thumbwheel tables upkeep outputs feedback")
def upkeep(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Tables (default: all).", show_default=False)
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Compact small files, remove expired rows and the files of versions that nobody needs any more.

    Ingest and refine do it by themselves; this does it now, and may run while they do.
    """
    from infra.cli.terminal import out
    from infra.lake import records, screen
    from infra.lake.catalog import find_table
    from schemas import tables as known
    from streams.upkeep import upkeep as tend

    place = locate(data, None)
    catalog, settings = _catalog(place), _streams(place)
    chosen = [find_table(name) for name in names] if names else list(known.ALL)
    there = [table for table in chosen if (names and catalog.open(table)) or catalog.find(table)]
    reports = []
    with _progress("tidying") as note:
        for done, table in enumerate(there):
            note(table.path, done, len(there))
            reports += tend(settings.lake, [table], settings)
    if as_json:
        return _json(map(records.upkept, reports))
    out().print(screen.upkept(reports))
    return None


@app.command(
    epilog="Examples: thumbwheel tables export preferences --format parquet --out pairs.parquet | thumbwheel tables "
    "export unpaired --format jsonl --out ratings.jsonl.gz --style text --with-provenance"
)
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="`preferences`, `unpaired` or `prompts` for training, or any table as it is (`gold/ratings`).",
        ),
    ],
    out_path: Annotated[Path, typer.Option("--out", metavar="PATH", help="The file; packed if it ends in .gz.")],
    format_: Annotated[str, typer.Option("--format", metavar="parquet|jsonl", help="The file format.")] = "parquet",
    style: Annotated[
        str, typer.Option("--style", metavar="messages|text", help="Lists of chat messages, or strings.")
    ] = "messages",
    version: Version = None,
    purpose: Annotated[
        str, typer.Option("--purpose", metavar="training|labeling", help="Only what people agreed to for this.")
    ] = "training",
    min_weight: Annotated[
        float, typer.Option("--min-weight", min=0, help="Only rows of this weight, the rater's trust counted in.")
    ] = 0.0,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="train|held-out",
            help="Only prompts that the trainer learns from, or only those that it never does.",
            show_default=False,
        ),
    ] = None,
    provenance: Annotated[
        bool, typer.Option("--with-provenance", help="Weight, source, rater and ids as further columns.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    without_audit: Annotated[bool, typer.Option("--without-audit", help="Leave no trace of the export.")] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set to one file, in TRL's and Hugging Face's columns, whole or not at all.

    Rows go out in the order of their ids; the hash is the same for the same rows, whatever the file format. Who
    exported what is an event in the audit table.
    """
    from infra.cli.errors import shown
    from infra.cli.terminal import out
    from infra.lake import audit, files_out, records, screen
    from infra.lake.export import export as write

    place, path = locate(data, bootstrap_servers), out_path.expanduser()
    wanted = _wanted(name, format_, style, version, purpose, min_weight, split, provenance)
    files_out.refuse_to_overwrite(path, force=force)
    catalog = _catalog(place)
    if not without_audit:
        audit.ensure_reachable(place.kafka, "this export would leave no trace in the audit table", "--without-audit")

    def trace(done: "Exported") -> None:
        if not without_audit:
            audit.publish(place.kafka, "export", target=done.target, detail=_export_detail(done, wanted, path, name))

    with _progress("exporting") as note:
        done = write(catalog, wanted, path, trace=trace, on_progress=note)
    if as_json:
        return _json([records.exported(done, str(path))])
    for line in screen.exported(done, shown(path)):
        out().print(line)
    return None


@app.command(
    "import",
    epilog="Examples: thumbwheel tables import pairs.parquet --format preference | thumbwheel tables import "
    "thumbs.csv --format thumbs --mapping thumbs.toml --dry-run",
)
def import_(
    file: Annotated[str, typer.Argument(metavar="PATH", help="Parquet, JSONL, JSON, CSV or TSV; text may be gzipped.")],
    format_: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="preference, unpaired, prompts, label-studio or thumbs."),
    ],
    mapping: Annotated[
        str | None,
        typer.Option("--mapping", metavar="FILE", help="Which column is what (TOML or JSON).", show_default=False),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="Where it is from (default: the file's name).", show_default=False
        ),
    ] = None,
    purposes: Annotated[
        str | None,
        typer.Option(
            "--purposes",
            metavar="LIST",
            help="What people agreed to: training, labeling, both with a comma, or none (default: not said, which "
            "counts as agreed).",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, send nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    without_redaction: Annotated[
        bool, typer.Option("--without-redaction", help="Keep personal data in the texts.")
    ] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Bring a file in through Kafka, as ordinary events without personal data; the same file twice counts once.

    A bad row is reported by its number and stops nothing. An interrupted import goes on by being run again.
    """
    from datetime import UTC, datetime

    from infra.cli.foreground import find
    from infra.cli.terminal import err, out
    from infra.lake import audit, importing, records, redacting, screen
    from infra.lake.events import Origin
    from infra.lake.mapping import Mapping as ColumnMapping
    from infra.lake.mapping import load
    from infra.local.log import Publisher

    place, path = locate(data, bootstrap_servers), find(file)
    kind = _one_of(importing.Kind, format_, "--format")
    columns = load(find(mapping)) if mapping else ColumnMapping()
    origin = Origin((source or path.name)[:150], datetime.now(UTC), _purposes(purposes))
    importing.check_purposes(kind, origin)
    redactor = None if without_redaction else redacting.recognisers()
    if not dry_run:
        audit.ensure_reachable(place.kafka, "nothing can be imported", "--dry-run")
    sink, tally = importing.Nowhere() if dry_run else Publisher(place.kafka), importing.Tally()
    ending = "interrupted"
    try:
        with _progress(f"importing {path.name}") as note:
            importing.run(
                path, kind, columns, origin, sink=sink, redactor=redactor, strict=strict, tally=tally,
                on_progress=lambda done, total: note("", done, total),
            )  # fmt: skip
        ending = "complete"
    finally:
        if not dry_run and tally.events:
            detail = f"{ending}; format {kind}; source {origin.name}; {tally.detail()}"
            audit.publish(place.kafka, "import", target=path.name, detail=detail)
    if as_json:
        _json([records.imported(tally, str(path), dry_run=dry_run)])
    else:
        where = None if dry_run else place.kafka.bootstrap_servers
        for line in screen.imported(tally, path.name, where=where):
            out().print(line)
        for line in screen.bad_rows(tally):
            err().print(line)
    raise typer.Exit(0 if tally.events or not tally.bad else 1)


def _catalog(place: Place) -> "Catalog":
    from infra.lake.catalog import Catalog

    return Catalog(_streams(place).lake)


def _side(catalog: "Catalog", table: "Table", version: str | None, place: Place) -> "Snapshot":
    """A side of a comparison: a version of the table by its number, or what a trained version has read of it."""
    from schemas.errors import SettingsError

    if version is None or version.isdecimal():
        return catalog.open(table, None if version is None else int(version))
    if not (version.startswith("v") and version[1:].isdecimal()):
        raise SettingsError(f"{version} is no version: name a number of {table.path}, or a trained version such as v3")
    from infra.lake.pinned import trained_on

    return trained_on(catalog, table, version, place.data / "registry")


def _streams(place: Place) -> "StreamSettings":
    """The streams' settings: where the lake lies, and how long what is kept."""
    from infra.lake.catalog import stream_settings

    return stream_settings(place.data)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr; nothing where that is no terminal. It hears (what now, done, of)."""
    from rich.progress import Progress

    from infra.cli.terminal import err

    with Progress(console=err(), transient=True, disable=not err().is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda now, done, total: bar.update(
            task, description=f"{what} {now}" if now else what, completed=done, total=total or None
        )


def _json(rows: Iterable[Mapping[str, Any]]) -> None:
    from infra.lake.content import plain

    for row in rows:
        print(json.dumps(plain(row), ensure_ascii=False))  # noqa: T201 - a result, to be piped


def _wanted(
    name: str,
    format_: str,
    style: str,
    version: int | None,
    purpose: str,
    min_weight: float,
    split: str | None,
    provenance: bool,
) -> "Wanted":
    from infra.lake.catalog import find_table
    from infra.lake.export import Split, Wanted
    from infra.lake.files_out import Format
    from infra.lake.shapes import SHAPES, Style
    from schemas.consent import Purpose
    from schemas.errors import SettingsError

    shape = SHAPES.get(name)
    if shape is None and (style != "messages" or min_weight or split or provenance):
        raise SettingsError(
            f"{name} goes out as it is; --style, --min-weight, --split and --with-provenance are for"
            f" {', '.join(SHAPES)}"
        )
    halves: dict[str, Split] = {"train": "train", "held-out": "held-out"}
    if split is not None and split not in halves:
        raise SettingsError(f"--split {split}: it is one of {', '.join(halves)}")
    return Wanted(
        table=shape.table if shape else find_table(name),
        shape=shape,
        kind=_one_of(Format, format_, "--format"),
        style=_one_of(Style, style, "--style"),
        provenance=provenance,
        version=version,
        purpose=_one_of(Purpose, purpose, "--purpose"),
        min_weight=min_weight,
        split=halves[split] if split else None,
        held_out=_held_out() if split else lambda _: False,
    )


def _held_out() -> Callable[[Iterable[tuple[str, str]]], bool]:
    """The trainer's own split, by its own settings: what it holds out is held out here."""
    from trainer.core.dataset import is_held_out
    from trainer.settings import TrainerSettings

    split = TrainerSettings().split()
    return lambda prompt: is_held_out(prompt, split.holdout_share, split.seed)


def _one_of(kind: Any, name: str, option: str) -> Any:
    from schemas.errors import SettingsError

    try:
        return kind(name)
    except ValueError as error:
        raise SettingsError(f"{option} {name}: it is one of {', '.join(kind)}") from error


def _purposes(text: str | None) -> "Purposes | None":
    from schemas.consent import Purpose

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    return () if names == ["none"] else tuple(_one_of(Purpose, name, "--purposes") for name in names)


def _export_detail(done: "Exported", wanted: "Wanted", path: Path, name: str) -> str:
    split = f", split {wanted.split}" if wanted.split else ""
    return (
        f"{done.rows} rows of {name} for {wanted.purpose}{split}, weight from {wanted.min_weight:g}, "
        f"as {wanted.kind} to {path.name}; content sha256 {done.content}"
    )
