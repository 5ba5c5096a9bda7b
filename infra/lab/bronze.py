"""Events straight into the bronze tables, and from there silver and gold by the code of `tables rebuild`.

What refine makes of bronze while events come, a rebuild makes of it afterwards: the same rows (that is what
`thumbwheel tables rebuild --check` checks). So the trainer finds what it would find in production.

Each table remembers in its own commit how many collections it has taken, so that one that was cut off between two
tables is completed and never doubled.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas import tables
from schemas.envelope import Event
from schemas.errors import ThumbwheelError
from schemas.tables import Table
from streams.adapters.columns import event_table
from streams.adapters.dead_letters import source
from streams.adapters.decoders import Record
from streams.adapters.lake import LakeTable, Move, open_table
from streams.rebuild import Rebuild
from streams.settings import StreamSettings

COLLECTED = "lab/collected"
"""The application id under which a bronze table counts the lab's collections."""
TAKEN = (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS)


class NotRefined(ThumbwheelError):
    """Silver or gold are not what bronze says."""


class Bronze:
    """The bronze tables of one seed, with one partition each."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._tables = {table.name: open_table(settings.lake, table) for table in TAKEN}

    def collected(self) -> int:
        """How many collections all of the tables hold."""
        return min(table.position(COLLECTED) or 0 for table in self._tables.values())

    def store(self, number: int, table: Table, events: Sequence[Event[Any]], *, ingested_at: datetime) -> None:
        """Append one collection's events to a table, unless it has them; an event that is there twice counts once."""
        assert table.topic is not None
        lake = self._tables[table.name]
        if (held := lake.position(COLLECTED) or 0) >= number:
            return
        place = source(table.topic.name, 0)
        start = lake.position(place)
        once = list({event.id: event for event in events}.values())
        records = [_record(event, (start or 0) + n) for n, event in enumerate(once)]
        moves = {
            COLLECTED: Move(held or None, number),
            place: Move(start, (start or 0) + len(records)),
        }
        lake.append(event_table(lake.schema, records, partition=0, ingested_at=ingested_at), moves)

    def refine(self) -> None:
        """Bring silver and gold to what bronze holds."""
        reports = Rebuild(self._settings, patience_seconds=0.01).run(mend=True)
        wrong = [report.table for report in reports if not report.right]
        if wrong:
            raise NotRefined(f"{', '.join(wrong)} can't be brought to what bronze says; begin in a new folder")

    def label_ids(self) -> set[str]:
        """The tasks that labels are about."""
        return set(self._labels.all().select("task_id").collect().get_column("task_id").to_list())

    @property
    def _labels(self) -> LakeTable:
        return self._tables[tables.LABELS.name]


def settings_for(folder: Path) -> StreamSettings:
    """The streams' settings as the environment says, but with the lake below `folder`, wherever production has its."""
    return StreamSettings(data=folder, lake=str(folder / "lake"))  # type: ignore[arg-type]  # a validator makes it a root


def _record(event: Event[Any], offset: int) -> Record:
    time = event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Record(event.id, event.source, time, event.traceparent, event.data, offset)
