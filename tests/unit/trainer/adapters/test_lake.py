"""What the trainer reads of gold and silver tables, on Delta tables on disk."""

from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa

from schemas import tables
from schemas.tables import AnnotatorRow, ScoreRow
from tests.integration import trainer_lake as rows
from trainer.adapters.lake import Pins, TrainerLake


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


def annotator(rater: str, weight: float, **changes: Any) -> dict[str, Any]:
    return AnnotatorRow(
        rater_id=rater, revision=1, kind="user", judgements=9, overlapping=3, reliability=0.5, low=0.2, high=0.8,
        weight=weight, estimated_at=rows.EPOCH,
    ).model_dump() | changes  # fmt: skip


def test_labels_weigh_what_their_raters_weigh_at_the_pinned_version(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1), rows.rating(2, weight=0.5), rows.rating(3)])
    rows.write(tmp_path, tables.PREFERENCES, [rows.preference(2)])
    rows.write(tmp_path, tables.ANNOTATORS, [annotator("u1", 0.25), annotator("u2", 0.5), annotator("labeler:u2", 1.5)])
    lake = lake_of(tmp_path)
    pins = lake.pins()
    rows.write(tmp_path, tables.ANNOTATORS, [annotator("u1", 0.0, revision=2)])
    pinned = lake.read(pins)
    assert [(r.rater, r.weight) for r in pinned.ratings] == [("u1", 0.25), ("u2", 0.25), ("u3", 1.0)]
    assert [p.weight for p in pinned.pairs] == [1.5]
    assert [r.weight for r in lake.read(lake.pins()).ratings] == [0.0, 0.25, 1.0]


def test_a_record_from_before_raters_had_weights_reads_the_same_labels_again(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1)])
    rows.write(tmp_path, tables.ANNOTATORS, [annotator("u1", 0.25)])
    old = Pins.of({tables.RATINGS.path: 1, tables.PREFERENCES.path: None, tables.RESPONSES.path: None})
    assert old.annotators is None
    assert [r.weight for r in lake_of(tmp_path).read(old).ratings] == [1.0]
    new = lake_of(tmp_path).pins()
    assert Pins.of(new.as_dict()) == new and new.as_dict()[tables.ANNOTATORS.path] == 1


def test_tables_of_an_earlier_release_have_neither_tenants_nor_purposes(tmp_path: Path) -> None:
    for table, row in ((tables.RATINGS, rows.rating(1)), (tables.RESPONSES, rows.response(1))):
        new = {"tenant", "purposes", "votes", "thumb_weight", "discounted", "evidence"}
        full = pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())
        schema = pa.schema([field for field in full if field.name not in new])
        path = tmp_path / "lake" / table.path
        path.mkdir(parents=True)
        deltalake.write_deltalake(str(path), pa.Table.from_pylist([row], schema=schema))
    pinned = lake_of(tmp_path).read(lake_of(tmp_path).pins())
    assert ([r.rater for r in pinned.ratings], len(pinned.prompts)) == (["u1"], 1)


def test_the_same_user_id_in_two_tenants_is_two_people(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1, tenant="acme"), rows.rating(21, tenant="other")])
    rows.write(tmp_path, tables.ANNOTATORS, [annotator("acme/u1", 0.5)])
    lake = lake_of(tmp_path)
    assert {(r.rater, r.weight) for r in lake.read(lake.pins()).ratings} == {("acme/u1", 0.5), ("other/u1", 1.0)}


def test_labels_that_weigh_nothing_are_not_counted(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1), rows.rating(2, weight=0.0)])
    lake = lake_of(tmp_path)
    assert lake.count_labels(lake.pins()) == 1


def test_answers_without_consent_to_training_are_neither_prompts_nor_scored(tmp_path: Path) -> None:
    given = {0: None, 1: ["labeling"], 2: [], 3: ["training"]}
    rows.write(tmp_path, tables.RESPONSES, [rows.response(n, purposes=p) for n, p in given.items()])
    lake = lake_of(tmp_path)
    assert [a.response_id for a in lake.unscored("r", limit=9)] == [rows.response_id(n) for n in (3, 0)]
    assert set(lake.read(lake.pins()).prompts) == {a.prompt_id for a in lake.unscored("r", limit=9)}
