"""The demo's read-only look into the Delta tables. A table that does not exist yet is empty."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from schemas.tables import BY_NAME, DEAD_LETTERS, FEEDBACK, OUTPUTS, RATINGS, Table


class Lake:
    """The tables below `root` (`<data>/lake`)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def rows(self, name: str) -> int:
        """How many rows a table has, revisions included; read from the Delta log alone."""
        table = self._open(BY_NAME[name])
        return 0 if table is None else int(table.count())

    def feedback_ids(self) -> Counter[str]:
        """How often each feedback id is in bronze."""
        return Counter(self._column(FEEDBACK, "event_id"))

    def response_ids(self) -> Counter[str]:
        """How often each answer is in bronze."""
        return Counter(self._column(OUTPUTS, "response_id"))

    def repeated_offsets(self, name: str) -> int:
        """Rows of a bronze table whose place on the log is there already: what a sink stored twice."""
        frame = self._scan(BY_NAME[name])
        if frame is None:
            return 0
        places = frame.select("kafka_partition", "kafka_offset").collect()
        return places.height - places.unique().height

    def dead_letters(self) -> dict[str, int]:
        """Dead letters by reason."""
        return dict(Counter(self._column(DEAD_LETTERS, "reason")).most_common())

    def thumbs(self) -> dict[str, tuple[int, int]]:
        """(up, down) by version, as gold counts them: one for each answer that carries a thumb, the latest revision."""
        frame = self._scan(RATINGS)
        if frame is None:
            return {}
        latest = (
            frame.sort("revision").unique("rating_id", keep="last", maintain_order=True).filter(~pl.col("retracted"))
        )
        counts = latest.group_by("version").agg(
            pl.col("label").sum().alias("up"), (~pl.col("label")).sum().alias("down")
        )
        return {row["version"]: (int(row["up"]), int(row["down"])) for row in counts.collect().to_dicts()}

    def label_queue(self) -> list[dict[str, Any]]:
        """The label tasks queued so far, as rows."""
        frame = self._scan(BY_NAME["label_queue"])
        return [] if frame is None else frame.collect().to_dicts()

    def _column(self, table: Table, column: str) -> list[str]:
        frame = self._scan(table)
        return [] if frame is None else frame.select(column).collect()[column].to_list()

    def _open(self, table: Table) -> DeltaTable | None:
        try:
            return DeltaTable(str(self._root / table.path))
        except TableNotFoundError:
            return None

    def _scan(self, table: Table) -> pl.LazyFrame | None:
        opened = self._open(table)
        return None if opened is None else pl.scan_delta(opened)
