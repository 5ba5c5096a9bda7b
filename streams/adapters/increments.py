"""What a derived table has not consumed yet, and rows of the lake as the models that the core works on.

Every derived table keeps, for each topic and partition, the Kafka offset up to which it has consumed the *bronze*
rows of that topic. So one kind of watermark serves silver and gold, survives compaction, and after a crash the rows
between a table's watermark and bronze are simply read again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel

from schemas import tables
from schemas.envelope import Event
from schemas.feedback import Feedback
from schemas.labels import Label
from schemas.outputs import Output
from schemas.topics import Topic
from streams.adapters.lake import LakeTable, Move
from streams.core.aggregation import Given, Said
from streams.core.pairing import Cast

M = TypeVar("M", bound=BaseModel)


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
    """The rows of the bronze `sources` that `target` has not consumed, at most `limit` for each partition.

    `not_beyond` gives upper bounds by application id (None: nothing yet), for a table that is derived from a table
    that consumes the same topics.
    """
    found = Increment()
    for bronze in sources:
        assert bronze.table.topic is not None
        topic, parts = bronze.table.topic.name, list[pl.DataFrame]()
        for partition in bronze.partitions():
            app = watermark(topic, partition)
            held = target.position(app)
            rows = _between(bronze, partition, held or 0, _bound(app, not_beyond), limit)
            if rows.height:
                parts.append(rows)
                found.moves[app] = Move(held, int(rows.get_column("kafka_offset")[-1]) + 1)
                found.full = found.full or rows.height == limit
        if parts:
            found.frames[topic] = pl.concat(parts)
    return found


def _bound(app: str, not_beyond: Mapping[str, int | None] | None) -> int | None:
    """The offset before which rows may be read; None where there is no bound."""
    if not_beyond is None or app not in not_beyond:
        return None
    return not_beyond[app] or 0


def _between(bronze: LakeTable, partition: int, low: int, high: int | None, limit: int) -> pl.DataFrame:
    if high is not None and high <= low:
        return bronze.empty()
    rows = bronze.rows_from(partition, low, limit=limit)
    return rows if high is None else rows.filter(pl.col("kafka_offset") < high)


def models(kind: type[M], frame: pl.DataFrame) -> list[M]:
    """The rows as models; columns of the envelope are left aside."""
    return [kind.model_validate(row, extra="ignore") for row in frame.iter_rows(named=True)]


def given(frame: pl.DataFrame) -> dict[str, list[Given]]:
    """Outputs by response id."""
    found: dict[str, list[Given]] = {}
    for row in frame.iter_rows(named=True):
        output = Output.model_validate(row, extra="ignore")
        found.setdefault(output.response_id, []).append(Given(row["event_id"], row["event_time"], output))
    return found


def said(frame: pl.DataFrame) -> dict[str, list[Said]]:
    """Feedback by response id."""
    found: dict[str, list[Said]] = {}
    for row in frame.iter_rows(named=True):
        feedback = Feedback.model_validate(row, extra="ignore")
        found.setdefault(feedback.response_id, []).append(Said(row["event_id"], row["event_time"], feedback))
    return found


def cast(frame: pl.DataFrame) -> dict[str, list[Cast]]:
    """Labels by prompt id."""
    found: dict[str, list[Cast]] = {}
    for row in frame.iter_rows(named=True):
        label = Label.model_validate(row, extra="ignore")
        found.setdefault(label.prompt_id, []).append(Cast(row["event_id"], row["event_time"], label))
    return found


def event(table: tables.Table, row: Mapping[str, Any]) -> Event[Any]:
    """The event that a bronze row was."""
    assert table.topic is not None
    data = table.topic.payload.model_validate(dict(row), extra="ignore")
    return Event(row["event_id"], row["event_source"], row["event_time"], data, row["traceparent"])
