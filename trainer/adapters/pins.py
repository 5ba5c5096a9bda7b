"""Pins: what a cycle reads of a table, as a version *and the list of its data files*.

The version alone names nothing for long: a table's log is kept for minutes. The files stay where they are until upkeep
removes them, which spares what is pinned (see `schemas.storage`); reading at the files needs no log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from pydantic import RootModel

from schemas import tables
from schemas.errors import SettingsError
from schemas.storage import PINS_FOLDER, LakeRoot
from schemas.tables import Table
from trainer.records import Frozen

PINNED = (tables.RATINGS, tables.PREFERENCES, tables.RESPONSES, tables.ANNOTATORS)


class Pin(Frozen):
    """A version of one table, and the rows of each of its files by path below the table.

    `files` is None in records from before files were pinned; such a version is read through the log, if that has it.
    """

    version: int
    files: dict[str, int | None] | None = None


class _Whole(RootModel[dict[str, Pin | None]]):
    """`pins.json`: by the tables' paths."""


@dataclass(frozen=True)
class Pins:
    """What a cycle reads of each table; None for a table that did not exist."""

    ratings: Pin | None
    preferences: Pin | None
    responses: Pin | None
    annotators: Pin | None = None

    @classmethod
    def of(cls, versions: Mapping[str, int | None]) -> "Pins":
        """From a record that holds versions only (see `versions`); an early one doesn't name the raters' weights."""
        held = (versions.get(table.path) for table in PINNED)
        return cls(*(None if version is None else Pin(version=version) for version in held))

    @classmethod
    def read(cls, file: Path) -> "Pins":
        """From `pins.json`; raises `OSError` or `ValueError`."""
        whole = _Whole.model_validate_json(file.read_text(encoding="utf-8")).root
        return cls(*(whole.get(table.path) for table in PINNED))

    def by_table(self) -> dict[str, Pin | None]:
        """Table path -> pin."""
        pins = (self.ratings, self.preferences, self.responses, self.annotators)
        return {table.path: pin for table, pin in zip(PINNED, pins, strict=True)}

    def versions(self) -> dict[str, int | None]:
        """Table path -> version."""
        return {path: None if pin is None else pin.version for path, pin in self.by_table().items()}

    def text(self) -> str:
        """`pins.json`: no texts and no ids, only the names of files."""
        return _Whole(self.by_table()).model_dump_json(indent=1) + "\n"


def pin_of(table: Table, handle: DeltaTable) -> Pin:
    """The open version of a table; raises `SettingsError` for one that needs more than its files to be read."""
    features = handle.protocol().reader_features or []
    if "deletionVectors" in features and handle.deletion_vectors().read_all().num_rows:
        raise SettingsError(
            f"{table.path} has deletion vectors, which the trainer doesn't read; rewrite the table without them"
            " (Spark: REORG TABLE ... APPLY (PURGE), and delta.enableDeletionVectors=false)"
        )
    found = pl.DataFrame(handle.get_add_actions(flatten=True)).select("path", "num_records").sort("path")
    return Pin(version=handle.version(), files=dict(found.iter_rows()))


class PinLists:
    """The lists beside the tables, by which upkeep knows which files to spare."""

    def __init__(self, root: LakeRoot) -> None:
        self._root = root

    def hold(self, cycle_id: str, pins: Pins) -> None:
        """From now on upkeep spares the pinned files; raises `OSError`."""
        for path, pin in pins.by_table().items():
            if pin is not None and pin.files:
                columns = {"path": list(pin.files), "rows": pa.array(pin.files.values(), pa.int64())}
                pq.write_table(pa.table(columns), _list(cycle_id), filesystem=self._folder(path))

    def release(self, cycle_id: str, pins: Pins) -> None:
        """The cycle came to nothing; raises `OSError`."""
        for path, pin in pins.by_table().items():
            if pin is not None and pin.files:
                self._folder(path).delete_file(_list(cycle_id))

    def missing(self, table: Table, files: Mapping[str, int | None]) -> list[str]:
        """Those of a table's files that are not there any more."""
        found = self._folder(table.path).get_file_info(pafs.FileSelector("", allow_not_found=True))
        return sorted(set(files) - {file.path for file in found})

    def _folder(self, path: str) -> pafs.FileSystem:
        return pafs.PyFileSystem(DeltaStorageHandler(self._root.at(path), self._root.client_options()))


def _list(cycle_id: str) -> str:
    return f"{PINS_FOLDER}/{cycle_id}.parquet"
