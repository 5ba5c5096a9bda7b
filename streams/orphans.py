"""What never met: feedback whose answer has not come, feedback of another tenant, answers of which nothing is said.

Feedback waits for its answer; where it has waited for longer than `orphan_after_seconds` it is reported once as a dead
letter (`unknown_response`), and it still joins when the answer comes, days later, too. Feedback whose tenant is not
its answer's is never counted, and is reported once as `wrong_tenant`. An answer of which nothing is said is no error,
and is only counted.

Nothing here is needed for the join itself (an output that comes looks up all that was said of it); this only keeps
count. It is rebuilt from the tables, by scans of narrow columns, at the start and after a conflict. `unmet` counts all
of it by day, from the tables alone.
"""

import logging
from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from schemas import tables, topics
from schemas.envelope import encode
from schemas.storage import LakeRoot
from schemas.tables import ResponseRow
from streams.adapters import increments
from streams.adapters.dead_letters import DeadLetters, Letter
from streams.adapters.increments import HAPPENED_AT
from streams.adapters.lake import LakeTable, open_table

logger = logging.getLogger(__name__)

UNKNOWN_RESPONSE = "unknown_response"
WRONG_TENANT = "wrong_tenant"
SILENT = "silent"
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
        letters = [_unknown(row) for row in frame.iter_rows(named=True)]
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
        told = self._dead.table.all().filter(pl.col("reason") == UNKNOWN_RESPONSE).select("dead_letter_id").collect()
        self._reported = set(told.get_column("dead_letter_id").to_list())
        self._waiting = dict(since.iter_rows())
        return self._waiting


class Silence:
    """How many answers nothing has been said of."""

    def __init__(self, responses: LakeTable) -> None:
        self._responses = responses
        self._count: int | None = None

    def count(self) -> int:
        """Reads three narrow columns of silver.responses the first time."""
        if self._count is None:
            rows = self._responses.all().select("response_id", "revision", "retracted", "feedback_count")
            newest = rows.sort("revision").unique(subset=["response_id"], keep="last")
            silent = newest.filter(~pl.col("retracted") & (pl.col("feedback_count") == 0))
            self._count = int(silent.select(pl.len()).collect().item())
        return self._count

    def forget(self) -> None:
        """Read the table again at the next count."""
        self._count = None

    def note(self, before: Mapping[str, ResponseRow], after: Mapping[str, ResponseRow]) -> None:
        """Take in what a commit has changed."""
        if self._count is not None:
            self._count += _silent(after) - _silent(before)


def _silent(rows: Mapping[str, ResponseRow]) -> int:
    return sum(row.feedback_count == 0 and not row.retracted for row in rows.values())


def report_strangers(dead: DeadLetters, feedback: pl.DataFrame) -> int:
    """Make dead letters of these rows of bronze.feedback, of another tenant than their answers; how many are new."""
    if feedback.is_empty():
        return 0
    letters = [_stranger(row) for row in feedback.iter_rows(named=True)]
    dead.table.refresh()
    held = dead.table.rows_by("dead_letter_id", [letter.id for letter in letters])
    told = set(held.get_column("dead_letter_id").to_list())
    fresh = list({letter.id: letter for letter in letters if letter.id not in told}.values())
    if fresh:
        dead.store_found(fresh, APP)
        logger.warning("feedback from another tenant than its answer's", extra={"events": len(fresh)})
    return len(fresh)


def unmet(lake: LakeRoot | Path | str) -> pl.DataFrame:
    """What never met, as the tables hold it now: `day` (of the event, UTC), `reason`, `events`, in this order.

    Reasons: `unknown_response` and `wrong_tenant` (feedback), `silent` (answers). Feedback that was reported as
    unknown and has met its answer since is not in it. Reads narrow columns of bronze.outputs and bronze.feedback.
    """
    outputs, feedback = (open_table(lake, t).all() for t in (tables.OUTPUTS, tables.FEEDBACK))
    answers = outputs.select("response_id", HAPPENED_AT.alias("at"), pl.col("tenant").alias("owner")).sort("at")
    answers = answers.unique(subset=["response_id"], keep="first", maintain_order=True)
    said = feedback.select("event_id", "response_id", HAPPENED_AT.alias("at"), "tenant").unique(subset=["event_id"])
    met = said.join(answers.drop("at"), on="response_id")
    strangers = met.filter(pl.col("tenant").ne_missing(pl.col("owner")))
    friends = met.filter(pl.col("tenant").eq_missing(pl.col("owner")))
    found = [
        (UNKNOWN_RESPONSE, said.join(answers, on="response_id", how="anti")),
        (WRONG_TENANT, strangers),
        (SILENT, answers.join(friends, on="response_id", how="anti")),
    ]
    counts = [
        rows.group_by(pl.col("at").dt.date().alias("day"))
        .agg(pl.len().cast(pl.Int64).alias("events"))
        .select("day", pl.lit(reason).alias("reason"), "events")
        for reason, rows in found
    ]
    return pl.concat(counts).sort("day", "reason").collect()


def _unknown(row: Mapping[str, Any]) -> Letter:
    return _letter(row, UNKNOWN_RESPONSE, f"no output of {row['response_id']} has come; it still joins when it does")


def _stranger(row: Mapping[str, Any]) -> Letter:
    return _letter(row, WRONG_TENANT, f"{row['response_id']} is an answer of another tenant; it is not counted")


def _letter(row: Mapping[str, Any], reason: str, detail: str) -> Letter:
    """The event as a message again; the bytes that came are in the log while it keeps them."""
    key, value, headers = encode(increments.event(tables.FEEDBACK, row))
    topic, partition, offset = topics.FEEDBACK.name, int(row["kafka_partition"]), int(row["kafka_offset"])
    return Letter(topic, partition, offset, reason, detail, key, value, tuple(headers))
