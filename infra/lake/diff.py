"""What changed in a table between two versions: rows added, removed and changed, by key and latest revision.

    commits in between ── files of data changes ──► rows touched ── their rows in the old version ──► differences

What compaction rewrote is no change and is not read. So the cost follows the change: the files that came (and went)
in between, and of the old version the files that can hold an id that was revised. It relies on revisions beginning
at 1: an id that first appears at 1 was not there before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import polars as pl

from infra.lake import reading
from infra.lake.catalog import Snapshot
from infra.lake.commits import CommitLog

Row = Mapping[str, Any]
_ASIDE = ("revision", "retracted")


@dataclass(frozen=True, slots=True)
class Change:
    """One row. `columns` are those that differ, for a changed row."""

    kind: Literal["added", "removed", "changed"]
    key: str
    before: Row | None
    after: Row | None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The counts, and the first rows of each kind in order of key.

    `columns` counts the changed rows by column; `unchanged` rows were written again with the same content. `files`
    and `rows_read` say what it cost, of `rows_total` stored in both versions.
    """

    added: int
    removed: int
    changed: int
    unchanged: int
    columns: Mapping[str, int]
    files: int
    rows_read: int
    rows_total: int
    changes: tuple[Change, ...]


def difference(old: Snapshot, new: Snapshot, log: CommitLog, *, limit: int) -> Difference:
    """From `old` to `new`, versions of one table of which `old` is the earlier; at most `limit` rows of each kind."""
    came, went = _files_between(old, new, log)
    parts = _revised(old, new, came, went) if old.has_revisions else _plain(old, new, came, went)
    read = _rows_in(new, came) + _rows_in(old, went)
    total = old.total("num_records") + new.total("num_records")
    counts = Counter(c for columns in parts.changed.values() for c in columns)
    return Difference(
        added=parts.added.height,
        removed=parts.removed.height,
        changed=len(parts.changed),
        unchanged=parts.unchanged,
        columns=dict(counts.most_common()),
        files=len(came) + len(went),
        rows_read=read,
        rows_total=total,
        changes=tuple(_first(parts, old, new, limit)),
    )


@dataclass(frozen=True)
class _Parts:
    """Rows that are there only after, only before, and on both sides (same order) with the columns that differ."""

    added: pl.DataFrame
    removed: pl.DataFrame
    before: pl.DataFrame
    after: pl.DataFrame
    changed: Mapping[int, tuple[str, ...]]
    unchanged: int


def _files_between(old: Snapshot, new: Snapshot, log: CommitLog) -> tuple[list[str], list[str]]:
    """The files whose rows came and those whose rows went.

    As long as data was only appended these are the appended files, whatever compaction made of them since. Where rows
    were rewritten, or an appended file or a commit is gone, they are those that only one of the versions has.
    """
    try:
        commits = log.between(old.version, new.version)
        appended = [f.path for c in commits if not c.rewrites for f in c.added]
        rewritten = any(c.removed for c in commits if not c.rewrites)
        there = log.data_files()
        if not rewritten and all(PurePosixPath(p).name in there for p in appended):
            return appended, []
    except OSError:
        pass
    before, after = set(old.paths), set(new.paths)
    return [p for p in new.paths if p not in before], [p for p in old.paths if p not in after]


def _revised(old: Snapshot, new: Snapshot, came: Sequence[str], went: Sequence[str]) -> _Parts:
    """For a table of revisions."""
    key = old.table.key
    narrow = [key, *_ASIDE]
    arrived, left = new.scan(came).select(narrow).collect(), old.scan(went).select(narrow).collect()
    first = arrived.group_by(key).agg(pl.col("revision").min())
    gone = set(left.get_column(key).to_list())
    known = set(first.filter(pl.col("revision") > 1).get_column(key).to_list()) | gone
    stored = reading.by_keys(old, known, narrow)
    held = set(old.paths)
    stayed = [p for p in new.paths if p in held] if went else []
    kept = reading.by_keys(old, known, narrow, paths=stayed) if went else stored
    before = reading.newest(stored, key)
    after = reading.newest(pl.concat([arrived, kept]), key)
    alive_before, alive_after = before.filter(~pl.col("retracted")), after.filter(~pl.col("retracted"))
    both = alive_after.join(alive_before, on=key, how="semi")
    both = both.join(alive_before, on=[key, "revision"], how="anti") if not went else both
    earlier = alive_before.join(both, on=key, how="semi")
    old_rows, new_rows = _wide(old, earlier, None), _wide(new, both, [*came, *stayed])
    changed, unchanged = _compared(old_rows, new_rows, key)
    return _Parts(
        added=alive_after.join(alive_before, on=key, how="anti").sort(key),
        removed=alive_before.join(alive_after, on=key, how="anti").sort(key),
        before=old_rows,
        after=new_rows,
        changed=changed,
        unchanged=unchanged,
    )


def _wide(snapshot: Snapshot, chosen: pl.DataFrame, paths: Sequence[str] | None) -> pl.DataFrame:
    return reading.rows(snapshot, chosen.select(snapshot.table.key, "revision"), paths=paths)


def _plain(old: Snapshot, new: Snapshot, came: Sequence[str], went: Sequence[str]) -> _Parts:
    """For a table without revisions: rows that are the same on both sides cancel out, the rest meets by key.

    A key may come more than once (scores of one answer by several models): the n-th meets the n-th.
    """
    key = old.table.key
    left, arrived = old.scan(went).collect(), new.scan(came).collect()
    same = arrived.join(left, on=left.columns, how="semi", nulls_equal=True).height if went else 0
    if went:
        left, arrived = (
            left.join(arrived, on=left.columns, how="anti", nulls_equal=True),
            arrived.join(left, on=left.columns, how="anti", nulls_equal=True),
        )
    nth = pl.int_range(pl.len()).over(key).alias("_nth")
    left, arrived = left.sort(key, maintain_order=True), arrived.sort(key, maintain_order=True)
    left, arrived = left.with_columns(nth), arrived.with_columns(nth)
    on = [key, "_nth"]
    before = left.join(arrived, on=on, how="semi").sort(on).drop("_nth")
    after = arrived.join(left, on=on, how="semi").sort(on).drop("_nth")
    changed, unchanged = _compared(before, after, key)
    return _Parts(
        added=arrived.join(left, on=on, how="anti").drop("_nth"),
        removed=left.join(arrived, on=on, how="anti").drop("_nth"),
        before=before,
        after=after,
        changed=changed,
        unchanged=unchanged + same,
    )


def _compared(before: pl.DataFrame, after: pl.DataFrame, key: str) -> tuple[dict[int, tuple[str, ...]], int]:
    """Row number -> the columns that differ; and how many rows differ in none."""
    assert before.get_column(key).to_list() == after.get_column(key).to_list(), "both sides hold the same keys"
    differing: dict[int, tuple[str, ...]] = {}
    for column in before.columns:
        if column != "revision":
            unequal = before.get_column(column).ne_missing(after.get_column(column)).arg_true()
            for n in unequal.to_list():
                differing[n] = (*differing.get(n, ()), column)
    return differing, before.height - len(differing)


def _first(parts: _Parts, old: Snapshot, new: Snapshot, limit: int) -> list[Change]:
    key = old.table.key
    found: list[Change] = []
    for n in sorted(parts.changed)[:limit]:
        before, after = parts.before.row(n, named=True), parts.after.row(n, named=True)
        found.append(Change("changed", after[key], before, after, parts.changed[n]))
    removed, added = _complete(old, parts.removed.head(limit)), _complete(new, parts.added.head(limit))
    found += [Change("removed", row[key], row, None) for row in removed.iter_rows(named=True)]
    return found + [Change("added", row[key], None, row) for row in added.iter_rows(named=True)]


def _complete(snapshot: Snapshot, frame: pl.DataFrame) -> pl.DataFrame:
    """Whole rows, where only key and revision are known so far."""
    if set(frame.columns) == set(snapshot.schema):
        return frame
    return reading.rows(snapshot, frame.select(snapshot.table.key, "revision"))


def _rows_in(snapshot: Snapshot, paths: Sequence[str]) -> int:
    """The stored rows of these files; appended files that compaction has replaced are counted as they lie there."""
    if not paths:
        return 0
    known = dict(snapshot.actions.select("path", "num_records").iter_rows()) if snapshot.paths else {}
    if all(p in known for p in paths):
        return sum(known[p] or 0 for p in paths)
    return int(snapshot.scan(paths).select(pl.len()).collect().item())
