"""What a trained version has read of a table, as a snapshot that needs no log.

Apart from `catalog` because the registry brings torch, which takes seconds to import.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from infra.lake.catalog import Catalog, Snapshot
from schemas.errors import DataGone, SettingsError
from schemas.tables import Table
from trainer.adapters.pins import Pin
from trainer.adapters.registry import Registry


@dataclass(frozen=True)
class PinnedSnapshot(Snapshot):
    """The files that a version's record lists; the log may have forgotten the table's version.

    `handle` is the newest version of the table: nothing is read through it.
    """

    pin: Pin

    @property
    def version(self) -> int:
        return self.pin.version

    @cached_property
    def actions(self) -> pl.DataFrame:
        """The files and their rows; without statistics, so that each of them may hold any value."""
        rows = self.pin.files or {}
        schema = {"path": pl.String, "num_records": pl.Int64}
        return pl.DataFrame({"path": list(rows), "num_records": list(rows.values())}, schema=schema)


def trained_on(catalog: Catalog, table: Table, trained: str, registry: Path) -> Snapshot:
    """What a trained version (`v3`) has read of a table.

    Raises `UnknownVersion`, `SettingsError` for a table that it has not read, and `DataGone` where files are gone.
    """
    pins = Registry(registry).pins(trained).by_table()
    if table.path not in pins:
        raise SettingsError(f"no version learns from {table.path}; update cycles read {', '.join(pins)}")
    pin = pins[table.path]
    if pin is None:
        raise SettingsError(f"when {trained} was trained there was no table {table.path}; compare with version 0")
    if pin.files is None:  # the record of an earlier release: the log may have it
        return catalog.open(table, pin.version)
    newest = catalog.open(table)
    gone = set(pin.files) - catalog.log(table).data_files()
    if gone:
        raise DataGone(
            f"{len(gone)} of the {len(pin.files)} files of {table.path} that {trained} was trained on are gone: erased "
            "or vacuumed since (THUMBWHEEL_KEEP_VERSIONS_DAYS says how long upkeep leaves them); name a later version"
        )
    return PinnedSnapshot(table, newest.handle, catalog.root, pin)
