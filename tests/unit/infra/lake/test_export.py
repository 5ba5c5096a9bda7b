"""Data sets out of real tables: which rows, in which order, and what a consumer reads back."""

import gzip
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from infra.lake import shapes
from infra.lake.content import content_hash
from infra.lake.export import Exported, Wanted, export
from infra.lake.files_out import Format
from infra.lake.shapes import Shape, Style
from schemas import tables
from schemas.consent import Purpose
from schemas.tables import Table, annotator_id
from tests.unit.infra.lake import lake_kit as kit


def nobody(_: Exported) -> None:
    pass


def take(
    root: Path,
    shape: Shape | None = shapes.UNPAIRED,
    *,
    table: Table | None = None,
    name: str = "out.jsonl",
    **more: Any,
) -> tuple[list[dict[str, Any]], Exported]:
    out = root.parent / f"{root.name}-{name}"
    kind = Format.PARQUET if name.endswith("parquet") else Format.JSONL
    chosen = table or (shape.table if shape else kit.RATINGS)
    done = export(kit.catalog(root), Wanted(chosen, shape, kind, **more), out, trace=nobody)
    if kind is Format.PARQUET:
        return pq.read_table(out).to_pylist(), done
    text = gzip.decompress(out.read_bytes()) if name.endswith(".gz") else out.read_bytes()
    return [json.loads(line) for line in text.splitlines()], done


def trust(root: Path, weights: dict[str, float]) -> None:
    """Rows of gold/annotators."""
    common = {"revision": 1, "retracted": False, "kind": "user", "judgements": 1, "overlapping": 1, "gold_asked": 0,
              "gold_right": 0, "bursts": 0, "duplicates": 0, "reliability": 0.5, "low": 0.0, "high": 1.0,
              "estimated_at": kit.NOON}  # fmt: skip
    kit.put(root, tables.ANNOTATORS, [common | {"rater_id": name, "weight": w} for name, w in weights.items()])


def completions(rows: list[dict[str, Any]]) -> list[str]:
    return [
        row["completion"] if isinstance(row["completion"], str) else row["completion"][0]["content"] for row in rows
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n) for n in (3, 1, 2, 4)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(2, revision=2, label=False), kit.rating(4, revision=2, retracted=True)])
    return tmp_path


def test_the_rows_that_count_go_out_in_the_order_of_their_ids(lake: Path) -> None:
    rows, done = take(lake)
    assert completions(rows) == ["answer 1", "answer 2", "answer 3"]
    assert [row["label"] for row in rows] == [True, False, True]
    assert (done.target, done.rows, done.left_out) == ("gold/ratings@2", 3, {})


def test_an_old_version_goes_out_as_it_was(lake: Path) -> None:
    rows, done = take(lake, version=1)
    assert [row["label"] for row in rows] == [True] * 4
    assert done.target == "gold/ratings@1"


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("provenance", [False, True])
def test_the_hash_is_the_same_in_every_file_format(lake: Path, style: Style, provenance: bool) -> None:
    results = [
        take(lake, name=name, style=style, provenance=provenance) for name in ("a.parquet", "b.jsonl", "c.jsonl.gz")
    ]
    assert len({done.content for _, done in results}) == 1
    assert all(content_hash(rows) == done.content for rows, done in results)


def test_the_same_export_is_the_same_file(lake: Path) -> None:
    files = []
    for _ in range(2):
        take(lake, name="a.parquet")
        files.append((lake.parent / f"{lake.name}-a.parquet").read_bytes())
    assert files[0] == files[1]


def test_a_consumer_sees_the_types_of_the_format(lake: Path) -> None:
    take(lake, name="a.parquet")
    frame = pl.read_parquet(lake.parent / f"{lake.name}-a.parquet")
    message = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    assert dict(frame.schema) == {"prompt": message, "completion": message, "label": pl.Boolean}


def test_no_rows_are_a_file_with_columns(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.PREFERENCES, [])
    _, done = take(tmp_path, shapes.PREFERENCES, name="none.parquet")
    assert done.rows == 0
    schema = pq.read_schema(tmp_path.parent / f"{tmp_path.name}-none.parquet")
    assert schema.names == ["prompt", "chosen", "rejected"]


def test_what_people_did_not_agree_to_stays_in(tmp_path: Path) -> None:
    agreed = {0: None, 1: ["training"], 2: ["labeling"], 3: []}
    kit.put(tmp_path, kit.RESPONSES, [kit.response(n, purposes=purposes) for n, purposes in agreed.items()])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n) for n in agreed])
    kit.put(tmp_path, kit.PREFERENCES, [kit.preference(0), kit.preference(1)])  # of the answers 0, 1 and 2, 3
    rows, done = take(tmp_path)
    assert completions(rows) == ["answer 0", "answer 1"]
    assert done.left_out == {"no consent to training": 2}
    assert completions(take(tmp_path, purpose=Purpose.LABELING)[0]) == ["answer 0", "answer 2"]
    assert [row["chosen"][0]["content"] for row in take(tmp_path, shapes.PREFERENCES)[0]] == ["good 0"]
    prompts = [row["prompt"][0]["content"] for row in take(tmp_path, shapes.PROMPTS)[0]]
    assert sorted(prompts) == ["question 0", "question 1"]


def test_a_consent_taken_back_counts_for_old_versions_as_well(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RESPONSES, [kit.response(1, purposes=["training"])])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1)])
    assert take(tmp_path, version=1)[1].rows == 1
    kit.put(tmp_path, kit.RESPONSES, [kit.response(1, revision=2, purposes=[])])
    assert take(tmp_path, version=1)[1].rows == 0


def test_weights_are_multiplied_by_the_trust_in_the_rater(tmp_path: Path) -> None:
    kit.put(
        tmp_path,
        kit.RATINGS,
        [
            kit.rating(1),
            kit.rating(2, rater_id="bob", tenant="acme"),
            kit.rating(3, rater_id="carl"),
            kit.rating(4, weight=0.0),
        ],
    )
    kit.put(tmp_path, kit.PREFERENCES, [kit.preference(1, source="label", weight=0.8)])
    weights = {
        annotator_id("user", "ann"): 0.5,
        annotator_id("user", "bob", "acme"): 0.25,
        annotator_id("labeler", "ann"): 0.1,
        "bob": 0.0,
    }
    trust(tmp_path, weights)
    rows, done = take(tmp_path, provenance=True)
    assert [row["weight"] for row in rows] == [0.5, 0.25, 1.0]
    assert list(done.left_out.values()) == [1]
    pairs, _ = take(tmp_path, shapes.PREFERENCES, provenance=True)
    assert pairs[0]["weight"] == pytest.approx(0.08)
    heavy, done = take(tmp_path, min_weight=0.5)
    assert completions(heavy) == ["answer 1", "answer 3"]
    assert done.left_out["weight below 0.5"] == 1


def test_a_pair_of_two_peoples_thumbs_is_as_sure_as_both_of_them(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(2, rater_id="ann"), kit.rating(3, rater_id="bob", label=False)])
    pairs = [kit.preference(1, source=source, weight=0.5) for source in ("same_prompt", "regenerate")]
    trust(tmp_path, {"ann": 0.5, "bob": 0.2})
    for pair, weight in zip(pairs, (0.5 * 0.5 * 0.2, 0.5 * 0.5), strict=True):
        root = tmp_path / pair["source"]
        shutil.copytree(tmp_path / "gold", root / "gold")
        kit.put(root, kit.PREFERENCES, [pair])
        rows, _ = take(root, shapes.PREFERENCES, provenance=True)
        assert rows[0]["weight"] == pytest.approx(weight)


def test_a_split_is_by_prompt(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n, asked="kept" if n % 2 else "learned") for n in range(6)])

    def held(prompt: Iterable[tuple[str, str]]) -> bool:
        return list(prompt) == [("user", "kept")]

    for split, answers in (("held-out", [1, 3, 5]), ("train", [0, 2, 4])):
        rows, _ = take(tmp_path, split=split, held_out=held)
        assert completions(rows) == [f"answer {n}" for n in answers]


def test_prompts_go_out_once(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.RESPONSES, [kit.response(n, asked="same" if n < 3 else "other") for n in range(5)])
    rows, done = take(tmp_path, shapes.PROMPTS, style=Style.TEXT)
    assert sorted(row["prompt"] for row in rows) == ["other", "same"]
    assert done.rows == 2


def test_any_table_goes_out_as_it_is(lake: Path) -> None:
    rows, done = take(lake, None, name="raw.parquet")
    assert [row["response_id"] for row in rows] == [kit.response_id(n) for n in (1, 2, 3)]
    assert set(rows[0]) == set(kit.RATINGS.columns())
    assert done.content == take(lake, None, name="raw.jsonl")[1].content


def test_a_refused_trace_leaves_no_file(lake: Path) -> None:
    def refuse(_: Exported) -> None:
        raise ConnectionError

    out = lake.parent / "refused.jsonl"
    with pytest.raises(ConnectionError):
        export(kit.catalog(lake), Wanted(kit.RATINGS, shapes.UNPAIRED, Format.JSONL), out, trace=refuse)
    assert not out.exists()
