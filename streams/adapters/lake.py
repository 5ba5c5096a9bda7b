"""The lake: Delta tables that own the offsets of what they hold.

Each append carries, in the same commit, one application transaction for each source it consumed, whose version is
the next position. deltalake records it but checks neither order nor repeats, so `append` compares the recorded
position with the expected one on the same handle right before it writes; a commit that got in between is refused
by deltalake's own conflict check for that application id. Check and refusal together are a compare-and-swap: a
worker that lost its partition can't commit.

A derived table (silver, gold) has a fence besides: a count that every append carries unchanged and compares with what
it was when the writer last refreshed the table. Whoever changes rows behind the writers' backs (an erasure, a rebuild)
counts it up: what was derived before can't be committed after, by whichever process on whichever machine. It holds
because a writer refreshes first the table that it writes, then those that it reads.

Reads pick files by the statistics in the log and scan those with polars: ids are ordered by time, so what is
recent lies in few files. (`DeltaTable.to_pyarrow_table()` right before exit aborts the process: delta-rs #2184.)
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import deltalake
import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError

from schemas.errors import TableConflict
from schemas.storage import LakeRoot, settled
from schemas.tables import Layer, Table
from streams.adapters import evolution
from streams.adapters.pins import TableFolder

logger = logging.getLogger(__name__)

FENCE = "fence"
"""The application id of a table's fence. In bronze it counts deletions, and no append compares it."""
COMMIT_ATTEMPTS = 10
COMPACT_TARGET_BYTES = 32 << 20
STATISTICS_PRECISION = timedelta(milliseconds=1)
"""A file's statistics may cut times down to it, the highest as well."""
_EARLIEST = datetime.min.replace(tzinfo=UTC) + STATISTICS_PRECISION


@dataclass(frozen=True, slots=True)
class Move:
    """A source's position: what the table must say before the commit (None: nothing yet), and what it says after."""

    expected: int | None
    next: int


@dataclass(frozen=True, slots=True)
class Size:
    """Of a table's current version."""

    files: int
    bytes: int


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow types."""
    return pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())


class LakeTable:
    """One open table: the handle that reads, compares and writes. Not for use by several threads."""

    def __init__(self, root: Path | str | LakeRoot, table: Table, *, compact_every_commits: int = 100) -> None:
        self.table = table
        self.schema = arrow_schema(table)
        self._options = LakeRoot.of(root).client_options()
        self._handle = _open(LakeRoot.of(root), table, self.schema)
        self._merge = evolution.is_wider(table, self._handle.schema())
        self._compact_every = compact_every_commits
        self._commits = 0
        self._derived = table.layer is not Layer.BRONZE and table.topic is None
        self._read_under = self.fences

    @property
    def version(self) -> int:
        return self._handle.version()

    @property
    def fences(self) -> int:
        """How often the table was fenced, as of the last refresh or own commit."""
        return self.position(FENCE) or 0

    def refresh(self) -> None:
        """See what others have committed; what is appended from now on counts as made of what is read from now on."""
        self._catch_up()
        self._read_under = self.fences if self._derived else 0

    def _catch_up(self) -> None:
        try:
            self._handle.update_incremental()
        except DeltaError:
            # The commits after ours are gone from the log: an erasure removes them. What is there now says it all.
            self._handle = newest(self._handle.table_uri, self._options)

    def _look_again(self) -> None:
        """After a refused commit: what others have written, and whether they have changed the columns."""
        self._catch_up()
        self._merge = evolution.is_wider(self.table, self._handle.schema())

    def position(self, app: str) -> int | None:
        """The position that the table holds for a source, as of the last refresh or own commit."""
        try:
            return self._handle.transaction_version(app)
        except DeltaError:
            self._catch_up()  # it is read from the log's entries, and an erasure has removed those of our version
            return self._handle.transaction_version(app)

    def arrow(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Rows as Arrow; raises `pa.ArrowException` or `OverflowError` for values that a column can't hold."""
        return pa.Table.from_pylist(list(rows), schema=self.schema)

    def append(self, rows: pa.Table, moves: Mapping[str, Move], *, fence: bool = False) -> None:
        """Append and move on in one commit; `rows` may be empty. `fence` also refuses whoever has read before it.

        Raises `TableConflict` where another writer has moved one of the positions, or where a derived table was
        fenced since the last refresh: nothing was written, drop what is buffered, refresh and begin again at the
        table's positions. Raises `DeltaError` or `OSError` where the storage fails; the same append can be tried again.
        """
        nexts = {app: move.next for app, move in moves.items()}
        if self._derived:
            # Carried even where it stays: of two commits with one application id Delta refuses the one that is late.
            nexts[FENCE] = self._read_under + fence
        properties = CommitProperties(
            app_transactions=[Transaction(app, to) for app, to in nexts.items()], max_commit_retries=30
        )
        if self._derived:
            self._look_again()  # what is refused only at its commit leaves a file behind, until upkeep takes it
        for attempt in range(COMMIT_ATTEMPTS):
            self._compare(moves)
            try:
                self._write(rows, properties)
            except (CommitFailedError, SchemaMismatchError) as error:
                logger.info("commit refused, looking again", extra={"table": self.table.name, "error": str(error)})
                self._look_again()
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
            except DeltaError:
                seen = self.version
                self._look_again()
                if self.version == seen:
                    raise
            else:
                self._commits += 1
                self._read_under = nexts.get(FENCE, 0)
                return

    def fence(self) -> None:
        """Refuse whoever has read before now and is still to append; only for derived tables.

        To be called when that which rows are derived from was changed. Somebody else's fence does as well.
        """
        assert self._derived
        self.refresh()
        try:
            self.append(self.schema.empty_table(), {}, fence=True)
        except TableConflict:
            self.refresh()

    def _write(self, rows: pa.Table, properties: CommitProperties) -> None:
        """Columns that only a later release knows are null in our rows."""
        mode: Literal["merge"] | None = "merge" if self._merge else None
        deltalake.write_deltalake(self._handle, rows, mode="append", schema_mode=mode, commit_properties=properties)

    def _compare(self, moves: Mapping[str, Move]) -> None:
        if self._derived and self.fences != self._read_under:
            raise TableConflict(
                f"{self.table.path}: what its rows come from was erased or mended after it was read; read it again"
            )
        for app, move in moves.items():
            held = self.position(app)
            if held != move.expected:
                raise TableConflict(
                    f"{self.table.path}: {app} is at {held}, not at {move.expected}; another worker has written it"
                )

    def maintain(self) -> bool:
        """Compact small files and cut the log every so many own commits; whether it did.

        Only the process that owns the table calls it. Commit time grows by 0.08 ms a file, and this takes 50-75 ms.
        Appends of others go through meanwhile; a conflict is left for the next time. The checkpoint that ends it cuts
        the log: what the table's property says stays (see `keep_log`), and what was committed since the last time.
        """
        if self._commits < self._compact_every:
            return False
        self._commits = 0
        try:
            self.refresh()
            self.compact(COMPACT_TARGET_BYTES)
        except (DeltaError, OSError) as error:
            logger.warning("compaction put off", extra={"table": self.table.name, "error": str(error)})
            self.refresh()
            return False
        return True

    def compact(self, target_bytes: int) -> None:
        """Make files of `target_bytes` of the smaller ones, where there are several, and write a checkpoint.

        Raises `DeltaError` where another writer has removed some of these files meanwhile: nothing was changed.
        """
        sizes = self._adds().get_column("size_bytes")
        if (sizes < target_bytes).sum() < 2:
            return
        self._handle.optimize.compact(
            target_size=target_bytes, max_concurrent_tasks=1, writer_properties=WriterProperties(compression="ZSTD")
        )
        self._handle.create_checkpoint()

    def expire(self, column: str, before: datetime) -> int:
        """Delete the rows whose `column` is earlier; returns how many."""
        if not self.files({column: (None, before)}):
            return 0
        moment = before.astimezone(UTC).isoformat()
        return self._handle.delete(f"{column} < '{moment}'")["num_deleted_rows"]

    def clear(self, *, keep: timedelta, now: datetime, pins: timedelta = timedelta(days=30)) -> int:
        """Remove files that only versions from before `keep` ago need; returns how many.

        Files that were pinned since `pins` ago stay. Files that no version knows go when they are `keep` old: what
        killed writers left. So `keep` must be longer than any commit takes (a younger file may be one that a writer is
        about to commit), and than a cycle takes to write down what it has just pinned.

        Delta's own vacuum only names the files (also some that are gone): it can't be told to spare any.
        """
        hours = math.ceil(keep / timedelta(hours=1))
        doomed = self._handle.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False, full=True)
        folder = TableFolder(self._handle.table_uri, self._options)
        folder.unpin(now - pins)
        return sum(folder.remove(path) for path in sorted((set(doomed) & folder.files()) - folder.pinned()))

    def keep_log(self, log: timedelta, *, files: timedelta) -> None:
        """Keep the log's entries for that long, and the names of removed files until `files` has passed.

        deltalake drops what is older at each checkpoint, behind it. Every commit lists the log: 1,000 entries cost
        15 ms (measured), and a version whose entry is gone can't be opened by its number any more. A checkpoint holds
        the names of removed files: 86,400 of them are 6 MB and 0.2 s (measured).
        """
        wanted = _retention(log, files)
        held = self._handle.metadata().configuration
        if any(held.get(name) != value for name, value in wanted.items()):
            self._handle.alter.set_table_properties(wanted)
        self._handle.cleanup_metadata()

    def size(self) -> Size:
        """Files and bytes of the current version."""
        sizes = self._adds().get_column("size_bytes")
        return Size(len(sizes), int(sizes.sum()))

    def _adds(self) -> pl.DataFrame:
        return pl.DataFrame(self._handle.get_add_actions(flatten=True))

    def files(self, ranges: Mapping[str, tuple[Any, Any]] | None = None) -> list[str]:
        """The files whose statistics don't rule out, for each column given, a value between low and high.

        A bound of None is open.
        """
        found = self._adds()
        for column, (low, high) in (ranges or {}).items():
            if isinstance(low, datetime):
                low = max(low, _EARLIEST) - STATISTICS_PRECISION
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
        return pl.scan_parquet(
            list(files),
            schema=self.empty().schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore"),
            storage_options=self._options,
        )

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
        found = self._adds()
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
        found = self._adds()
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


def open_table(root: Path | str | LakeRoot, table: Table, *, compact_every_commits: int = 100) -> LakeTable:
    """Open a table below the lake's root (a folder or `s3://bucket/prefix`), creating it where it isn't there yet.

    A table of an earlier release gets the columns that its definition has by now. Raises `SettingsError` where what
    lies there differs otherwise.
    """
    return LakeTable(root, table, compact_every_commits=compact_every_commits)


def _open(root: LakeRoot, table: Table, schema: pa.Schema) -> DeltaTable:
    """Of two processes that create or widen the same table at the same moment, the one that loses looks again."""
    uri, options = root.at(table.path), root.client_options()
    if root.folder is not None:
        (root.folder / table.path).mkdir(parents=True, exist_ok=True)
    try:
        handle = DeltaTable.create(
            uri, schema=schema, mode="ignore", configuration=_CONFIGURATION, storage_options=options
        )
    except DeltaError:
        handle = newest(uri, options)
    for attempt in range(COMMIT_ATTEMPTS):
        missing = evolution.additions(table, handle.schema())
        if not missing:
            break
        try:
            evolution.add(handle, missing)
            logger.info("columns added", extra={"table": table.path, "columns": missing.names})
        except CommitFailedError:
            if attempt == COMMIT_ATTEMPTS - 1:
                raise
            handle.update_incremental()
    return handle


def newest(uri: str, options: dict[str, str] | None) -> DeltaTable:
    """A table that is there, as it is now; raises deltalake's errors."""
    return settled(lambda: DeltaTable(uri, storage_options=options), DeltaError)


def _retention(log: timedelta, files: timedelta) -> dict[str, str]:
    return {
        "delta.logRetentionDuration": f"interval {math.ceil(log.total_seconds())} seconds",
        "delta.deletedFileRetentionDuration": f"interval {math.ceil(files.total_seconds())} seconds",
    }


_CONFIGURATION: dict[str, str | None] = {
    "delta.checkpointInterval": "100",
    "delta.dataSkippingNumIndexedCols": "40",
    **_retention(timedelta(minutes=15), timedelta(days=1)),
}
