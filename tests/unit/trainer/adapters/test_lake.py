"""What the trainer reads of gold and silver tables, on Delta tables on disk."""

from pathlib import Path

import polars as pl

from schemas import tables
from schemas.tables import ScoreRow
from tests.integration import trainer_lake as rows
from trainer.adapters.lake import TrainerLake


def lake_of(data: Path) -> TrainerLake:
    return TrainerLake(data / "lake")


def test_tables_that_are_not_there_have_no_rows(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    pinned = lake.read(lake.pins())
    assert (pinned.pairs, pinned.ratings, pinned.prompts) == ((), (), {})
    assert lake.count_labels(lake.pins()) == 0 and lake.unscored("r", limit=5) == []


def test_the_latest_revision_of_a_label_counts_and_a_retracted_one_does_not(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1, label=True), rows.rating(2), rows.rating(3)])
    rows.write(
        tmp_path, tables.RATINGS, [rows.rating(1, revision=2, label=False), rows.rating(2, revision=2, retracted=True)]
    )
    lake = lake_of(tmp_path)
    ratings = lake.read(lake.pins()).ratings
    assert [(r.id, r.label) for r in ratings] == [("rating-1", False), ("rating-3", False)]
    assert lake.count_labels(lake.pins()) == 2


def test_a_pinned_version_does_not_see_what_came_later(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.PREFERENCES, [rows.preference(1)])
    lake = lake_of(tmp_path)
    pins = lake.pins()
    rows.write(tmp_path, tables.PREFERENCES, [rows.preference(2)])
    assert [p.id for p in lake.read(pins).pairs] == ["pair-1"]
    assert [p.id for p in lake.read(lake.pins()).pairs] == ["pair-1", "pair-2"]


def test_an_answer_that_was_scored_is_not_scored_again(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RESPONSES, [rows.response(n) for n in range(4)])
    lake = lake_of(tmp_path)
    newest = lake.unscored("reward-v1", limit=3)
    assert [a.response_id for a in newest] == [rows.response_id(n) for n in (3, 2, 1)]
    score = ScoreRow(
        response_id=newest[0].response_id,
        prompt_id=newest[0].prompt_id,
        version="base",
        reward_model="reward-v1",
        head_scores=(0.5, -0.5),
        scored_at=rows.EPOCH,
    )
    lake.append_scores([score])
    assert [a.response_id for a in lake.unscored("reward-v1", limit=3)] == [rows.response_id(n) for n in (2, 1)]
    assert len(lake.unscored("reward-v2", limit=3)) == 3
    assert pl.read_delta(str(tmp_path / "lake" / tables.SCORES.path))["head_scores"].to_list() == [[0.5, -0.5]]
