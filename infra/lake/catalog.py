"""Tables by name and version, opened for reading only.

A handle here creates nothing, alters nothing and holds no lock: reading disturbs no writer, and sees one version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pydantic import ValidationError

from infra.lake.commits import CommitLog, spans
from schemas import tables
from schemas.errors import SettingsError
from schemas.storage import LakeRoot
from schemas.tables import Table
from streams.adapters.lake import arrow_schema, newest
from streams.settings import StreamSettings

TIME_COLUMNS = ("event_time", "judged_at", "queued_at", "scored_at", "estimated_at", "failed_at")


def find_table(name: str) -> Table:
    """The table of this name, with or without its layer (`ratings`, `gold/ratings`); raises `SettingsError`."""
    for table in tables.ALL:
        if name in (table.name, table.path):
            return table
    known = ", ".join(t.name for t in tables.ALL)
    raise SettingsError(f"there is no table {name}; the tables are {known}")


def time_column(table: Table) -> str | None:
    """The column that says when a row's event happened."""
    return next((c for c in TIME_COLUMNS if c in table.columns()), None)


@dataclass(frozen=True)
class Snapshot:
    """One version of one table, open in its log."""

    table: Table
    handle: DeltaTable
    root: LakeRoot

    @property
    def version(self) -> int:
        return self.handle.version()

    @property
    def name(self) -> str:
        """`gold/ratings@12`: how a version is cited."""
        return f"{self.table.path}@{self.version}"

    @cached_property
    def schema(self) -> pl.Schema:
        """The columns as this release defines them; one that the files lack is null."""
        return pl.DataFrame(arrow_schema(self.table).empty_table()).schema

    @cached_property
    def actions(self) -> pl.DataFrame:
        """The files of this version with their statistics, from the log alone."""
        return pl.DataFrame(self.handle.get_add_actions(flatten=True))

    @property
    def paths(self) -> list[str]:
        """The files, relative to the table."""
        return self.actions.get_column("path").to_list()

    @property
    def has_revisions(self) -> bool:
        return "revision" in self.schema

    def total(self, column: str) -> int:
        """The sum of a column of `actions`."""
        return int(self.actions.get_column(column).sum() or 0) if column in self.actions.columns else 0

    def newest(self) -> Any:
        """The latest event time, by the statistics; None for an empty table or one without."""
        column = f"max.{time_column(self.table)}"
        return self.actions.get_column(column).max() if column in self.actions.columns else None

    def position(self, app: str) -> int | None:
        """How far an application has come in this table."""
        return self.handle.transaction_version(app)

    def between(self, column: str, low: Any, high: Any) -> list[str]:
        """The files that can hold a value of `column` between `low` and `high`."""
        found = self.actions
        if f"max.{column}" in found.columns:
            low_ok = (pl.col(f"max.{column}") >= low) | pl.col(f"max.{column}").is_null()
            high_ok = (pl.col(f"min.{column}") <= high) | pl.col(f"min.{column}").is_null()
            found = found.filter(low_ok & high_ok)
        return found.get_column("path").to_list()

    def scan(self, paths: Sequence[str] | None = None) -> pl.LazyFrame:
        """These files (all of the version's, if not said) as one lazy frame with the table's columns."""
        chosen = self.paths if paths is None else list(paths)
        if not chosen:
            return pl.DataFrame(schema=self.schema).lazy()
        return pl.scan_parquet(
            [f"{self.root.at(self.table.path)}/{path}" for path in chosen],
            schema=self.schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore"),
            storage_options=self.root.client_options(),
            glob=False,
        )


class Catalog:
    """The tables below one root."""

    def __init__(self, root: LakeRoot) -> None:
        self.root = root

    def find(self, table: Table, version: int | None = None) -> Snapshot | None:
        """A version (the newest if not said) of a table, or None where the table does not exist yet.

        Raises `SettingsError` for a version that never was or can't be read any more.
        """
        try:
            handle = newest(self.root.at(table.path), self.root.client_options())
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise SettingsError(f"{table.path} can't be opened: {error}") from error
        if version is None or version == handle.version():
            return Snapshot(table, handle, self.root)
        return self._at(table, handle, version)

    def open(self, table: Table, version: int | None = None) -> Snapshot:
        """The same for a table that must exist; raises `SettingsError`."""
        found = self.find(table, version)
        if found is None:
            raise SettingsError(
                f"there is no table {table.path} in {self.root} yet: it comes with its first event"
                " (`thumbwheel up`); --data names another folder"
            )
        return found

    def log(self, table: Table) -> CommitLog:
        """The table's commits."""
        return CommitLog(self.root.at(table.path), self.root.client_options())

    def _at(self, table: Table, handle: DeltaTable, version: int) -> Snapshot:
        newest = handle.version()
        if not 0 <= version <= newest:
            raise SettingsError(f"{table.path} has no version {version}; it is at version {newest}")
        log = self.log(table)
        try:
            handle.load_as_version(version)
            there = log.data_files()
            gone = [p for p in Snapshot(table, handle, self.root).paths if _name(p) not in there]
        except (DeltaError, OSError):
            gone = ["its log"]
        if gone:
            readable = spans(log.readable(newest, self.root.client_options()))
            raise SettingsError(
                f"version {version} of {table.path} can't be read any more: upkeep keeps a version's log and files for"
                f" a while only (THUMBWHEEL_KEEP_LOG_MINUTES); these versions can: {readable or 'none'}. `tables diff`"
                " also takes a trained version, v3, for the data that it has read"
            )
        return Snapshot(table, handle, self.root)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def stream_settings(data: Path) -> StreamSettings:
    """The streams' settings for a data folder; raises `SettingsError` for a variable that can't be used."""
    try:
        return StreamSettings(data=data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "THUMBWHEEL_" + "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"the setting {name} can't be used: {first['msg']}; correct it and try again") from error


def bounds(values: Sequence[str]) -> tuple[str, str]:
    """The lowest and the highest of some ids."""
    return min(values), max(values)
