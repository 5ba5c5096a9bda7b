"""The Delta log of one table, read as it lies there: one JSON file a version.

deltalake's own `history()` leaves out what matters most here: which files came and went, and which application
transactions moved. https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from streams.adapters.lake import FENCE

LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class FileChange:
    """A data file that a commit added or removed. `rows` is None where the log doesn't say."""

    path: str
    rows: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One version. `rewrites`: its files hold the rows that were there before (compaction)."""

    version: int
    time: datetime
    operation: str
    added: tuple[FileChange, ...]
    removed: tuple[FileChange, ...]
    moves: Mapping[str, int]
    rewrites: bool

    @property
    def rows_added(self) -> int | None:
        return 0 if self.rewrites else _sum(self.added)

    @property
    def rows_removed(self) -> int | None:
        return 0 if self.rewrites else _sum(self.removed)


class CommitLog:
    """The commits of the table at `uri`. Each call looks again."""

    def __init__(self, uri: str, options: dict[str, str] | None) -> None:
        self._uri, self._options = uri, options

    @cached_property
    def _files(self) -> pafs.FileSystem:
        return pafs.PyFileSystem(DeltaStorageHandler(self._uri, self._options))

    def versions(self) -> list[int]:
        """The versions whose commit is still in the log, oldest first."""
        return sorted(int(n[:20]) for n in self._log_names() if n.endswith(".json") and n[:20].isdigit())

    def read(self, version: int) -> Commit:
        """One commit; raises `OSError` where it is gone."""
        with self._files.open_input_stream(f"{LOG}/{version:020d}.json") as stream:
            lines = stream.read().splitlines()
        return _commit(version, [json.loads(line) for line in lines if line.strip()])

    def between(self, old: int, new: int) -> list[Commit]:
        """The commits after `old` up to and with `new`; raises `OSError` where one is gone."""
        return [self.read(v) for v in range(old + 1, new + 1)]

    def data_files(self) -> set[str]:
        """The names of the data files that lie there, used or not."""
        found = self._files.get_file_info(pafs.FileSelector("", recursive=False, allow_not_found=True))
        return {PurePosixPath(f.path).name for f in found if f.path.endswith(".parquet")}

    def readable(self, newest: int, options: dict[str, str] | None) -> list[int]:
        """The versions of which the log and every file are still there."""
        there, found = self.data_files(), list[int]()
        active: set[str] | None = None
        commits = set(self.versions())
        for version in range(self._first(), newest + 1):
            active = self._step(active, version, commits, options)
            if active is not None and active <= there:
                found.append(version)
        return found

    def _step(
        self, active: set[str] | None, version: int, commits: set[int], options: dict[str, str] | None
    ) -> set[str] | None:
        """The active files at `version`, from those before it, or anew where the chain of commits is broken."""
        if active is not None and version in commits:
            commit = self.read(version)
            return active - {_name(f.path) for f in commit.removed} | {_name(f.path) for f in commit.added}
        try:
            handle = DeltaTable(self._uri, version=version, storage_options=options)
        except DeltaError:
            return None
        return {_name(p) for p in pl.DataFrame(handle.get_add_actions()).get_column("path").to_list()}

    def _first(self) -> int:
        kept = [int(n[:20]) for n in self._log_names() if n[:20].isdigit()]
        return min(kept, default=0)

    def _log_names(self) -> list[str]:
        found = self._files.get_file_info(pafs.FileSelector(LOG, allow_not_found=True))
        return [PurePosixPath(f.path).name for f in found]


def history(log: CommitLog, *, limit: int) -> list[Commit]:
    """The newest `limit` commits, newest first, with the rows of removed files where the log still knows them."""
    versions = log.versions()[-limit:]
    commits = [log.read(v) for v in versions]
    rows: dict[str, int | None] = {}
    filled: list[Commit] = []
    for commit in commits:
        rows |= {f.path: f.rows for f in commit.added}
        removed = tuple(FileChange(f.path, rows.get(f.path, f.rows), f.bytes) for f in commit.removed)
        filled.append(
            Commit(commit.version, commit.time, commit.operation, commit.added, removed, commit.moves, commit.rewrites)
        )
    return filled[::-1]


def writer(app: str) -> str:
    """Which process an application id belongs to, in a word: `ingest`, `refine`, `select` ..."""
    return app.split("/", 1)[0] if "/" in app else app


def spans(versions: Iterable[int]) -> str:
    """`0-3, 7, 9-12`."""
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in _runs(versions))


def _runs(versions: Iterable[int]) -> Iterator[tuple[int, int]]:
    start: int | None = None
    last = 0
    for version in versions:
        if start is None:
            start = version
        elif version != last + 1:
            yield start, last
            start = version
        last = version
    if start is not None:
        yield start, last


def _commit(version: int, actions: list[dict[str, Any]]) -> Commit:
    info = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    adds = [a["add"] for a in actions if "add" in a]
    removes = [a["remove"] for a in actions if "remove" in a]
    changes = [f for f in (*adds, *removes) if f.get("dataChange", True)]
    return Commit(
        version=version,
        time=datetime.fromtimestamp(info.get("timestamp", 0) / 1000, UTC),
        operation=_operation(info),
        added=tuple(_file(f) for f in adds),
        removed=tuple(_file(f) for f in removes),
        moves={a["txn"]["appId"]: a["txn"]["version"] for a in actions if "txn" in a and a["txn"]["appId"] != FENCE},
        rewrites=bool(adds or removes) and not changes,
    )


def _operation(info: Mapping[str, Any]) -> str:
    name = str(info.get("operation", "unknown"))
    mode = str(info.get("operationParameters", {}).get("mode", "")) if name == "WRITE" else ""
    return f"{name} {mode}".strip().lower()


def _file(action: Mapping[str, Any]) -> FileChange:
    stats = action.get("stats")
    rows = json.loads(stats).get("numRecords") if isinstance(stats, str) and stats else None
    return FileChange(action["path"], rows, action.get("size") or 0)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _sum(files: Iterable[FileChange]) -> int | None:
    counts = [f.rows for f in files]
    return None if None in counts else sum(c for c in counts if c is not None)
