"""Tables that own the offsets of what they hold."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas import tables
from schemas.envelope import new_event
from schemas.errors import TableConflict
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from streams.adapters.lake import LakeTable, Move, latest, open_table
from tests.unit.streams.core.test_pairing import response

APP = "ingest/thumbwheel.feedback.v1/0"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def rows(start: int, stop: int, *, partition: int = 0) -> list[dict[str, Any]]:
    said = [Feedback(response_id=new_response_id(), kind=FeedbackKind.COPY) for _ in range(start, stop)]
    events = [new_event(s, source="test", id=f"event-{partition}-{start + i}") for i, s in enumerate(said)]
    return [tables.event_row(e, partition=partition, offset=start + i, ingested_at=NOON) for i, e in enumerate(events)]


def put(table: LakeTable, start: int, stop: int, *, expected: int | None) -> None:
    table.append(table.arrow(rows(start, stop)), {APP: Move(expected, stop)})


def offsets(table: LakeTable) -> list[int]:
    return sorted(table.all().collect().get_column("kafka_offset").to_list())


def test_the_position_is_in_the_same_commit_as_the_rows(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    assert table.position(APP) is None
    put(table, 0, 3, expected=None)
    again = open_table(tmp_path, tables.FEEDBACK)
    assert (again.position(APP), offsets(again)) == (3, [0, 1, 2])


def test_the_stale_commit_of_a_zombie_is_refused(tmp_path: Path) -> None:
    zombie, heir = open_table(tmp_path, tables.FEEDBACK), open_table(tmp_path, tables.FEEDBACK)
    put(heir, 0, 3, expected=None)
    with pytest.raises(TableConflict, match="is at 3, not at None"):
        put(zombie, 0, 5, expected=None)
    zombie.refresh()
    with pytest.raises(TableConflict):
        put(zombie, 0, 5, expected=None)
    assert offsets(zombie) == [0, 1, 2]


def test_writers_of_different_partitions_both_get_through(tmp_path: Path) -> None:
    one, two = open_table(tmp_path, tables.FEEDBACK), open_table(tmp_path, tables.FEEDBACK)
    put(one, 0, 2, expected=None)
    two.append(two.arrow(rows(0, 2, partition=1)), {"ingest/thumbwheel.feedback.v1/1": Move(None, 2)})
    one.refresh()
    assert offsets(one) == [0, 0, 1, 1]


def test_progress_without_rows_is_kept(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    table.append(table.arrow([]), {APP: Move(None, 7)})
    assert open_table(tmp_path, tables.FEEDBACK).position(APP) == 7


def test_compaction_keeps_rows_and_positions_and_spares_other_writers(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK, compact_every_commits=4)
    other = open_table(tmp_path, tables.FEEDBACK)
    for n in range(4):
        put(table, n, n + 1, expected=n or None)
    assert table.maintain()
    assert len(table.files()) == 1
    other.refresh()
    put(other, 4, 6, expected=4)
    table.refresh()
    assert (offsets(table), table.position(APP)) == ([0, 1, 2, 3, 4, 5], 6)


def test_rows_are_found_behind_a_watermark_by_id_and_by_age(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    put(table, 0, 3, expected=None)
    put(table, 3, 6, expected=3)
    assert table.partitions() == [0]
    assert table.rows_between(0, 2, 5).get_column("kafka_offset").to_list() == [2, 3, 4]
    assert (table.first_offset(0, 4), table.first_offset(0, 6), table.first_offset(1, 0)) == (4, None, None)
    assert table.newest_event_ids(0, limit=2) == ["event-0-4", "event-0-5"]
    wanted = table.all().collect().filter(kafka_offset=4).get_column("response_id").to_list()
    assert table.rows_by("response_id", wanted).get_column("kafka_offset").to_list() == [4]
    assert len(table.files({"response_id": (wanted[0], wanted[0])})) == 1


def test_an_empty_table_can_be_read(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    assert (table.partitions(), table.rows_between(0, 0, 5).height, latest(table).height) == ([], 0, 0)
    assert table.rows_by("response_id", ["x"]).height == 0
    assert table.newest_event_ids(0, limit=5) == []


def test_the_latest_rows_are_the_highest_revisions_without_the_retracted(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.RESPONSES)
    first, second = response(1, 1), response(2, -1)
    turned = first.model_copy(update={"revision": 2, "thumb": -1})
    gone = second.model_copy(update={"revision": 2, "retracted": True})
    for batch in ([first, second], [gone, turned]):
        table.append(table.arrow([row.model_dump() for row in batch]), {})
    (row,) = latest(table).to_dicts()
    assert (row["response_id"], row["revision"], row["thumb"]) == (first.response_id, 2, -1)
