"""What a derived table has not consumed yet, and rows of the lake as the models that the core works on.

Every derived table keeps, for each topic and partition, the Kafka offset up to which it has consumed the *bronze*
rows of that topic. So one kind of watermark serves silver and gold, survives compaction, and after a crash the rows
between a table's watermark and bronze are simply read again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel

from schemas import tables
from schemas.envelope import Event
from schemas.feedback import Feedback
from schemas.labels import Label
from schemas.outputs import Output
from schemas.topics import Topic
from streams.adapters.dead_letters import source
from streams.adapters.lake import LakeTable, Move
from streams.core.clocks import happened_at
from streams.core.evidence import Given, Said
from streams.core.pairing import Cast

M = TypeVar("M", bound=BaseModel)

HAPPENED_AT = pl.min_horizontal("event_time", "ingested_at")
"""`happened_at` on the columns of a bronze table."""


@dataclass
class Increment:
    """New bronze rows by topic, and the moves that say they are consumed. `full`: there may be more."""

    frames: dict[str, pl.DataFrame] = field(default_factory=dict[str, pl.DataFrame])
    moves: dict[str, Move] = field(default_factory=dict[str, Move])
    full: bool = False

    def values(self, column: str, topics: Iterable[Topic]) -> set[str]:
        """The distinct values of a column among the new rows of these topics."""
        return {v for t in topics if t.name in self.frames for v in self.frames[t.name].get_column(column).to_list()}


def watermark(topic: str, partition: int) -> str:
    """The application id under which a derived table keeps how far it has consumed a topic's partition."""
    return f"refine/{topic}/{partition}"


def read(
    target: LakeTable, sources: Sequence[LakeTable], *, limit: int, not_beyond: Mapping[str, int | None] | None = None
) -> Increment:
    """The rows of the bronze `sources` that `target` has not consumed, at most about `limit` for each partition.

    `not_beyond` gives upper bounds by application id (None: nothing yet), for a table that is derived from a table
    that consumes the same topics.
    """
    found = Increment()
    for bronze in sources:
        assert bronze.table.topic is not None
        topic = bronze.table.topic.name
        parts = [_consume(found, target, bronze, p, limit=limit, bounds=not_beyond) for p in bronze.partitions()]
        if any(rows.height for rows in parts):
            found.frames[topic] = pl.concat(parts)
    return found


def _consume(
    found: Increment,
    target: LakeTable,
    bronze: LakeTable,
    partition: int,
    *,
    limit: int,
    bounds: Mapping[str, int | None] | None,
) -> pl.DataFrame:
    """The next rows of one partition. `found` learns how far the target is with them.

    Bronze's own position says how far a partition has been taken: what is below it and not in the table was no
    event, or a repeat. So the watermark moves over gaps, and a partition at rest costs no read at all.
    """
    assert bronze.table.topic is not None
    topic = bronze.table.topic.name
    app = watermark(topic, partition)
    held = target.position(app)
    low, high = held or 0, bronze.position(source(topic, partition)) or 0
    if bounds is not None and app in bounds:
        high = min(high, bounds[app] or 0)
    if low >= high:
        return bronze.empty()
    end = min(low + limit, high)
    rows = bronze.rows_between(partition, low, end)
    if rows.is_empty() and end < high:
        # A long gap, as where the log no longer held its beginning: go on at the next row.
        first = bronze.first_offset(partition, end)
        end = high if first is None else min(first + limit, high)
        rows = bronze.rows_between(partition, low, end)
    found.moves[app] = Move(held, end)
    found.full = found.full or end < high
    return rows


def models(kind: type[M], frame: pl.DataFrame) -> list[M]:
    """The rows as models; columns of the envelope are left aside."""
    return [kind.model_validate(row, extra="ignore") for row in frame.iter_rows(named=True)]


def given(frame: pl.DataFrame) -> dict[str, list[Given]]:
    """Outputs by response id."""
    found: dict[str, list[Given]] = {}
    for row in frame.iter_rows(named=True):
        output = Output.model_validate(row, extra="ignore")
        found.setdefault(output.response_id, []).append(Given(row["event_id"], _happened_at(row), output))
    return found


def said(frame: pl.DataFrame) -> dict[str, list[Said]]:
    """Feedback by response id."""
    found: dict[str, list[Said]] = {}
    for row in frame.iter_rows(named=True):
        feedback = Feedback.model_validate(row, extra="ignore")
        said = Said(row["event_id"], _happened_at(row), feedback, stated=row["event_time"])
        found.setdefault(feedback.response_id, []).append(said)
    return found


def cast(frame: pl.DataFrame) -> dict[str, list[Cast]]:
    """Labels by prompt id."""
    found: dict[str, list[Cast]] = {}
    for row in frame.iter_rows(named=True):
        label = Label.model_validate(row, extra="ignore")
        cast = Cast(row["event_id"], _happened_at(row), label, stated=row["event_time"])
        found.setdefault(label.prompt_id, []).append(cast)
    return found


def _happened_at(row: Mapping[str, Any]) -> datetime:
    return happened_at(row["event_time"], row["ingested_at"])


def event(table: tables.Table, row: Mapping[str, Any]) -> Event[Any]:
    """The event that a bronze row was."""
    assert table.topic is not None
    data = table.topic.payload.model_validate(dict(row), extra="ignore")
    return Event(row["event_id"], row["event_source"], row["event_time"], data, row["traceparent"])
