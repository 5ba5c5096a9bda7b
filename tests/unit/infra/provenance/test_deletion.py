"""Removing what a deleted row leaves behind, while others write the table's properties."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from infra.provenance import deletion
from schemas import tables
from schemas.storage import LakeRoot
from schemas.tables import AnnotatorRow, Table
from streams.adapters.lake import Move, open_table


def annotator(number: int) -> AnnotatorRow:
    return AnnotatorRow(
        rater_id=f"user-{number}",
        revision=1,
        kind="user",
        judgements=1,
        overlapping=0,
        reliability=0.5,
        low=0.1,
        high=0.9,
        weight=1.0,
        estimated_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def opened_before_others_change_its_properties(times: int) -> Callable[[LakeRoot, Table], DeltaTable]:
    """What opens a table, so many times with a property that somebody sets right after."""
    really, left = deletion._open, [times]  # pyright: ignore[reportPrivateUsage]

    def open_(root: LakeRoot, table: Table) -> DeltaTable:
        handle = really(root, table)
        if left[0]:
            left[0] -= 1
            really(root, table).alter.set_table_properties(
                {"delta.logRetentionDuration": f"interval {left[0] + 5} days"}
            )
        return handle

    return open_


def test_a_vacuum_that_is_refused_because_a_property_was_set_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, table = LakeRoot.of(tmp_path), tables.ANNOTATORS
    held = open_table(root, table)
    for number in range(3):
        held.append(held.arrow([annotator(number).model_dump()]), {"app": Move(number or None, number + 1)})
    held.compact(1 << 20)
    monkeypatch.setattr(deletion, "_open", opened_before_others_change_its_properties(3))
    deletion.forget_history(root, [table])
    assert len(list((tmp_path / table.path).glob("*.parquet"))) == 1, "the three that compaction made one of are gone"
    kept = DeltaTable(root.at(table.path)).metadata().configuration
    assert kept["delta.logRetentionDuration"] != "interval 0 seconds"
