"""The lake: Delta tables that own the offsets of what they hold.

Each append carries, in the same commit, one application transaction for each source it consumed, whose version is
the next position. deltalake records it but checks neither order nor repeats, so `append` compares the recorded
position with the expected one on the same handle right before it writes; a commit that got in between is refused
by deltalake's own conflict check for that application id. Check and refusal together are a compare-and-swap: a
worker that lost its partition can't commit.

Reads pick files by the statistics in the log and scan those with polars: ids are ordered by time, so what is
recent lies in few files. (`DeltaTable.to_pyarrow_table()` right before exit aborts the process: delta-rs #2184.)
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from schemas.errors import TableConflict
from schemas.tables import Table

logger = logging.getLogger(__name__)

COMMIT_ATTEMPTS = 10
COMPACT_TARGET_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Move:
    """A source's position: what the table must say before the commit (None: nothing yet), and what it says after."""

    expected: int | None
    next: int


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow types."""
    return pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())


class LakeTable:
    """One open table: the handle that reads, compares and writes. Not for use by several threads."""

    def __init__(self, root: Path, table: Table, *, compact_every_commits: int = 100) -> None:
        self.table = table
        self.schema = arrow_schema(table)
        self._handle = _open(root / table.path, self.schema)
        self._compact_every = compact_every_commits
        self._commits = 0

    @property
    def version(self) -> int:
        return self._handle.version()

    def refresh(self) -> None:
        """See what others have committed."""
        self._handle.update_incremental()

    def position(self, app: str) -> int | None:
        """The position that the table holds for a source, as of the last refresh or own commit."""
        return self._handle.transaction_version(app)

    def arrow(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Rows as Arrow; raises `pa.ArrowException` or `OverflowError` for values that a column can't hold."""
        return pa.Table.from_pylist(list(rows), schema=self.schema)

    def append(self, rows: pa.Table, moves: Mapping[str, Move]) -> None:
        """Append and move on in one commit; `rows` may be empty.

        Raises `TableConflict` where another writer has moved one of the positions: nothing was written, drop what
        is buffered and begin again at the table's positions. Raises `DeltaError` or `OSError` where the storage
        fails; the same append can be tried again.
        """
        properties = CommitProperties(
            app_transactions=[Transaction(app, move.next) for app, move in moves.items()], max_commit_retries=30
        )
        for attempt in range(COMMIT_ATTEMPTS):
            self._compare(moves)
            try:
                deltalake.write_deltalake(self._handle, rows, mode="append", commit_properties=properties)
            except CommitFailedError as error:
                logger.info("commit refused, looking again", extra={"table": self.table.name, "error": str(error)})
                self.refresh()
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
            else:
                self._commits += 1
                return

    def _compare(self, moves: Mapping[str, Move]) -> None:
        for app, move in moves.items():
            held = self.position(app)
            if held != move.expected:
                raise TableConflict(
                    f"{self.table.path}: {app} is at {held}, not at {move.expected}; another worker has written it"
                )

    def maintain(self) -> bool:
        """Compact small files and write a checkpoint every so many own commits; whether it did.

        Only the process that owns the table calls it. Commit time grows by 0.08 ms a file, and this takes 50-75 ms.
        Appends of others go through meanwhile; a conflict is left for the next time.
        """
        if self._commits < self._compact_every:
            return False
        self._commits = 0
        try:
            self.refresh()
            self._handle.optimize.compact(target_size=COMPACT_TARGET_BYTES)
            self._handle.create_checkpoint()
        except (DeltaError, OSError) as error:
            logger.warning("compaction put off", extra={"table": self.table.name, "error": str(error)})
            self.refresh()
            return False
        return True

    def files(self, ranges: Mapping[str, tuple[Any, Any]] | None = None) -> list[str]:
        """The files whose statistics don't rule out, for each column given, a value between low and high.

        A bound of None is open.
        """
        found = pl.DataFrame(self._handle.get_add_actions(flatten=True))
        for column, (low, high) in (ranges or {}).items():
            if low is not None and f"max.{column}" in found.columns:
                found = found.filter((pl.col(f"max.{column}") >= low) | pl.col(f"max.{column}").is_null())
            if high is not None and f"min.{column}" in found.columns:
                found = found.filter((pl.col(f"min.{column}") <= high) | pl.col(f"min.{column}").is_null())
        root = self._handle.table_uri.removeprefix("file://").rstrip("/")
        return [f"{root}/{path}" for path in found.get_column("path").to_list()]

    def scan(self, files: Sequence[str]) -> pl.LazyFrame:
        """These files as one lazy frame with the table's columns."""
        if not files:
            return self.empty().lazy()
        return pl.scan_parquet(list(files), schema=self.empty().schema, missing_columns="insert")

    def empty(self) -> pl.DataFrame:
        """No rows, with the table's columns."""
        return pl.DataFrame(self.schema.empty_table())

    def all(self) -> pl.LazyFrame:
        """Every row that was ever appended."""
        return self.scan(self.files())

    def rows_between(self, partition: int, low: int, high: int) -> pl.DataFrame:
        """The rows of a topic's partition with Kafka offsets in [low, high), in order of offset."""
        files = self.files({"kafka_partition": (partition, partition), "kafka_offset": (low, high - 1)})
        wanted = (pl.col("kafka_partition") == partition) & pl.col("kafka_offset").is_between(low, high, closed="left")
        return self.scan(files).filter(wanted).sort("kafka_offset").collect()

    def first_offset(self, partition: int, low: int) -> int | None:
        """The lowest Kafka offset of a partition's rows at or after `low`; None where there is none."""
        files = self.files({"kafka_partition": (partition, partition), "kafka_offset": (low, None)})
        wanted = (pl.col("kafka_partition") == partition) & (pl.col("kafka_offset") >= low)
        return self.scan(files).filter(wanted).select(pl.col("kafka_offset").min()).collect().item()

    def rows_by(self, column: str, values: Iterable[str]) -> pl.DataFrame:
        """The rows whose `column` is one of `values`.

        Time-ordered ids prune to the files of their time. For a content hash (prompt ids) the statistics rule
        nothing out, and one column of the whole table is read: that cost grows with history.
        """
        wanted = sorted(set(values))
        if not wanted:
            return self.empty()
        files = self.files({column: (wanted[0], wanted[-1])})
        return self.scan(files).filter(pl.col(column).is_in(wanted)).collect()

    def partitions(self) -> list[int]:
        """The Kafka partitions that the rows came from, as far as the statistics know."""
        found = pl.DataFrame(self._handle.get_add_actions(flatten=True))
        if "max.kafka_partition" not in found.columns:
            return []
        highest = found.get_column("max.kafka_partition").max()
        return list(range(int(str(highest)) + 1)) if highest is not None else []

    def newest_event_ids(self, partition: int, *, limit: int) -> list[str]:
        """The ids of the last `limit` events of a partition, oldest first. Reads the newest files only."""
        floor = self._floor(partition, limit)
        newest = self.files({"kafka_partition": (partition, partition), "kafka_offset": (floor, None)})
        rows = self.scan(newest).filter(pl.col("kafka_partition") == partition)
        return rows.select("event_id", "kafka_offset").sort("kafka_offset").tail(limit).collect()["event_id"].to_list()

    def _floor(self, partition: int, limit: int) -> int | None:
        """An offset at or below which `limit` rows are certainly followed, or None to read everything."""
        found = pl.DataFrame(self._handle.get_add_actions(flatten=True))
        if "max.kafka_offset" not in found.columns:
            return None
        held = found.filter((pl.col("min.kafka_partition") <= partition) & (pl.col("max.kafka_partition") >= partition))
        highest = held.get_column("max.kafka_offset").max()
        return max(0, int(str(highest)) - limit) if highest is not None else None


def latest(table: LakeTable, rows: pl.LazyFrame | None = None) -> pl.DataFrame:
    """The current rows: the highest revision of each row id, without those that were retracted.

    For a table without revisions, the rows as they are. `rows` narrows it to some of the rows.
    """
    frame = table.all() if rows is None else rows
    if "revision" not in table.schema.names:
        return frame.collect()
    newest = frame.sort("revision").unique(subset=[table.table.key], keep="last", maintain_order=True)
    return newest.filter(~pl.col("retracted")).collect()


def open_table(root: Path, table: Table, *, compact_every_commits: int = 100) -> LakeTable:
    """Open a table below the lake's root, creating it where it isn't there yet."""
    return LakeTable(root, table, compact_every_commits=compact_every_commits)


def _open(path: Path, schema: pa.Schema) -> DeltaTable:
    """Two processes may come to create the same table at the same moment: the one that loses opens it."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        return DeltaTable.create(str(path), schema=schema, mode="ignore", configuration=_CONFIGURATION)
    except DeltaError:
        return DeltaTable(str(path))


_CONFIGURATION: dict[str, str | None] = {
    "delta.checkpointInterval": "100",
    "delta.dataSkippingNumIndexedCols": "40",
}
