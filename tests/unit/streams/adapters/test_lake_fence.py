"""The fence of a derived table: rows made of what was read before something was erased can't be committed after."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties

from schemas import tables
from schemas.errors import TableConflict
from streams.adapters.lake import FENCE, LakeTable, Move, open_table
from tests.unit.streams.adapters.test_lake import put
from tests.unit.streams.core.test_pairing import response

APP = "refine/thumbwheel.feedback.v1/0"


def silver(table: LakeTable, user: str) -> pa.Table:
    return table.arrow([response(1, user_id=user).model_dump()])


def users(root: Path) -> list[str]:
    return sorted(open_table(root, tables.RESPONSES).all().collect()["user_id"].to_list())


def test_what_was_read_before_the_fence_can_not_be_written_after_it(tmp_path: Path) -> None:
    writer, eraser = open_table(tmp_path, tables.RESPONSES), open_table(tmp_path, tables.RESPONSES)
    eraser.fence()
    with pytest.raises(TableConflict, match="erased or mended after it was read"):
        writer.append(silver(writer, "ann"), {APP: Move(None, 1)})
    writer.refresh()
    writer.append(silver(writer, "bob"), {APP: Move(None, 1)})
    assert users(tmp_path) == ["bob"]


def test_a_position_that_is_where_it_was_again_does_not_let_an_old_writer_in(tmp_path: Path) -> None:
    """Refine may be at 5, be handed back to 4, and be at 5 again before the late writer wakes up."""
    late, live = open_table(tmp_path, tables.RESPONSES), open_table(tmp_path, tables.RESPONSES)
    live.append(silver(live, "bob"), {APP: Move(None, 5)})
    late.refresh()
    live.append(live.arrow([]), {APP: Move(5, 4)}, fence=True)
    live.append(live.arrow([]), {APP: Move(4, 5)})
    with pytest.raises(TableConflict, match="erased or mended"):
        late.append(silver(late, "ann"), {APP: Move(5, 6)})
    assert users(tmp_path) == ["bob"]


def test_a_fence_that_comes_between_the_look_and_the_commit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, eraser = open_table(tmp_path, tables.RESPONSES), open_table(tmp_path, tables.RESPONSES)
    write, fenced = writer._write, list[int]()  # pyright: ignore[reportPrivateUsage]

    def overtaken(rows: pa.Table, properties: CommitProperties) -> None:
        if not fenced:
            eraser.fence()
            fenced.append(eraser.fences)
        write(rows, properties)

    monkeypatch.setattr(writer, "_write", overtaken)
    with pytest.raises(TableConflict, match="erased or mended"):
        writer.append(silver(writer, "ann"), {})
    assert (fenced, users(tmp_path)) == ([1], [])


def test_the_fence_counts_up_and_is_known_to_whoever_opens_the_table(tmp_path: Path) -> None:
    one, two = open_table(tmp_path, tables.RATINGS), open_table(tmp_path, tables.RATINGS)
    one.fence()
    two.fence()
    two.append(two.arrow([]), {APP: Move(None, 3)}, fence=True)
    again = open_table(tmp_path, tables.RATINGS)
    assert (again.fences, again.position(FENCE), again.position(APP)) == (3, 3, 3)
    again.append(again.arrow([]), {APP: Move(3, 4)})


def test_a_fence_that_another_one_overtakes_is_satisfied_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = open_table(tmp_path, tables.RATINGS), open_table(tmp_path, tables.RATINGS)
    write, overtaken = one._write, list[bool]()  # pyright: ignore[reportPrivateUsage]

    def late(rows: pa.Table, properties: CommitProperties) -> None:
        if not overtaken:
            two.fence()
            overtaken.append(True)
        write(rows, properties)

    monkeypatch.setattr(one, "_write", late)
    one.fence()
    assert (one.fences, open_table(tmp_path, tables.RATINGS).fences) == (1, 1)


def test_writers_that_no_fence_separates_both_get_through(tmp_path: Path) -> None:
    one, two = open_table(tmp_path, tables.RESPONSES), open_table(tmp_path, tables.RESPONSES)
    one.append(silver(one, "ann"), {APP: Move(None, 1)})
    two.append(silver(two, "bob"), {})
    assert users(tmp_path) == ["ann", "bob"]


def test_bronze_has_no_fence_for_what_comes_from_the_log(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    put(table, 0, 3, expected=None)
    found: Any = open_table(tmp_path, tables.FEEDBACK).position(FENCE)
    assert found is None
