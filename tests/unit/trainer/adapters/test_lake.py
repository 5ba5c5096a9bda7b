"""What the trainer reads of gold and silver tables, on Delta tables on disk."""

import json
import struct
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pytest

from schemas import tables
from schemas.errors import DataGone, SettingsError
from schemas.tables import AnnotatorRow, ScoreRow
from tests.integration import trainer_lake as rows
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pin, Pins


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
    assert lake_of(tmp_path).pins().versions()[tables.ANNOTATORS.path] == 1


def test_pins_list_the_files_with_their_rows_and_come_back_from_their_file(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1), rows.rating(2)])
    rows.write(tmp_path, tables.RATINGS, [rows.rating(3)])
    pins = lake_of(tmp_path).pins()
    assert pins.ratings is not None and pins.ratings.files is not None
    assert (pins.ratings.version, set(pins.ratings.files.values())) == (2, {1, 2})
    assert set(pins.ratings.files) == {p.name for p in (tmp_path / "lake" / tables.RATINGS.path).glob("*.parquet")}
    assert (pins.preferences, pins.versions()["gold/preferences"]) == (None, None)
    file = tmp_path / "pins.json"
    file.write_text(pins.text())
    assert Pins.read(file) == pins


def test_a_file_that_is_gone_is_one_error_that_says_why_and_what_to_do(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(1)])
    rows.write(tmp_path, tables.RATINGS, [rows.rating(2)])
    lake = lake_of(tmp_path)
    pins = lake.pins()
    next((tmp_path / "lake" / tables.RATINGS.path).glob("*.parquet")).unlink()
    for read in (lake.read, lake.count_labels):
        with pytest.raises(DataGone, match=r"1 of the 2 files .* gold/ratings are gone: erased or vacuumed.*begin"):
            read(pins)


def test_a_version_of_an_earlier_release_that_the_log_has_forgotten_says_so(tmp_path: Path) -> None:
    for n in range(3):
        rows.write(tmp_path, tables.RATINGS, [rows.rating(n)])
    deltalake.DeltaTable(str(tmp_path / "lake" / tables.RATINGS.path)).create_checkpoint()
    for n in range(3):
        (tmp_path / "lake" / tables.RATINGS.path / "_delta_log" / f"{n:020d}.json").unlink()
    with pytest.raises(DataGone, match="version 1 of gold/ratings is not in its log any more"):
        lake_of(tmp_path).read(Pins(Pin(version=1), None, None))
    assert len(lake_of(tmp_path).read(Pins(Pin(version=3), None, None)).ratings) == 3


def test_files_whose_rows_are_partly_deleted_by_a_vector_are_refused(tmp_path: Path) -> None:
    """Another writer may make them; the rows that the vector deletes would be learned from."""
    rows.write(tmp_path, tables.RATINGS, [rows.rating(n) for n in range(3)])
    created, appended = sorted((tmp_path / "lake" / tables.RATINGS.path / "_delta_log").glob("*.json"))
    feature = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    _alter(created, "protocol", {"minReaderVersion": 3, "minWriterVersion": 7} | feature)
    assert lake_of(tmp_path).count_labels(lake_of(tmp_path).pins()) == 3
    inline = {"storageType": "i", "pathOrInlineDv": _z85(_second_row_deleted()), "sizeInBytes": 34, "cardinality": 1}
    _alter(appended, "add", {"deletionVector": inline})
    with pytest.raises(SettingsError, match=r"gold/ratings has deletion vectors.*rewrite the table"):
        lake_of(tmp_path).pins()


def _alter(commit: Path, action: str, changes: dict[str, Any]) -> None:
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    commit.write_text(
        "\n".join(json.dumps({k: v | changes if k == action else v for k, v in a.items()}) for a in actions)
    )


def _second_row_deleted() -> bytes:
    """Magic, one bucket of key 0, and its roaring bitmap: cookie, one container of one value at offset 16, value 1."""
    return struct.pack("<iQIIIHHIH", 1681511377, 1, 0, 12346, 1, 0, 0, 16, 1)


def _z85(data: bytes) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    padded = data + bytes(-len(data) % 4)
    words = [int.from_bytes(padded[i : i + 4], "big") for i in range(0, len(padded), 4)]
    return "".join(digits[word // 85**place % 85] for word in words for place in (4, 3, 2, 1, 0))


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
