"""Tables by name and version, and what is said when they can't be had."""

from pathlib import Path

import pytest

from infra.lake.catalog import find_table
from infra.lake.commits import history, spans
from infra.lake.overview import Summary, overview
from schemas import tables
from schemas.errors import SettingsError
from streams.adapters.dead_letters import source
from streams.adapters.increments import watermark
from streams.adapters.lake import Move
from tests.unit.infra.lake import lake_kit as kit

OUTPUTS_0 = tables.OUTPUTS.topic.name if tables.OUTPUTS.topic else ""


def test_a_table_has_a_name_and_a_path() -> None:
    assert find_table("ratings") is find_table("gold/ratings") is tables.RATINGS
    with pytest.raises(SettingsError, match="there is no table rating; the tables are outputs, feedback"):
        find_table("rating")


def test_reading_makes_no_table(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no table gold/ratings"):
        kit.catalog(tmp_path / "lake").open(kit.RATINGS)
    assert all(not isinstance(one, Summary) for one in overview(kit.catalog(tmp_path / "lake")))
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_never_was_is_refused(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1)])
    assert kit.catalog(tmp_path).open(kit.RATINGS, 0).total("num_records") == 0
    with pytest.raises(SettingsError, match="has no version 7; it is at version 1"):
        kit.catalog(tmp_path).open(kit.RATINGS, 7)


def test_a_version_whose_files_are_gone_names_those_that_can_be_read(tmp_path: Path) -> None:
    for number in range(3):
        kit.put(tmp_path, kit.RATINGS, [kit.rating(number)])
    kit.compact(tmp_path, kit.RATINGS)
    kit.put(tmp_path, kit.RATINGS, [kit.rating(9)])
    kit.handle(tmp_path, kit.RATINGS).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(SettingsError, match=r"version 2 of gold/ratings can't be read.*these versions can: 0, 4"):
        kit.catalog(tmp_path).open(kit.RATINGS, 2)
    assert kit.catalog(tmp_path).open(kit.RATINGS, 4).total("num_records") == 3


def test_a_version_whose_log_is_gone_names_those_that_can_be_read(tmp_path: Path) -> None:
    for number in range(3):
        kit.put(tmp_path, kit.RATINGS, [kit.rating(number)])
    kit.handle(tmp_path, kit.RATINGS).create_checkpoint()
    kit.put(tmp_path, kit.RATINGS, [kit.rating(9)])
    for version in (0, 1, 2):
        (tmp_path / kit.RATINGS.path / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(SettingsError, match="these versions can: 3-4"):
        kit.catalog(tmp_path).open(kit.RATINGS, 1)


def test_a_snapshot_stays_as_it_was_while_others_write(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1)])
    snapshot = kit.catalog(tmp_path).open(kit.RATINGS)
    kit.put(tmp_path, kit.RATINGS, [kit.rating(2)])
    kit.compact(tmp_path, kit.RATINGS)
    assert snapshot.scan().collect().height == 1
    assert snapshot.version == 1


def test_the_overview_counts_what_counts_and_what_lies_there(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1), kit.rating(2)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2, label=False), kit.rating(2, revision=2, retracted=True)])
    found = {one.table.path: one for one in overview(kit.catalog(tmp_path)) if isinstance(one, Summary)}
    ratings = found["gold/ratings"]
    assert (ratings.rows, ratings.stored, ratings.files, ratings.version) == (1, 4, 2, 2)
    assert ratings.newest == kit.rating(2)["judged_at"]
    assert list(found) == ["gold/ratings"]


def test_a_derived_table_is_behind_by_what_bronze_has_and_it_has_not(tmp_path: Path) -> None:
    kit.put(tmp_path, tables.OUTPUTS, [], {source(OUTPUTS_0, 0): Move(None, 10), source(OUTPUTS_0, 1): Move(None, 7)})
    kit.put(tmp_path, kit.RESPONSES, [kit.response(1)], {watermark(OUTPUTS_0, 0): Move(None, 8)})
    found = {one.table.path: one for one in overview(kit.catalog(tmp_path)) if isinstance(one, Summary)}
    assert found["silver/responses"].behind == (10 - 8) + 7
    assert found["bronze/outputs"].behind is None


def test_the_history_tells_rows_files_and_who_moved(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1), kit.rating(2)], {watermark(OUTPUTS_0, 0): Move(None, 8)})
    kit.put(tmp_path, kit.RATINGS, [kit.rating(3)])
    kit.compact(tmp_path, kit.RATINGS)
    kit.handle(tmp_path, kit.RATINGS).delete("label = true")
    erased, compacted, second, first = history(kit.catalog(tmp_path).log(kit.RATINGS), limit=4)
    assert (first.rows_added, first.rows_removed, dict(first.moves)) == (2, 0, {watermark(OUTPUTS_0, 0): 8})
    assert (second.version, second.rows_added) == (2, 1)
    assert (compacted.rows_added, compacted.rows_removed, len(compacted.removed)) == (0, 0, 2)
    assert erased.rows_removed == 3
    assert [c.version for c in history(kit.catalog(tmp_path).log(kit.RATINGS), limit=2)] == [4, 3]


def test_spans_of_versions() -> None:
    assert spans([0, 1, 2, 7, 9, 10]) == "0-2, 7, 9-10"
    assert spans([]) == ""
