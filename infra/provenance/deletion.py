"""Deleting rows of a Delta table, and the traces that a deleted row leaves behind."""

import logging
import random
import time
from collections.abc import Iterator, Sequence

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from schemas.errors import TableConflict
from schemas.storage import LakeRoot
from schemas.tables import Layer, Table
from streams.adapters.lake import FENCE, newest

logger = logging.getLogger(__name__)

ATTEMPTS = 20
IDS_PER_STATEMENT = 500
_HISTORY = "delta.logRetentionDuration"
_DEFAULT_HISTORY = "interval 900 seconds"
"""What a table is made with; upkeep sets what is wished at its next round."""
_FORGOTTEN_HOURS = 24
"""The least that a table's log remembers removed files for (`keep_files_days`)."""
_NONE = "interval 0 seconds"
"""Of an erasure that runs beside this one, or was killed: not what to go back to."""


def delete_rows(root: LakeRoot, table: Table, predicate: str) -> int:
    """Delete the rows that a predicate (SQL) holds for, whoever writes meanwhile; how many they were.

    In bronze the same commit counts the deletion, for those who compare other tables with it. (A derived table's fence
    stays as it is: it would let deletion and appends refuse each other.)
    """
    for attempt in range(ATTEMPTS):
        handle = _open(root, table)
        try:
            done = handle.delete(predicate, commit_properties=_counted(handle, table))
        except CommitFailedError as error:
            if attempt == ATTEMPTS - 1:
                raise
            logger.info("deletion refused, trying again", extra={"table": table.path, "error": str(error)})
            time.sleep(random.uniform(0.05, 0.2) * min(attempt + 1, 10))
        else:
            return int(done["num_deleted_rows"])
    raise AssertionError("the last attempt either returns or raises")


def _counted(handle: DeltaTable, table: Table) -> CommitProperties:
    if table.layer is not Layer.BRONZE:
        return CommitProperties(max_commit_retries=30)
    deletions = (handle.transaction_version(FENCE) or 0) + 1
    return CommitProperties(app_transactions=[Transaction(FENCE, deletions)], max_commit_retries=30)


def forget_history(root: LakeRoot, tables: Sequence[Table]) -> None:
    """Only the present rows of these tables stay, in data files and in the log.

    Data files that no present version refers to go, pinned or not (those that somebody is just writing are not touched:
    vacuum takes the files that the log calls removed, and of those that it has forgotten, which is a day after their
    removal, the ones that are a day old). Commit entries go too, since their statistics quote the smallest and
    largest value of each column; a checkpoint takes their place. The tables' property is set back afterwards.
    """
    before: dict[Table, str] = {}
    try:
        for table in tables:
            _vacuum(root, table, hours=0, full=False)
            _vacuum(root, table, hours=_FORGOTTEN_HOURS, full=True)
            before[table] = _history(_open(root, table))
            _without_history(root, table).create_checkpoint()
        time.sleep(1.1)  # the log's clock is in whole seconds, and only what is older than now goes
        for table in tables:
            _without_history(root, table).cleanup_metadata()
    finally:
        for table, duration in before.items():
            _set(root, table, duration if duration != _NONE else _DEFAULT_HISTORY)


def _vacuum(root: LakeRoot, table: Table, *, hours: int, full: bool) -> None:
    """It writes what it does into the log, which is refused where a property is set at the same moment."""
    for attempt in range(ATTEMPTS):
        try:
            _open(root, table).vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=full)
        except CommitFailedError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.05, 0.2) * min(attempt + 1, 10))
        else:
            return


def _without_history(root: LakeRoot, table: Table) -> DeltaTable:
    """A handle whose version keeps none: upkeep, or another erasure, may set the property back at any moment."""
    for attempt in range(ATTEMPTS):
        handle = _open(root, table)
        if _history(handle) == _NONE:
            return handle
        if attempt:
            time.sleep(random.uniform(0.05, 0.2) * min(attempt, 10))
        _set(root, table, _NONE)
    raise TableConflict(f"{table.path}: somebody else sets {_HISTORY} all the time; run the same command again")


def _history(handle: DeltaTable) -> str:
    return handle.metadata().configuration.get(_HISTORY, _DEFAULT_HISTORY)


def _set(root: LakeRoot, table: Table, duration: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            _open(root, table).alter.set_table_properties({_HISTORY: duration})
        except (CommitFailedError, DeltaError):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.05, 0.2))
        else:
            return


def within(column: str, ids: Sequence[str]) -> Iterator[str]:
    """`column IN (...)`, a bounded number of ids at a time."""
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        listed = ", ".join(map(literal, ids[start : start + IDS_PER_STATEMENT]))
        yield f"{column} IN ({listed})"


def literal(text: str) -> str:
    """A string literal of SQL: quotes doubled, nothing else is special."""
    return "'" + text.replace("'", "''") + "'"


def _open(root: LakeRoot, table: Table) -> DeltaTable:
    return newest(root.at(table.path), root.client_options())
