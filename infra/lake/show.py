"""Some rows of a version, chosen by id or by the value of columns, the newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from infra.lake import reading
from infra.lake.catalog import Snapshot, time_column
from schemas.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Found:
    """The rows to print, and how many there are of the kind."""

    rows: Sequence[Mapping[str, Any]]
    total: int


def select(
    snapshot: Snapshot, *, where: Sequence[str] = (), ids: Sequence[str] = (), limit: int, revisions: bool = False
) -> Found:
    """At most `limit` rows, newest first; all `revisions` of a row, or the one that counts.

    `where` holds `column=value`; several must all hold. Raises `SettingsError` for a condition that can't be.
    """
    conditions = [condition(snapshot, text) for text in where]
    if ids:
        conditions.append(pl.col(snapshot.table.key).is_in(list(ids)))
    time = time_column(snapshot.table)
    named = [_column(snapshot, w) for w in where]
    also = [*named, time] if time and time not in named else named
    narrow = _narrow(snapshot, also, revisions=revisions)
    for one in conditions:
        narrow = narrow.filter(one)
    key = snapshot.table.key
    order = [time] if time else []
    chosen = narrow.sort([*order, key], descending=True, nulls_last=True).head(limit) if limit else narrow.head(0)
    wide = reading.rows(snapshot, chosen)
    for one in conditions if not snapshot.has_revisions else ():
        wide = wide.filter(one)
    by = [*order, key, *(["revision"] if snapshot.has_revisions else [])]
    wide = wide.sort(by, descending=True, nulls_last=True).head(limit)
    return Found(list(wide.iter_rows(named=True)), narrow.height)


def _narrow(snapshot: Snapshot, also: Sequence[str], *, revisions: bool) -> pl.DataFrame:
    if revisions and snapshot.has_revisions:
        columns = list(dict.fromkeys([snapshot.table.key, "revision", *also]))
        return snapshot.scan().select(columns).collect()
    return reading.survivors(snapshot, also=also)


def condition(snapshot: Snapshot, text: str) -> pl.Expr:
    """`column=value` as a filter; an empty value means null. Raises `SettingsError`."""
    column, value = _column(snapshot, text), text.split("=", 1)[1]
    kind = snapshot.schema[column]
    if value == "":
        return pl.col(column).is_null()
    return pl.col(column) == pl.lit(_literal(column, kind, value), dtype=kind)


def _column(snapshot: Snapshot, text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals:
        raise SettingsError(f"--where {text}: write it as column=value")
    if name not in snapshot.schema:
        raise SettingsError(f"{snapshot.table.path} has no column {name}; its columns are {', '.join(snapshot.schema)}")
    return name


def _literal(column: str, kind: pl.DataType, value: str) -> Any:
    try:
        if kind == pl.Boolean:
            return {"true": True, "false": False}[value.lower()]
        if kind.is_integer():
            return int(value)
        if kind.is_float():
            return float(value)
        if kind == pl.String:
            return value
        if isinstance(kind, pl.Datetime):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (KeyError, ValueError, OverflowError) as error:
        raise SettingsError(f"--where {column}={value}: the column holds {_named(kind)}") from error
    raise SettingsError(f"--where {column}={value}: a column of {_named(kind)} can't be compared with a word")


def _named(kind: pl.DataType) -> str:
    names = {pl.Boolean: "true or false", pl.String: "text"}
    if kind.is_integer():
        return "whole numbers"
    if kind.is_float():
        return "numbers"
    if isinstance(kind, pl.Datetime):
        return "times (2026-11-21T12:00:00)"
    return names.get(kind.base_type(), "lists or records")
