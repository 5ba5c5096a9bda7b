"""Upkeep of the tables: few files, few old versions, no expired rows, beside reading and writing.

What is done to a table, each step a Delta commit or none, so that a kill in between leaves the table as it was:

    expire     rows older than the table's retention, by the time they came in; only tables nothing is computed from
    compact    small files into one; the rows are the same, and appends of others go through meanwhile
    vacuum     files that no version needs since `keep_files_days`; those that an update cycle has pinned stay for
               `keep_versions_days`, and those that a writer has not committed yet stay
    log        entries of versions older than `keep_log_minutes` (bronze: `keep_bronze_log_minutes`)

A reader that holds a version goes on reading it: files leave the disk only by vacuum. A cycle pins a list of files (see
`schemas.storage`) and reads at these, so it needs no log. Two that compact one table at the same moment are told apart
by Delta: the second one's commit is refused, and its work is left for the next time. To not even try, of the workers of
a group the one that owns a topic's partition 0 keeps the topic's table (`Keeper`).
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deltalake.exceptions import DeltaError

from schemas import tables
from schemas.storage import LakeRoot
from schemas.tables import Layer, Table
from schemas.topics import OUTPUTS
from streams.adapters.lake import LakeTable, open_table
from streams.metrics import Metrics
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TableReport:
    """What upkeep did to a table. `put_off` says why something was left for the next time."""

    table: str
    files_before: int
    files: int
    bytes: int
    expired_rows: int = 0
    removed_files: int = 0
    put_off: str | None = None


def upkeep(
    root: Path | str | LakeRoot, kept: Sequence[Table], settings: StreamSettings, *, now: datetime | None = None
) -> list[TableReport]:
    """All steps for each of these tables, one table after the other; a failure of one is in its report.

    May run while ingest, refine and readers do.
    """
    return [tend(open_table(root, table), settings, now=now or datetime.now(UTC)) for table in kept]


def tend(table: LakeTable, settings: StreamSettings, *, now: datetime, compact: bool = True) -> TableReport:
    """The steps for one table. `compact` is left out for a table that its writer compacts by itself."""
    table.refresh()
    before, expired, removed, why = table.size(), 0, 0, None
    try:
        expired = _expire(table, settings, now)
        if compact:
            table.compact(settings.compact_bytes)
        log, files = keep_times(table.table, settings)
        removed = table.clear(keep=files, now=now, pins=timedelta(days=settings.keep_versions_days))
        table.keep_log(log, files=files)
    except (DeltaError, OSError) as error:
        why = str(error)
        logger.warning("upkeep put off", extra={"table": table.table.name, "error": why})
        table.refresh()
    after = table.size()
    return TableReport(table.table.path, before.files, after.files, after.bytes, expired, removed, why)


def keep_times(table: Table, settings: StreamSettings) -> tuple[timedelta, timedelta]:
    """How long a table's versions can be opened by number, and how long the files that it no longer needs stay."""
    bronze = table.layer is Layer.BRONZE
    minutes = settings.keep_bronze_log_minutes if bronze else settings.keep_log_minutes
    return timedelta(minutes=minutes), timedelta(days=settings.keep_files_days)


def _expire(table: LakeTable, settings: StreamSettings, now: datetime) -> int:
    days = settings.retention_days.get(table.table.name)
    if days is None:
        return 0
    # The time at which we took it, not the one that its sender says: clocks are wrong.
    column = "ingested_at" if table.table.topic else "failed_at"
    return table.expire(column, now - timedelta(days=days))


class Keeper:
    """Upkeep beside ingest, in a thread of its own with handles of its own.

    It compacts a bronze table after every so many commits of this worker, and goes through all tables every
    `upkeep_seconds`; only those whose topic's partition 0 is ours (tables without a topic go with the outputs').
    Silver and gold are compacted by refine, which alone writes them.
    """

    def __init__(self, settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
        self._settings, self._metrics, self._stop = settings, metrics, stop
        self._owned: set[str] = set()
        self._commits: dict[str, int] = {}
        self._tables: dict[str, LakeTable] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """After `stop` is set. A compaction that still runs may be cut off: it commits as a whole or not at all."""
        self._thread.join(timeout=5.0)

    def own(self, topic: str, partition: int) -> None:
        """A partition is ours from now on."""
        if partition == 0:
            self._owned.add(topic)

    def disown(self, topic: str, partition: int) -> None:
        """A partition is no longer ours."""
        if partition == 0:
            self._owned.discard(topic)

    def committed(self, table: str) -> None:
        """Ingest has committed to a table."""
        with self._lock:
            self._commits[table] = self._commits.get(table, 0) + 1

    def keeps(self, table: Table) -> bool:
        """Whether a table is this worker's to keep."""
        return (table.topic or OUTPUTS).name in self._owned

    def _run(self) -> None:
        next_round = time.monotonic() + self._settings.upkeep_seconds
        while not self._stop.wait(CHECK_SECONDS):
            self.compact_due()
            if time.monotonic() >= next_round:
                self.round(datetime.now(UTC))
                next_round = time.monotonic() + self._settings.upkeep_seconds

    def compact_due(self) -> None:
        """The tables with enough commits since the last time. What fails is tried again after as many."""
        for name in self._due():
            began = time.perf_counter()
            try:
                table = self._table(tables.BY_NAME[name])
                table.refresh()
                table.compact(self._settings.compact_bytes)
                log, files = keep_times(table.table, self._settings)
                table.keep_log(log, files=files)
                self._tell(table, began)
            except (DeltaError, OSError) as error:
                self._put_off(name, error)

    def round(self, now: datetime) -> None:
        """All steps for all tables that are ours."""
        for table in filter(self.keeps, tables.ALL):
            if self._stop.is_set():
                return
            began = time.perf_counter()
            try:
                opened = self._table(table)
                report = tend(opened, self._settings, now=now, compact=_written_by_ingest(table))
                self._metrics.removed_files.labels(table.name).inc(report.removed_files)
                self._metrics.upkeep_put_off.labels(table.name).inc(report.put_off is not None)
                self._tell(opened, began)
            except (DeltaError, OSError) as error:
                self._put_off(table.name, error)

    def _due(self) -> list[str]:
        with self._lock:
            due = [name for name, commits in self._commits.items() if commits >= self._settings.compact_every_commits]
            for name in due:
                self._commits[name] = 0
        return [name for name in due if self.keeps(tables.BY_NAME[name])]

    def _table(self, table: Table) -> LakeTable:
        if table.name not in self._tables:
            self._tables[table.name] = open_table(self._settings.lake, table)
        return self._tables[table.name]

    def _tell(self, table: LakeTable, began: float) -> None:
        name, size = table.table.name, table.size()
        self._metrics.files.labels(name).set(size.files)
        self._metrics.table_bytes.labels(name).set(size.bytes)
        self._metrics.upkeep_seconds.labels(name).observe(time.perf_counter() - began)

    def _put_off(self, name: str, error: Exception) -> None:
        self._metrics.upkeep_put_off.labels(name).inc()
        self._tables.pop(name, None)
        logger.warning("upkeep put off", extra={"table": name, "error": str(error)})


def _written_by_ingest(table: Table) -> bool:
    return table.topic is not None or table is tables.DEAD_LETTERS
