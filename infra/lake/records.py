"""What the commands found, as the objects that `--json` prints, one a line. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infra.lake.commits import Commit
from infra.lake.diff import Change, Difference
from infra.lake.export import Exported
from infra.lake.overview import Summary
from schemas.tables import Table
from streams.upkeep import TableReport

if TYPE_CHECKING:
    from infra.lake.importing import Tally

Record = Mapping[str, Any]


def summary(one: Summary | Table) -> Record:
    """A table in `tables list`."""
    if isinstance(one, Table):
        return {"table": one.path, "version": None}
    return {
        "table": one.table.path,
        "version": one.version,
        "rows": one.rows,
        "stored": one.stored,
        "files": one.files,
        "bytes": one.bytes,
        "newest": one.newest,
        "behind": one.behind,
    }


def commit(one: Commit) -> Record:
    """A version in `tables history`."""
    return {
        "version": one.version,
        "time": one.time,
        "operation": one.operation,
        "rows_added": one.rows_added,
        "rows_removed": one.rows_removed,
        "files_added": [f.path for f in one.added],
        "files_removed": [f.path for f in one.removed],
        "bytes_added": sum(f.bytes for f in one.added),
        "rewrites": one.rewrites,
        "moves": dict(one.moves),
    }


def difference(found: Difference, table: Table, old: int, new: int) -> Record:
    """The first line of `tables diff`."""
    return {
        "kind": "summary",
        "table": table.path,
        "from": old,
        "to": new,
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
        "unchanged": found.unchanged,
        "columns": dict(found.columns),
        "files_read": found.files,
        "rows_read": found.rows_read,
        "rows_stored": found.rows_total,
    }


def change(one: Change) -> Record:
    """A further line of `tables diff`."""
    return {
        "kind": one.kind,
        "key": one.key,
        "columns": one.columns,
        "before": one.before,
        "after": one.after,
    }


def upkept(report: TableReport) -> Record:
    """What `tables upkeep` did to a table."""
    return asdict(report)


def exported(done: Exported, path: str) -> Record:
    """What `tables export` wrote."""
    return {
        "target": done.target,
        "path": path,
        "rows": done.rows,
        "bytes": done.bytes,
        "content_sha256": done.content,
        "left_out": done.left_out,
    }


def imported(tally: "Tally", path: str, *, dry_run: bool) -> Record:
    """What `tables import` sent."""
    return {
        "path": path,
        "dry_run": dry_run,
        "rows": tally.rows,
        "events": dict(tally.events),
        "bad": tally.bad,
        "bad_rows": [{"row": number, "reason": why} for number, why in tally.bad_rows],
        "silent": tally.silent,
        "redacted": dict(tally.redacted),
    }
