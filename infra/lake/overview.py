"""Every table in a line: how much it holds, how fresh it is, how far it is behind what it is made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from infra.lake import reading
from infra.lake.catalog import Catalog, Snapshot
from schemas import tables
from schemas.tables import Table
from streams.adapters.dead_letters import source
from streams.adapters.increments import watermark

MADE_FROM: Mapping[str, tuple[Table, ...]] = {
    tables.RESPONSES.path: (tables.OUTPUTS, tables.FEEDBACK),
    tables.RATINGS.path: (tables.OUTPUTS, tables.FEEDBACK),
    tables.PREFERENCES.path: (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """One table. `rows` count (latest revisions), `stored` lie there.

    `behind` is the number of log offsets that bronze has taken and this table has not consumed; None where the table
    is not made from bronze. `newest` is the latest event time that it knows.
    """

    table: Table
    version: int
    rows: int
    stored: int
    files: int
    bytes: int
    newest: datetime | None
    behind: int | None


def overview(catalog: Catalog, *, on_table: Callable[[str], None] = lambda _: None) -> list[Summary | Table]:
    """Every table, in the order of their definition; one that does not exist yet as its definition."""
    opened = {table.path: catalog.find(table) for table in tables.ALL}
    found: list[Summary | Table] = []
    for table in tables.ALL:
        on_table(table.path)
        snapshot = opened[table.path]
        found.append(table if snapshot is None else _summary(snapshot, opened))
    return found


def _summary(snapshot: Snapshot, opened: Mapping[str, Snapshot | None]) -> Summary:
    return Summary(
        table=snapshot.table,
        version=snapshot.version,
        rows=reading.count(snapshot),
        stored=snapshot.total("num_records"),
        files=len(snapshot.paths),
        bytes=snapshot.total("size_bytes"),
        newest=snapshot.newest(),
        behind=behind(snapshot, opened),
    )


def behind(snapshot: Snapshot, opened: Mapping[str, Snapshot | None]) -> int | None:
    """How many offsets of its bronze tables a derived table has not consumed."""
    sources = MADE_FROM.get(snapshot.table.path)
    if sources is None:
        return None
    total = 0
    for table in sources:
        bronze = opened.get(table.path)
        if bronze is not None and table.topic is not None:
            for partition in range(table.topic.partitions):
                taken = bronze.position(source(table.topic.name, partition)) or 0
                total += max(0, taken - (snapshot.position(watermark(table.topic.name, partition)) or 0))
    return total
