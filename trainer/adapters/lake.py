"""The lake as the trainer sees it: labels and answers at pinned table versions, and scores written back.

A table that isn't there yet has no rows. Reads go through polars (`DeltaTable.to_pyarrow_table()` right before exit
aborts the process: delta-rs #2184).
"""

import logging
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from schemas import tables
from schemas.consent import Purpose
from schemas.preferences import PreferenceSource
from schemas.tables import ScoreRow, Table, annotator_id
from trainer.core.dataset import PairRow, RatingRow, Turn, trusted

logger = logging.getLogger(__name__)

WRITE_ATTEMPTS = 8
_JUDGED = ("prompt_id", "prompt", "weight", "source", "rater_id", "tenant", "judged_at")
_RATING = ("rating_id", "completion", "label", "response_id", *_JUDGED)
_PAIR = ("preference_id", "chosen", "rejected", "chosen_response_id", "rejected_response_id", *_JUDGED)


_PINNED = (tables.RATINGS, tables.PREFERENCES, tables.RESPONSES, tables.ANNOTATORS)


@dataclass(frozen=True, slots=True)
class Answer:
    """A production answer."""

    response_id: str
    prompt_id: str
    prompt: tuple[Turn, ...]
    completion: str
    version: str


@dataclass(frozen=True)
class Pins:
    """The Delta version of each table that a cycle reads; None for a table that did not exist."""

    ratings: int | None
    preferences: int | None
    responses: int | None
    annotators: int | None = None

    @classmethod
    def of(cls, versions: Mapping[str, int | None]) -> "Pins":
        """From what a record holds (see `as_dict`); one from before raters had weights doesn't name their table."""
        return cls(*(versions.get(t.path) for t in _PINNED))

    def as_dict(self) -> dict[str, int | None]:
        """Table path -> version."""
        versions = (self.ratings, self.preferences, self.responses, self.annotators)
        return {table.path: version for table, version in zip(_PINNED, versions, strict=True)}


@dataclass(frozen=True)
class Pinned:
    """The rows of the pinned versions: labels that count, and the prompts of production by their id."""

    pins: Pins
    pairs: tuple[PairRow, ...]
    ratings: tuple[RatingRow, ...]
    prompts: Mapping[str, tuple[Turn, ...]]

    @property
    def labels(self) -> int:
        return len(self.pairs) + len(self.ratings)


class TrainerLake:
    """The tables below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def pins(self) -> Pins:
        """The newest version of each table, now."""
        return Pins(*(self._version(t) for t in _PINNED))

    def read(self, pins: Pins, *, newest_responses: int = 20_000) -> Pinned:
        """Labels and prompts at these versions; of the answers only the newest, so that history costs nothing.

        A label's weight is its row's times those of the raters behind it.
        """
        ratings = self._current(tables.RATINGS, pins.ratings, _RATING)
        pairs = self._current(tables.PREFERENCES, pins.preferences, _PAIR)
        prompts = self._responses(pins.responses, ["prompt_id", "prompt"], newest_responses)
        weighed = trusted(
            [_pair(row) for row in pairs.iter_rows(named=True)],
            [_rating(row) for row in ratings.iter_rows(named=True)],
            self._trust(pins.annotators),
        )
        return Pinned(
            pins,
            *weighed,
            {row["prompt_id"]: _turns(row["prompt"]) for row in prompts.unique("prompt_id").iter_rows(named=True)},
        )

    def count_labels(self, pins: Pins) -> int:
        """How many labels count at these versions. Reads narrow columns."""
        found = (
            self._current(table, version, (table.key, "weight"))
            for table, version in ((tables.RATINGS, pins.ratings), (tables.PREFERENCES, pins.preferences))
        )
        return sum(labels.filter(pl.col("weight") > 0).height for labels in found)

    def unscored(self, reward_model: str, *, limit: int) -> list[Answer]:
        """The newest answers of production without scores by this reward model, newest first.

        Scores are for choosing what labelers are asked, and what they answer is learned from: answers whose consent
        doesn't cover training are left out.
        """
        version = self._version(tables.RESPONSES)
        if version is None or limit < 1:
            return []
        newest = self._responses(version, ["response_id", "prompt_id", "prompt", "completion", "version"], limit)
        scored = self._scored(reward_model)
        rows = newest.filter(
            ~pl.col("response_id").is_in(list(scored)) & (pl.col("completion").str.strip_chars() != "")
        )
        return [
            Answer(r["response_id"], r["prompt_id"], _turns(r["prompt"]), r["completion"], r["version"])
            for r in rows.sort("response_id", descending=True).iter_rows(named=True)
        ]

    def append_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Append to gold.scores, in one commit; creates the table where it isn't there."""
        if not rows:
            return
        schema = arrow_schema(tables.SCORES)
        data = pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)
        path = self._root / tables.SCORES.path
        path.mkdir(parents=True, exist_ok=True)
        for attempt in range(WRITE_ATTEMPTS):
            try:
                handle = DeltaTable.create(str(path), schema=schema, mode="ignore")
                properties = CommitProperties(max_commit_retries=30)
                deltalake.write_deltalake(handle, data, mode="append", commit_properties=properties)
            except CommitFailedError as error:
                if attempt == WRITE_ATTEMPTS - 1:
                    raise
                logger.info("scores not committed, trying again", extra={"error": str(error)})
                time.sleep(0.05 * 2**attempt * random.uniform(0.5, 1.5))
            else:
                return

    def _version(self, table: Table) -> int | None:
        handle = self._open(table, None)
        return None if handle is None else handle.version()

    def _open(self, table: Table, version: int | None) -> DeltaTable | None:
        path = self._root / table.path
        if not (path / "_delta_log").is_dir():
            return None
        try:
            return DeltaTable(str(path), version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            if version is None:
                logger.info("table not readable yet", extra={"table": table.path, "error": str(error)})
                return None
            raise

    def _trust(self, version: int | None) -> dict[str, float]:
        """Weight by annotator id."""
        rows = self._current(tables.ANNOTATORS, version, ("rater_id", "weight"))
        return dict(rows.select("rater_id", "weight").iter_rows())

    def _current(self, table: Table, version: int | None, columns: Sequence[str]) -> pl.DataFrame:
        """The latest revision of each row, without retracted ones, in order of row id."""
        handle = self._open(table, version) if version is not None else None
        if handle is None:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))
        frame = _scan(handle, {*columns, table.key, "revision", "retracted"}).sort("revision")
        latest = frame.unique(subset=[table.key], keep="last", maintain_order=True)
        return latest.filter(~pl.col("retracted")).sort(table.key).select(columns).collect()

    def _responses(self, version: int | None, columns: list[str], limit: int) -> pl.DataFrame:
        """The answers with the newest ids (which are ordered by time), one row each, in order of id.

        Of these, the ones whose consent covers training.
        """
        handle = self._open(tables.RESPONSES, version) if version is not None else None
        if handle is None:
            return pl.DataFrame(schema=columns)
        ids = pl.scan_delta(handle).select("response_id").unique().sort("response_id").tail(limit).collect()
        if ids.is_empty():
            return pl.DataFrame(schema=columns)
        wanted = {"response_id", "revision", "retracted", "purposes", *columns}
        frame = _scan(handle, wanted).filter(pl.col("response_id") >= ids["response_id"].min())
        latest = frame.sort("revision").unique(subset=["response_id"], keep="last", maintain_order=True)
        agreed = pl.col("purposes").is_null() | pl.col("purposes").list.contains(Purpose.TRAINING.value)
        return latest.filter(~pl.col("retracted") & agreed).sort("response_id").select(columns).collect()

    def _scored(self, reward_model: str) -> set[str]:
        handle = self._open(tables.SCORES, None)
        if handle is None:
            return set()
        frame = pl.scan_delta(handle).filter(pl.col("reward_model") == reward_model).select("response_id")
        return set(frame.collect()["response_id"].to_list())


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow types."""
    return pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())


_SINCE: Mapping[str, Any] = {"tenant": pl.String, "purposes": pl.List(pl.String)}
"""Columns that tables pinned by earlier releases don't have."""


def _scan(handle: DeltaTable, columns: Collection[str]) -> pl.LazyFrame:
    """These columns; those that a table pinned before they existed lacks are null."""
    held = {field.name for field in handle.schema().fields}
    missing = [pl.lit(None, dtype=_SINCE[name]).alias(name) for name in sorted(set(columns) - held)]
    return pl.scan_delta(handle).select(sorted(set(columns) & held)).with_columns(missing)


def _turns(prompt: Sequence[Mapping[str, str]]) -> tuple[Turn, ...]:
    return tuple((turn["role"], turn["content"]) for turn in prompt)


def _moment(value: datetime) -> float:
    return value.timestamp()


def _rater(row: Mapping[str, Any]) -> str | None:
    """The same user id in two tenants is two people; labelers work for all of them."""
    if row["rater_id"] is None or row["source"] == PreferenceSource.LABEL:
        return row["rater_id"]
    return annotator_id("user", row["rater_id"], row["tenant"])


def _rating(row: Mapping[str, Any]) -> RatingRow:
    return RatingRow(
        id=row["rating_id"],
        prompt_id=row["prompt_id"],
        prompt=_turns(row["prompt"]),
        completion=row["completion"],
        label=row["label"],
        weight=row["weight"],
        source=row["source"],
        rater=_rater(row),
        judged_at=_moment(row["judged_at"]),
        response=row["response_id"] or "",
    )


def _pair(row: Mapping[str, Any]) -> PairRow:
    responses = (row["chosen_response_id"], row["rejected_response_id"])
    return PairRow(
        id=row["preference_id"],
        prompt_id=row["prompt_id"],
        prompt=_turns(row["prompt"]),
        chosen=row["chosen"],
        rejected=row["rejected"],
        weight=row["weight"],
        source=row["source"],
        rater=_rater(row),
        judged_at=_moment(row["judged_at"]),
        responses=tuple(r for r in responses if r is not None),
    )
