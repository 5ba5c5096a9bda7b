"""Records as Arrow columns, column by column: a fifth of the time that a dict for each row takes.

Values are read as attributes, so that pydantic models and the structs derived from them serve alike.
"""

from collections.abc import Sequence
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


def event_table(schema: pa.Schema, records: Sequence[Record], *, partition: int, ingested_at: datetime) -> pa.Table:
    """The rows of records of one partition: envelope columns, then the payload's.

    Raises one of `UNSTORABLE` where a value fits no column.
    """
    data = [record.data for record in records]
    envelope = {
        "event_id": pa.array([r.id for r in records], pa.string()),
        "event_time": pa.array([r.time for r in records], pa.string()).cast(_MOMENT),
        "event_source": pa.array([r.source for r in records], pa.string()),
        "traceparent": pa.array([r.traceparent for r in records], pa.string()),
        "kafka_partition": pa.repeat(pa.scalar(partition, pa.int64()), len(records)),
        "kafka_offset": pa.array([r.offset for r in records], pa.int64()),
        "ingested_at": pa.repeat(pa.scalar(ingested_at, _MOMENT), len(records)),
    }
    columns = [
        envelope[column.name]
        if column.name in envelope
        else _column(list(map(attrgetter(column.name), data)), column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
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
