"""A file that is there whole or not at all: written beside its place under another name, then renamed.

Whatever ends the writing early (an error, Ctrl-C) takes the half-written file with it.
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from infra.lake.content import plain
from schemas.errors import SettingsError

BATCH_ROWS = 2_000


class Format(StrEnum):
    """The file formats that can be written."""

    PARQUET = "parquet"
    JSONL = "jsonl"


class Writer(Protocol):
    """Takes rows in batches."""

    def write(self, rows: list[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class ParquetFile:
    """Rows as parquet, of a schema that is known beforehand. Nothing in it depends on the hour."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class JsonlFile:
    """Rows as JSON, one a line; packed where `packed` (without the hour and name that gzip would note)."""

    def __init__(self, path: Path, *, packed: bool) -> None:
        self._raw = path.open("wb")
        self._file: IO[bytes] | gzip.GzipFile = (
            gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0) if packed else self._raw
        )

    def write(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._file.write(json.dumps(plain(row), ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raises `SettingsError` where something must not or can't be written there."""
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; --out names a file")
    if not path.parent.is_dir():
        raise SettingsError(f"there is no folder {path.parent}; make it, or name another by --out")
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already; --force replaces it")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The name to write under; when the block ends well it becomes `path`, on the disk, else it is removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def writer(path: Path, kind: Format, schema: pa.Schema, *, packed: bool) -> Writer:
    """A writer for one file."""
    return ParquetFile(path, schema) if kind is Format.PARQUET else JsonlFile(path, packed=packed)


def batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists of `BATCH_ROWS`."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(dict(row))
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
