"""Take a data set out of the lake: which rows, in which shape, into one file.

    version ──► rows that count ──► permitted ──► split, weight ──► shape ──► file ──► audit event ──► its name

Rows go out in the order of their ids, so the same version and options give the same file. What people agreed to is
looked up in the newest version of silver/responses, whichever version is exported: a consent that was taken back
counts for old data as well. The event that says who took what is acknowledged before the file gets its name.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from infra.lake import files_out, reading, shapes
from infra.lake.catalog import Catalog, Snapshot
from infra.lake.content import ContentHash
from infra.lake.files_out import Format
from infra.lake.shapes import Shape, Style
from schemas import tables
from schemas.consent import Purpose
from schemas.preferences import PreferenceSource
from schemas.tables import Table
from streams.adapters.lake import arrow_schema

Split = Literal["train", "held-out"]
_RESPONSE_COLUMNS = ("response_id", "chosen_response_id", "rejected_response_id")


@dataclass(frozen=True)
class Wanted:
    """What to export: a table as it is, or in a shape. `held_out` says whether a prompt (turns) is never trained on."""

    table: Table
    shape: Shape | None
    kind: Format
    style: Style = Style.MESSAGES
    provenance: bool = False
    version: int | None = None
    purpose: Purpose = Purpose.TRAINING
    min_weight: float = 0.0
    split: Split | None = None
    held_out: Callable[[Iterable[tuple[str, str]]], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. `left_out` counts rows by why they are not in it."""

    target: str
    rows: int
    content: str
    bytes: int
    left_out: dict[str, int]


def export(
    catalog: Catalog,
    wanted: Wanted,
    out: Path,
    *,
    trace: Callable[[Exported], None],
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Exported:
    """Write `out`; `trace` is called with what is in it before it gets its name, and may refuse by raising.

    Raises `SettingsError` for a table or version that can't be read. `on_progress` hears (what, done, of).
    """
    snapshot = catalog.open(wanted.table, wanted.version)
    on_progress("choosing rows", 0, 0)
    chosen, left_out = choose(catalog, snapshot, wanted)
    on_progress("reading rows", 0, chosen.height)
    frame = _frame(snapshot, wanted, chosen)
    content = ContentHash()
    with files_out.whole(out) as draft:
        writer = files_out.writer(draft, wanted.kind, _schema(wanted), packed=out.suffix == ".gz")
        with closing(writer):
            for batch in files_out.batches(_records(frame, wanted)):
                writer.write(batch)
                for row in batch:
                    content.add(row)
                on_progress("writing rows", content.rows, frame.height)
        done = Exported(snapshot.name, content.rows, content.hexdigest(), draft.stat().st_size, left_out)
        trace(done)
    return done


def choose(catalog: Catalog, snapshot: Snapshot, wanted: Wanted) -> tuple[pl.DataFrame, dict[str, int]]:
    """Key, revision and weight of the rows that go out, in order of key; and how many don't, by why."""
    needed = [*_RESPONSE_COLUMNS, "prompt_id", "weight", "source", "rater_id", "tenant", "purposes"]
    needed += ["prompt"] if wanted.split else []
    also = [c for c in needed if c in snapshot.schema]
    rows = reading.survivors(snapshot, also=also)
    left_out: dict[str, int] = {}

    def keep(why: str, condition: pl.Expr) -> None:
        nonlocal rows
        kept = rows.filter(condition)
        if kept.height < rows.height:
            left_out[why] = rows.height - kept.height
        rows = kept

    keep(f"no consent to {wanted.purpose}", permitted(catalog, also, wanted.purpose))
    if "weight" in also and wanted.shape is not None:
        rows = _weighted(catalog, rows)
        keep("weight 0 (repeats, bursts, raters who are not trusted)", pl.col("weight") > 0)
        keep(f"weight below {wanted.min_weight:g}", pl.col("weight") >= wanted.min_weight)
    if wanted.split is not None:
        prompts = rows.unique("prompt_id").select("prompt_id", "prompt").iter_rows()
        held = [i for i, turns in prompts if wanted.held_out((turn["role"], turn["content"]) for turn in turns)]
        inside = pl.col("prompt_id").is_in(held)
        keep(f"not in the split {wanted.split}", inside if wanted.split == "held-out" else ~inside)
    return rows.sort(snapshot.table.key, maintain_order=True), left_out


def permitted(catalog: Catalog, columns: list[str], purpose: Purpose) -> pl.Expr:
    """Rows that may be used for `purpose`: by their own purposes, and by those of the answers that they are about.

    No purposes (null) count as agreed, as in `schemas.consent.permits`.
    """
    condition = pl.lit(True)
    if "purposes" in columns:
        condition = condition & (pl.col("purposes").is_null() | pl.col("purposes").list.contains(purpose.value))
    about = [c for c in _RESPONSE_COLUMNS if c in columns]
    responses = catalog.find(tables.RESPONSES)
    if about and responses is not None:
        agreed = pl.col("purposes").is_null() | pl.col("purposes").list.contains(purpose.value)
        refused = reading.survivors(responses, also=["purposes"]).filter(~agreed).get_column("response_id").to_list()
        for column in about:
            condition = condition & (pl.col(column).is_null() | ~pl.col(column).is_in(refused))
    return condition


def _weighted(catalog: Catalog, rows: pl.DataFrame) -> pl.DataFrame:
    """Weights multiplied by how far the people behind a row are trusted, as the trainer does
    (`trainer.core.dataset.trusted`); who is not in gold/annotators weighs 1. A pair of two people's thumbs is as sure
    as both of them are.
    """
    annotators = catalog.find(tables.ANNOTATORS)
    if annotators is None or rows.is_empty():
        return rows
    trust = reading.survivors(annotators, also=["weight"])
    weight_of = dict(trust.select("rater_id", "weight").iter_rows())
    people = [
        pl.when(pl.col("source") == PreferenceSource.LABEL.value).then(_labeler()).otherwise(_user()).alias("_by")
    ]
    named = rows.with_columns(people)
    others = [c for c in ("chosen_response_id", "rejected_response_id") if c in rows.columns]
    ratings = catalog.find(tables.RATINGS) if others else None
    if ratings is not None:
        thumbs = reading.survivors(ratings, also=["response_id", "rater_id", "tenant"])
        raters = thumbs.select("response_id", _user().alias("_rater"))
        for column in others:
            found = raters.rename({"response_id": column, "_rater": f"_{column}"})
            named = named.join(found, on=column, how="left", maintain_order="left")
    behind = [c for c in named.columns if c.startswith("_")]
    weights = [
        row["weight"] * math.prod(weight_of.get(name, 1.0) for name in _behind(row, behind))
        for row in named.select("weight", "source", *behind).iter_rows(named=True)
    ]
    return rows.with_columns(pl.Series("weight", weights, dtype=pl.Float64))


def _behind(row: dict[str, Any], columns: list[str]) -> set[str]:
    """The annotator ids of the people behind a row: its own, and for two answers' thumbs those who gave them."""
    counted = columns if row["source"] == PreferenceSource.SAME_PROMPT.value else ["_by"]
    return {row[c] for c in counted if row[c] is not None}


def _user() -> pl.Expr:
    """`schemas.tables.annotator_id` of a user."""
    inside = pl.concat_str("tenant", "rater_id", separator="/")
    return pl.when(pl.col("tenant").is_null()).then(pl.col("rater_id")).otherwise(inside)


def _labeler() -> pl.Expr:
    """`schemas.tables.annotator_id` of a labeler."""
    return pl.concat_str(pl.lit("labeler:"), "rater_id")


def _frame(snapshot: Snapshot, wanted: Wanted, chosen: pl.DataFrame) -> pl.DataFrame:
    """The whole rows, in order of id; prompts once each."""
    if wanted.shape is shapes.PROMPTS:
        chosen = chosen.sort("prompt_id", snapshot.table.key).unique("prompt_id", keep="first", maintain_order=True)
    rows = reading.rows(snapshot, chosen)
    if wanted.shape is shapes.PROMPTS:
        return rows.sort("prompt_id")
    if wanted.shape is None:
        return rows if not rows.is_empty() else pl.DataFrame(schema=snapshot.schema)
    key = snapshot.table.key
    return rows.drop("weight").join(chosen.select(key, "weight"), on=key, how="left").sort(key)


def _records(frame: pl.DataFrame, wanted: Wanted) -> Iterator[dict[str, Any]]:
    for row in frame.iter_rows(named=True):
        if wanted.shape is None:
            yield row
        else:
            yield shapes.record(wanted.shape, row, style=wanted.style, provenance=wanted.provenance)


def _schema(wanted: Wanted) -> pa.Schema:
    if wanted.shape is None:
        return arrow_schema(wanted.table)
    return shapes.arrow_schema(wanted.shape, style=wanted.style, provenance=wanted.provenance)
