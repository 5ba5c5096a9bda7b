"""Rows of a file, whatever it is: parquet, JSONL, a JSON array, CSV or TSV; the text formats packed by gzip as well.

A row that can't be read is an error with its number, and the rows behind it come all the same. Nothing but a JSON
array (Label Studio's export) is held in memory as a whole.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.local.comparisons import BadRow, read_object
from schemas.errors import SettingsError

MAX_LINE_BYTES = 16 << 20
PARQUET_MAGIC = b"PAR1"
PARQUET_BATCH = 500

Numbered = tuple[int, dict[str, Any] | BadRow]
"""The line of a text file, or the row of another, from 1; and what it holds."""


@dataclass(frozen=True)
class Source:
    """An open file. `done()` of `total` says how far it has been read, in bytes or rows."""

    rows: Iterator[Numbered]
    total: int
    done: Callable[[], int]


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file's rows; raises `SettingsError` for a file that is none of these."""
    with path.open("rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        if head == PARQUET_MAGIC:
            yield _parquet(path)
            return
        text: IO[bytes] = gzip.GzipFile(fileobj=raw) if head[:2] == b"\x1f\x8b" else raw  # pyright: ignore[reportAssignmentType]
        buffered = io.BufferedReader(text)  # pyright: ignore[reportArgumentType]
        try:
            yield Source(_text(path, buffered), path.stat().st_size, raw.tell)
        finally:
            buffered.detach()


def _text(path: Path, file: io.BufferedReader) -> Iterator[Numbered]:
    try:
        suffixes = {s.lower() for s in path.suffixes}
        if suffixes & {".csv", ".tsv"}:
            yield from _csv(file, delimiter="\t" if ".tsv" in suffixes else ",")
        elif file.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _array(path, file)
        else:
            yield from _lines(file)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SettingsError(f"{path} is a broken gzip file: {error}; what came before the break was read") from error


def _lines(file: io.BufferedReader) -> Iterator[Numbered]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        while not whole:
            rest = file.readline(MAX_LINE_BYTES)
            whole = rest.endswith(b"\n") or len(rest) < MAX_LINE_BYTES
            line = b""
        if not line:
            yield number, BadRow(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
        elif line := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
            yield number, _object(line)


def _object(line: bytes) -> dict[str, Any] | BadRow:
    try:
        return read_object(line)
    except BadRow as error:
        return error


def _array(path: Path, file: io.BufferedReader) -> Iterator[Numbered]:
    try:
        found = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error
    for number, row in enumerate(found, start=1):
        yield number, row if isinstance(row, dict) else BadRow("not a JSON object")


def _csv(file: io.BufferedReader, *, delimiter: str) -> Iterator[Numbered]:
    # What is no UTF-8 becomes half characters, which no text may hold: a bad row, and the next ones come.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(text, delimiter=delimiter)
    try:
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, BadRow(f"no row of CSV: {error}")
                continue
            if row is None:
                return
            yield reader.line_num, _columns(row)
    finally:
        text.detach()


def _columns(row: dict[str | Any, Any]) -> dict[str, Any] | BadRow:
    if None in row:
        return BadRow("more columns than the header has")
    if any(value is None for value in row.values()):
        return BadRow("fewer columns than the header has")
    return row


def _parquet(path: Path) -> Source:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SettingsError(f"{path} is no parquet file that can be read: {error}") from error
    progress = [0]

    def rows() -> Iterator[Numbered]:
        with file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for row in batch.to_pylist():
                    progress[0] += 1
                    yield progress[0], row

    return Source(rows(), file.metadata.num_rows, lambda: progress[0])
