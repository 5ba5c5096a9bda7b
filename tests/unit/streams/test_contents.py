"""The hash of a table's content: order and revisions don't count, every cell does."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from streams.contents import Content, counted, row_hash

COLUMNS = counted(["id", "text", "number", "at", "list", "revision", "retracted"])
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

cells = {
    "id": st.text(max_size=5),
    "text": st.none() | st.text(max_size=5),
    "number": st.floats(allow_nan=False) | st.none(),
    "at": st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),
    "list": st.none() | st.lists(st.text(max_size=3), max_size=3),
    "revision": st.integers(1, 9),
    "retracted": st.booleans(),
}
rows = st.fixed_dictionaries(cells)
many = st.lists(rows, max_size=6)


def whole(these: list[dict[str, Any]]) -> str:
    content = Content(COLUMNS)
    for row in these:
        content.add(row_hash(row, COLUMNS))
    return str(content)


@given(many, st.randoms(use_true_random=False), st.integers(1, 9))
def test_order_and_revisions_do_not_count(these: list[dict[str, Any]], chance: Any, revision: int) -> None:
    other = [{**row, "revision": revision, "retracted": False} for row in these]
    chance.shuffle(other)
    assert whole(other) == whole(these)


@given(many, st.integers(0, 6))
def test_slices_add_up_to_the_whole(these: list[dict[str, Any]], cut: int) -> None:
    first, second = Content(COLUMNS), Content(COLUMNS)
    first.add(*(row_hash(row, COLUMNS) for row in these[:cut]))
    second.add(*(row_hash(row, COLUMNS) for row in these[cut:]))
    first.merge(second)
    assert (str(first), first.rows) == (whole(these), len(these))


@given(st.data(), st.lists(rows, min_size=1, max_size=4), st.sampled_from(COLUMNS))
def test_any_changed_cell_counts(data: st.DataObject, these: list[dict[str, Any]], column: str) -> None:
    cell = data.draw(cells[column])
    at = data.draw(st.integers(0, len(these) - 1))
    assume(str(cell) != str(these[at][column]))
    assert whole([*these[:at], {**these[at], column: cell}, *these[at + 1 :]]) != whole(these)


@given(many, rows)
def test_a_row_more_counts_even_one_that_is_there_already(these: list[dict[str, Any]], row: dict[str, Any]) -> None:
    assert len({whole(these), whole([*these, row]), whole([*these, row, row])}) == 3


def test_a_moment_is_the_same_in_every_zone_and_null_is_no_empty_text() -> None:
    row = {"id": "a", "text": None, "number": 1.0, "at": NOON, "list": None}
    abroad = {**row, "at": NOON.astimezone(timezone(timedelta(hours=5)))}
    assert row_hash(abroad, COLUMNS) == row_hash(row, COLUMNS)
    assert row_hash({**row, "text": ""}, COLUMNS) != row_hash(row, COLUMNS)
    assert row_hash({**row, "list": []}, COLUMNS) != row_hash(row, COLUMNS)


def test_the_hash_names_its_columns() -> None:
    assert COLUMNS == ("at", "id", "list", "number", "text")
    assert str(Content(("a",))) != str(Content(("b",)))
    assert len(str(Content(()))) == 64
