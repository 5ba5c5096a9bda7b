"""A diff says what happened, and costs what happened."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.lake import reading
from infra.lake.diff import Difference, difference
from schemas.tables import Table
from streams.adapters.lake import open_table
from tests.unit.infra.lake import lake_kit as kit

EVERYTHING = 1_000


def compare(root: Path, table: Table, old: int, new: int | None = None, *, limit: int = EVERYTHING) -> Difference:
    catalog = kit.catalog(root)
    return difference(catalog.open(table, old), catalog.open(table, new), catalog.log(table), limit=limit)


def kinds(found: Difference) -> dict[str, str]:
    return {change.key: change.kind for change in found.changes}


def test_a_row_comes_one_is_revised_and_one_is_retracted(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1), kit.rating(2), kit.rating(3)])
    changed = kit.rating(1, revision=2, label=False, weight=0.5)
    kit.put(tmp_path, kit.RATINGS, [changed, kit.rating(2, revision=2, retracted=True), kit.rating(4)])
    found = compare(tmp_path, kit.RATINGS, 1)
    assert (found.added, found.removed, found.changed, found.unchanged) == (1, 1, 1, 0)
    assert found.columns == {"label": 1, "weight": 1}
    assert kinds(found) == {
        kit.rating(1)["rating_id"]: "changed",
        kit.rating(2)["rating_id"]: "removed",
        kit.rating(4)["rating_id"]: "added",
    }
    change = found.changes[0]
    assert change.before is not None
    assert change.after is not None
    assert (change.before["weight"], change.after["weight"]) == (1.0, 0.5)


def test_a_revision_that_says_the_same_changes_nothing(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2)])
    found = compare(tmp_path, kit.RATINGS, 1)
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 0, 1)


def test_a_retracted_row_that_comes_back_is_added(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2, retracted=True)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=3)])
    assert kinds(compare(tmp_path, kit.RATINGS, 2)) == {kit.rating(1)["rating_id"]: "added"}
    assert compare(tmp_path, kit.RATINGS, 1).unchanged == 1


def test_compaction_is_no_change_and_is_not_read(tmp_path: Path) -> None:
    for number in range(6):
        kit.put(tmp_path, kit.RATINGS, [kit.rating(number)])
    kit.compact(tmp_path, kit.RATINGS)
    found = compare(tmp_path, kit.RATINGS, 6)
    assert (found.added, found.files, found.rows_read) == (0, 0, 0)
    assert kit.catalog(tmp_path).open(kit.RATINGS).total("num_records") == 6


def test_the_cost_follows_the_change_and_not_the_table(tmp_path: Path) -> None:
    for number in range(20):
        kit.put(tmp_path, kit.RATINGS, [kit.rating(number)])
    kit.compact(tmp_path, kit.RATINGS)
    kit.put(tmp_path, kit.RATINGS, [kit.rating(100), kit.rating(3, revision=2, label=False)])
    found = compare(tmp_path, kit.RATINGS, 20)
    assert (found.added, found.changed) == (1, 1)
    assert (found.files, found.rows_read, found.rows_total) == (1, 2, 20 + 22)


def test_appends_and_a_compaction_between_the_versions(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1), kit.rating(2)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2, label=False)])
    kit.compact(tmp_path, kit.RATINGS)
    kit.put(tmp_path, kit.RATINGS, [kit.rating(3)])
    found = compare(tmp_path, kit.RATINGS, 1)
    assert sorted(kinds(found).values()) == ["added", "changed"]
    assert found.rows_read == 2


def test_rows_that_were_rewritten_are_compared_and_not_believed(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n) for n in range(5)])
    kit.handle(tmp_path, kit.RATINGS).delete(f"rating_id = '{kit.rating(3)['rating_id']}'")
    found = compare(tmp_path, kit.RATINGS, 1)
    assert (found.added, found.removed, found.changed) == (0, 1, 0)
    assert kinds(found) == {kit.rating(3)["rating_id"]: "removed"}


def test_a_rebuilt_table_with_the_same_content_differs_in_nothing(tmp_path: Path) -> None:
    rows = [kit.rating(n) for n in range(4)]
    kit.put(tmp_path, kit.RATINGS, rows)
    opened = open_table(tmp_path, kit.RATINGS)
    again = opened.arrow([dict.fromkeys(kit.RATINGS.columns()) | row | {"revision": 4} for row in rows])
    write_deltalake(kit.handle(tmp_path, kit.RATINGS), again, mode="overwrite")
    found = compare(tmp_path, kit.RATINGS, 1)
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 0, 4)


def test_rows_without_revisions_are_compared_as_they_are(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.AUDIT, [kit.audit(n) for n in range(3)])
    kit.put(tmp_path, kit.AUDIT, [kit.audit(3)])
    assert kinds(compare(tmp_path, kit.AUDIT, 1)) == {"event-0003": "added"}
    kit.handle(tmp_path, kit.AUDIT).update(updates={"actor": "'nobody'"}, predicate="event_id = 'event-0001'")
    found = compare(tmp_path, kit.AUDIT, 2)
    assert kinds(found) == {"event-0001": "changed"}
    assert found.columns == {"actor": 1}


def test_the_counts_are_whole_where_the_rows_are_few(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(0)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n) for n in range(1, 9)])
    found = compare(tmp_path, kit.RATINGS, 1, limit=2)
    assert (found.added, len(found.changes)) == (8, 2)
    assert compare(tmp_path, kit.RATINGS, 1, limit=0).changes == ()


@pytest.mark.parametrize("gone", ["data file", "commit"])
def test_where_the_log_can_not_tell_the_files_of_both_versions_are_compared(tmp_path: Path, gone: str) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1), kit.rating(2)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2, label=False)])
    kit.compact(tmp_path, kit.RATINGS)
    kit.handle(tmp_path, kit.RATINGS).create_checkpoint()
    folder = tmp_path / kit.RATINGS.path
    old, new = kit.catalog(tmp_path).open(kit.RATINGS, 1), kit.catalog(tmp_path).open(kit.RATINGS)
    if gone == "commit":
        (folder / "_delta_log" / f"{2:020d}.json").unlink()
    else:
        between = kit.catalog(tmp_path).open(kit.RATINGS, 2)
        (appended,) = set(between.paths) - set(old.paths)
        (folder / appended).unlink()
    found = difference(old, new, kit.catalog(tmp_path).log(kit.RATINGS), limit=EVERYTHING)
    assert kinds(found) == {kit.rating(1)["rating_id"]: "changed"}
    assert found.columns == {"label": 1}


Step = tuple[str, int, bool]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("retract"), st.integers(0, 5), st.just(True)),
        st.tuples(st.just("commit"), st.just(0), st.just(True)),
        st.tuples(st.just("compact"), st.just(0), st.just(True)),
        st.tuples(st.just("erase"), st.integers(0, 5), st.just(True)),
    ),
    min_size=2,
    max_size=14,
)


def play(root: Path, script: list[Step]) -> None:
    """Revisions as refine writes them (each id's numbers go up by one), compactions, and rows erased in place."""
    waiting: list[dict[str, Any]] = []
    revision: dict[int, int] = {}

    def commit() -> None:
        if waiting:
            kit.put(root, kit.RATINGS, waiting)
            waiting.clear()

    for what, number, label in script:
        if what in ("write", "retract"):
            revision[number] = revision.get(number, 0) + 1
            row = kit.rating(number, revision=revision[number], label=label, retracted=what == "retract")
            waiting.append(row)
        else:
            commit()
        if what == "compact":
            kit.compact(root, kit.RATINGS)
        if what == "erase":
            kit.handle(root, kit.RATINGS).delete(f"rating_id = '{kit.rating(number)['rating_id']}'")
            revision.pop(number, None)
    commit()


def current(root: Path, version: int) -> dict[str, dict[str, Any]]:
    snapshot = kit.catalog(root).open(kit.RATINGS, version)
    newest = snapshot.scan().sort("revision").unique("rating_id", keep="last").filter(~pl.col("retracted")).collect()
    return {row["rating_id"]: without(row) for row in newest.iter_rows(named=True)}


def without(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "revision"}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=steps, ends=st.tuples(st.integers(0, 100), st.integers(0, 100)))
def test_a_diff_applied_to_the_old_rows_gives_the_new_ones(script: list[Step], ends: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kit.put(root, kit.RATINGS, [])
        play(root, script)
        newest = kit.catalog(root).open(kit.RATINGS).version
        old, new = sorted(end % (newest + 1) for end in ends)
        rows = current(root, old)
        found = compare(root, kit.RATINGS, old, new)
        for change in found.changes:
            if change.kind == "removed":
                assert change.before is not None
                assert without(change.before) == rows.pop(change.key)
            else:
                assert change.after is not None
                assert (change.key in rows) == (change.kind == "changed")
                assert change.kind == "added" or without(change.after) != rows[change.key]
                rows[change.key] = without(change.after)
        assert rows == current(root, new)
        assert reading.count(kit.catalog(root).open(kit.RATINGS, new)) == len(rows)
