"""Records as Arrow columns, column by column: a fifth of the time that a dict for each row takes.

Values are read as attributes, so that pydantic models and the structs derived from them serve alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
from pydantic import BaseModel

from streams.adapters.decoders import Record

UNSTORABLE = (pa.ArrowException, OverflowError, ValueError, TypeError)
"""What building columns raises for a value that no column can hold."""

_MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one partition, attribute by attribute, in order of offset. Times are as in `Record`; bytes stand for
    the text that they are as UTF-8."""

    ids: Sequence[str | bytes]
    sources: Sequence[str | bytes]
    times: Sequence[str | bytes]
    traceparents: Sequence[str | None]
    offsets: Sequence[int]
    data: Sequence[Any]


def event_table(schema: pa.Schema, records: Sequence[Record], *, partition: int, ingested_at: datetime) -> pa.Table:
    """The rows of records of one partition: envelope columns, then the payload's.

    Raises one of `UNSTORABLE` where a value fits no column.
    """
    events = Events(
        ids=[r.id for r in records],
        sources=[r.source for r in records],
        times=[r.time for r in records],
        traceparents=[r.traceparent for r in records],
        offsets=[r.offset for r in records],
        data=[r.data for r in records],
    )
    return table_of(schema, events, partition=partition, ingested_at=ingested_at)


def table_of(schema: pa.Schema, events: Events, *, partition: int, ingested_at: datetime) -> pa.Table:
    """The same from what is in columns already."""
    count = len(events.ids)
    envelope = {
        "event_id": pa.array(events.ids, pa.string()),
        "event_time": pa.array(events.times, pa.string()).cast(_MOMENT),
        "event_source": pa.array(events.sources, pa.string()),
        "traceparent": _column(events.traceparents, pa.string()),
        "kafka_partition": pa.repeat(pa.scalar(partition, pa.int64()), count),
        "kafka_offset": pa.array(events.offsets, pa.int64()),
        "ingested_at": pa.repeat(pa.scalar(ingested_at, _MOMENT), count),
    }
    columns = [
        envelope[column.name]
        if column.name in envelope
        else _column(list(map(attrgetter(column.name), events.data)), column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    empty = values.count(None)
    if empty == len(values):
        return pa.nulls(len(values), kind)
    if pa.types.is_struct(kind) and not empty:
        children = [_column([getattr(v, part.name) for v in values], part.type) for part in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind))
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and not empty:
        ends = accumulate(map(len, values), initial=0)
        inner = _column(list(chain.from_iterable(values)), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inner, type=kind)
    if pa.types.is_nested(kind):
        return pa.array([_plain(v) for v in values], kind)
    return pa.array(values, kind)


def _plain(value: Any) -> Any:
    """A value as Arrow takes it row by row."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
