"""What a trace reads: the lake's rows by their ids, and the registry's records. Creates nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable

from schemas import tables
from schemas.errors import CorruptAdapter
from schemas.storage import LakeRoot
from schemas.tables import Table
from streams.adapters.lake import LakeTable, open_table
from trainer.adapters.registry import Registry
from trainer.core.evidence import Evidence
from trainer.records import VersionRecord

Row = dict[str, Any]
"""One row of the lake, by column."""


class Sources:
    """The tables and the registry of one data folder."""

    def __init__(self, lake: Path | str | LakeRoot, registry: Path) -> None:
        self.root, self.registry = LakeRoot.of(lake), Registry(registry)
        self._open: dict[str, LakeTable] = {}

    def table(self, table: Table) -> LakeTable | None:
        """The open table, or None where it was never written."""
        if table.name not in self._open:
            if not DeltaTable.is_deltatable(self.root.at(table.path), self.root.client_options()):
                return None
            self._open[table.name] = open_table(self.root, table)
        return self._open[table.name]

    def by(self, table: Table, column: str, values: Iterable[str]) -> list[Row]:
        """Every stored row whose `column` is one of `values`, revisions in order."""
        found = self.table(table)
        if found is None:
            return []
        rows = found.rows_by(column, values)
        order = "revision" if "revision" in rows.columns else "event_time" if "event_time" in rows.columns else column
        return rows.sort(order, maintain_order=True).to_dicts()

    def where(self, table: Table, condition: pl.Expr, columns: list[str] | None = None) -> list[Row]:
        """Every stored row that a condition holds for. Reads the whole of the columns that it names."""
        found = self.table(table)
        if found is None:
            return []
        rows = found.all().filter(condition)
        return (rows.select(columns) if columns else rows).collect().to_dicts()

    def current(self, table: Table, column: str, values: Iterable[str]) -> list[Row]:
        """The latest revision of each row, retracted ones as well."""
        latest = {row[table.key]: row for row in self.by(table, column, values)}
        return list(latest.values())

    def refresh(self) -> None:
        """See what was committed meanwhile."""
        for table in self._open.values():
            table.refresh()

    def close(self) -> None:
        """Let the open tables go: they are opened anew when they are asked for."""
        self._open.clear()

    def records(self) -> list[VersionRecord]:
        """The records of all versions that can be read, in order."""
        found: list[VersionRecord] = []
        for version in self.registry.versions():
            try:
                found.append(self.registry.record(version))
            except CorruptAdapter:
                continue  # `thumbwheel versions` and the gateway complain of it
        return found

    def evidence(self, version: str) -> list[Evidence] | None:
        """What a version learned from; None where nothing readable says so."""
        try:
            return self.registry.evidence(version)
        except CorruptAdapter:
            return None

    def unrecorded(self) -> tuple[str, ...]:
        """Versions of which nothing readable says what they learned from."""
        return tuple(record.version for record in self.records() if self.evidence(record.version) is None)


JUDGEMENTS = (tables.RATINGS, tables.PREFERENCES)
"""The tables of what is learned from."""
