"""Feedback whose answer has not come: it waits, is reported once when it has waited long, and still joins later.

Nothing here is needed for the join itself (an output that comes looks up all that was said of it); this only keeps
count. It is rebuilt from the tables, by one scan of two id columns, at the start and after a conflict.
"""

import logging
from collections.abc import Container
from datetime import datetime, timedelta

import polars as pl

from schemas import tables, topics
from schemas.envelope import encode
from streams.adapters import increments
from streams.adapters.dead_letters import DeadLetters, Letter
from streams.adapters.lake import LakeTable

logger = logging.getLogger(__name__)

REASON = "unknown_response"
APP = "refine/orphans"


class Orphans:
    """Which responses are waited for, and since when (None: reported already)."""

    def __init__(self, feedback: LakeTable, outputs: LakeTable, dead: DeadLetters, *, after_seconds: float) -> None:
        self._feedback, self._outputs, self._dead = feedback, outputs, dead
        self._after = timedelta(seconds=after_seconds)
        self._waiting: dict[str, datetime | None] | None = None
        self._reported: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._waiting or {})

    def forget(self) -> None:
        """Read the tables again at the next report."""
        self._waiting = None

    def note(self, feedback: pl.DataFrame | None, *, joined: Container[str]) -> None:
        """Take in new feedback, and what met its output."""
        if self._waiting is None:
            return
        if feedback is not None:
            for response_id, since in feedback.select("response_id", "ingested_at").iter_rows():
                self._waiting[response_id] = self._waiting.get(response_id) or since
        self._waiting = {i: since for i, since in self._waiting.items() if i not in joined}

    def report(self, now: datetime) -> int:
        """Make dead letters of what has waited too long; how many."""
        waiting = self._load() if self._waiting is None else self._waiting
        overdue = {i for i, since in waiting.items() if since is not None and now - since >= self._after}
        if not overdue:
            return 0
        frame = self._feedback.rows_by("response_id", overdue)
        letters = [_letter(row) for row in frame.iter_rows(named=True)]
        fresh = [letter for letter in letters if letter.id not in self._reported]
        if fresh:
            self._dead.store_found(fresh, APP)
            logger.warning("feedback on unknown responses", extra={"events": len(fresh)})
        self._reported |= {letter.id for letter in fresh}
        waiting.update(dict.fromkeys(overdue, None))
        return len(fresh)

    def _load(self) -> dict[str, datetime | None]:
        known = self._outputs.all().select("response_id")
        alone = self._feedback.all().select("response_id", "ingested_at").join(known, on="response_id", how="anti")
        since = alone.group_by("response_id").agg(pl.col("ingested_at").min()).collect()
        self._dead.table.refresh()
        told = self._dead.table.all().filter(pl.col("reason") == REASON).select("dead_letter_id").collect()
        self._reported = set(told.get_column("dead_letter_id").to_list())
        self._waiting = dict(since.iter_rows())
        return self._waiting


def _letter(row: dict[str, object]) -> Letter:
    """The event as a message again; the bytes that came are in the log while it keeps them."""
    key, value, headers = encode(increments.event(tables.FEEDBACK, row))
    detail = f"no output of {row['response_id']} has come; it still joins when it does"
    topic, partition, offset = topics.FEEDBACK.name, int(str(row["kafka_partition"])), int(str(row["kafka_offset"]))
    return Letter(topic, partition, offset, REASON, detail, key, value, tuple(headers))
