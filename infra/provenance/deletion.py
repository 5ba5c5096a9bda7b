"""Deleting rows of a Delta table, and the traces that a deleted row leaves behind."""

import logging
import random
import time

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from schemas.tables import Table
from streams.adapters.storage import LakeRoot

logger = logging.getLogger(__name__)

ATTEMPTS = 20
_HISTORY = "delta.logRetentionDuration"
_DEFAULT_HISTORY = "interval 30 days"


def delete_rows(root: LakeRoot, table: Table, predicate: str) -> int:
    """Delete the rows that a predicate (SQL) holds for, whoever writes meanwhile; how many they were."""
    for attempt in range(ATTEMPTS):
        handle = _open(root, table)
        try:
            done = handle.delete(predicate, commit_properties=CommitProperties(max_commit_retries=30))
        except CommitFailedError as error:
            if attempt == ATTEMPTS - 1:
                raise
            logger.info("deletion refused, trying again", extra={"table": table.path, "error": str(error)})
            time.sleep(random.uniform(0.05, 0.2) * min(attempt + 1, 10))
        else:
            return int(done["num_deleted_rows"])
    raise AssertionError("the last attempt either returns or raises")


def forget_history(root: LakeRoot, table: Table) -> None:
    """Only the present rows stay, in data files and in the log.

    Data files that no present version refers to go (those that somebody is just writing are not touched: vacuum takes
    the files that the log calls removed). Commit entries go too, since their statistics quote the smallest and
    largest value of each column; a checkpoint takes their place. The table's property is set back afterwards.
    """
    handle = _open(root, table)
    handle.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    before = handle.metadata().configuration.get(_HISTORY, _DEFAULT_HISTORY)
    try:
        _set(root, table, "interval 0 seconds")
        handle = _open(root, table)
        handle.create_checkpoint()
        time.sleep(1.1)  # the log's clock is in whole seconds, and only what is older than now goes
        handle.cleanup_metadata()
    finally:
        _set(root, table, before)


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


def _open(root: LakeRoot, table: Table) -> DeltaTable:
    return DeltaTable(root.at(table.path), storage_options=root.client_options())
