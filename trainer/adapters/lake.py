"""The lake as the trainer sees it: labels and answers at pinned table versions, and scores written back.

A table that isn't there yet has no rows. Reads go through polars at the files that are pinned, never through the log
(`DeltaTable.to_pyarrow_table()` right before exit aborts the process: delta-rs #2184).
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from schemas.errors import DataGone
from schemas.preferences import PreferenceSource
from schemas.storage import LakeRoot, settled
from schemas.tables import ScoreRow, Table, annotator_id
from trainer.adapters.label_history import Taken, newest_of
from trainer.adapters.pins import PINNED, Pin, PinLists, Pins, pin_of
from trainer.adapters.traffic import traffic_of
from trainer.core.dataset import PairRow, RatingRow, Row, Turn, trusted
from trainer.core.domains import COMMON, By, Traffic
from trainer.core.safety_examples import FlagRow, SafetyExample, from_flags

logger = logging.getLogger(__name__)

WRITE_ATTEMPTS = 8
SCANNED_ANSWERS = 20_000
_JUDGED = ("prompt_id", "prompt", "weight", "source", "rater_id", "tenant", "judged_at")
_RATING = ("rating_id", "completion", "label", "response_id", *_JUDGED)
_SAID = ("completion", "flags", "thumb")
_LEARNABLE = ~pl.col("retracted") & (
    pl.col("purposes").is_null() | pl.col("purposes").list.contains(Purpose.TRAINING.value)
)
_PAIR = ("preference_id", "chosen", "rejected", "chosen_response_id", "rejected_response_id", *_JUDGED)


@dataclass(frozen=True, slots=True)
class Answer:
    """A production answer."""

    response_id: str
    prompt_id: str
    prompt: tuple[Turn, ...]
    completion: str
    version: str
    segment: str = COMMON
    tenant: str = COMMON

    def domain(self, by: By) -> str:
        """The one that a reward model which tells them apart by this rates it in."""
        return COMMON if by == "none" else self.segment if by == "segment" else self.tenant


@dataclass(frozen=True)
class Pinned:
    """The rows of the pinned versions: labels that count, and the prompts of production by their id."""

    pins: Pins
    pairs: tuple[PairRow, ...]
    ratings: tuple[RatingRow, ...]
    prompts: Mapping[str, tuple[Turn, ...]]
    segments: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the newest answers, by response id."""
    traffic: Traffic = field(default_factory=Traffic)
    """The domains of the newest answers and of their prompts; empty where they are not told apart."""
    safety: tuple[SafetyExample, ...] = ()
    """Answers that were flagged or not; a labelled file's come to them."""
    thumbs: tuple[RatingRow, ...] = ()
    """Older thumbs that pairs were made from: who gave them. They hold no texts and are no labels here."""
    older: int = 0
    """Labels whose texts were not read, since there are enough newer ones."""

    @property
    def labels(self) -> int:
        return len(self.pairs) + len(self.ratings)


class TrainerLake:
    """The tables below one root."""

    def __init__(self, root: Path | str | LakeRoot) -> None:
        self._root = LakeRoot.of(root)
        self._options = self._root.client_options()
        self._lists = PinLists(self._root)

    def pins(self) -> Pins:
        """The newest version of each table, now. Upkeep leaves its files for a day, and for longer if they are held."""
        return Pins(*(self._newest(t) for t in PINNED))

    def hold(self, cycle_id: str, pins: Pins) -> None:
        """Have upkeep spare these files for a cycle and for who wants to make its version again; raises `OSError`."""
        self._lists.hold(cycle_id, pins)

    def release(self, cycle_id: str, pins: Pins) -> None:
        """The cycle came to nothing; raises `OSError`."""
        self._lists.release(cycle_id, pins)

    def read(
        self,
        pins: Pins,
        *,
        newest_responses: int = 20_000,
        newest_labels: int | None = None,
        counts: Callable[[Row], bool] = lambda row: True,
        by: By = "none",
    ) -> Pinned:
        """Labels and prompts at these versions; of the answers only the newest, so that history costs nothing.

        With `newest_labels` the same holds for labels: texts are read of so many of the newest that count (by `counts`;
        a few older ones may be among them), and of the others ids and times alone. A label's weight is its row's times
        those of the raters behind it. `by` tells domains apart. Raises `DataGone` where some of it has been erased or
        vacuumed since.
        """
        columns = ["prompt_id", "prompt", "segment", *(("tenant",) if by == "tenant" else ()), *_SAID]
        answers = self._newest_answers(pins.responses, columns, newest_responses)
        agreed = answers.filter(_LEARNABLE)
        refused = set(answers.filter(~_LEARNABLE)["response_id"].to_list())
        trust = self._trust(pins.annotators)
        wanted = newest_labels
        while True:
            found = self._labels(pins, wanted, refused, trust)
            if wanted is None or newest_labels is None or not found.older:
                break
            if sum(map(counts, (*found.pairs, *found.ratings))) >= newest_labels:
                break
            wanted *= 2  # some of these are of no use
        prompts = {
            row["prompt_id"]: _turns(row["prompt"])
            for row in agreed.select("response_id", "prompt_id", "prompt")
            .unique("prompt_id", keep="first", maintain_order=True)
            .iter_rows(named=True)
        }
        return replace(
            found,
            prompts=prompts,
            traffic=traffic_of(agreed, prompts, (*found.ratings, *found.thumbs), by),
            segments=dict(agreed.select("response_id", "segment").iter_rows()),
            safety=tuple(from_flags(_flag_rows(agreed))),
        )

    def _labels(self, pins: Pins, newest: int | None, refused: set[str], trust: Mapping[str, float]) -> Pinned:
        """The newest labels, or all of them; without those on refused answers."""
        taken = None if newest is None else self._taken(pins, newest)
        rated, compared = (None, None) if taken is None else (taken.ratings, taken.pairs)
        pairs = [
            row
            for row in map(_pair, self._current(tables.PREFERENCES, pins.preferences, _PAIR, compared).to_dicts())
            if refused.isdisjoint(row.responses)
        ]
        ratings = [
            row
            for row in map(_rating, self._current(tables.RATINGS, pins.ratings, _RATING, rated).to_dicts())
            if row.response not in refused
        ]
        thumbs: list[RatingRow] = []
        if taken is not None and taken.older:
            behind = {i for row in pairs if row.source == PreferenceSource.SAME_PROMPT for i in row.responses}
            thumbs = self._thumbs(pins.ratings, behind, but={row.id for row in ratings})
        older = {row.id for row in thumbs}
        weighed, rows = trusted(pairs, sorted([*ratings, *thumbs], key=lambda row: row.id), trust)
        return Pinned(
            pins,
            weighed,
            tuple(row for row in rows if row.id not in older),
            prompts={},
            thumbs=tuple(thumbs),
            older=0 if taken is None else taken.older,
        )

    def _taken(self, pins: Pins, newest: int) -> Taken:
        """Which labels are the newest. Reads narrow columns."""
        narrow = ("revision", "judged_at")
        return newest_of(
            self._current(tables.RATINGS, pins.ratings, (tables.RATINGS.key, *narrow)),
            self._current(tables.PREFERENCES, pins.preferences, (tables.PREFERENCES.key, *narrow)),
            newest,
        )

    def _thumbs(self, pin: Pin | None, responses: set[str], *, but: set[str]) -> list[RatingRow]:
        """Who gave the thumbs on these answers, without any text; those that are there already are left out."""
        if not responses:
            return []
        columns = ("rating_id", "response_id", "label", "weight", "source", "rater_id", "tenant", "judged_at")
        rows = self._current(tables.RATINGS, pin, columns).filter(pl.col("response_id").is_in(list(responses)))
        bare: dict[str, Any] = {"prompt_id": "", "prompt": (), "completion": ""}
        return [_rating(row | bare) for row in rows.iter_rows(named=True) if row["rating_id"] not in but]

    def flagged(self, pins: Pins, *, newest_responses: int = 20_000) -> list[FlagRow]:
        """Of the newest answers those that were flagged or rated, by id; only with consent to training.

        Raises `DataGone`.
        """
        return _flag_rows(self._responses(pins.responses, ["prompt", *_SAID], newest_responses))

    def labels(self, pins: Pins) -> pl.DataFrame:
        """Id, rater and weight (by trust too) of the labels that count at these versions. Raises `DataGone`."""
        found = [
            self._current(table, pin, (table.key, "weight", "source", "rater_id", "tenant")).rename({table.key: "id"})
            for table, pin in ((tables.RATINGS, pins.ratings), (tables.PREFERENCES, pins.preferences))
        ]
        tenant = pl.when(pl.col("source") == PreferenceSource.LABEL).then(pl.lit("labeler:"))
        tenant = tenant.otherwise((pl.col("tenant") + "/").fill_null(""))
        rater = pl.coalesce(tenant + pl.col("rater_id"), pl.col("id")).alias("rater")
        counted = pl.concat(found).filter(pl.col("weight") > 0).with_columns(rater)
        trust = self._current(tables.ANNOTATORS, pins.annotators, ("rater_id", "weight"))
        weighed = counted.join(trust.rename({"rater_id": "rater", "weight": "trust"}), on="rater", how="left")
        return weighed.select("id", "rater", pl.col("weight") * pl.col("trust").fill_null(1.0))

    def count_labels(self, pins: Pins) -> int:
        """How many labels count at these versions. Reads narrow columns. Raises `DataGone`."""
        found = (
            self._current(table, pin, (table.key, "weight"))
            for table, pin in ((tables.RATINGS, pins.ratings), (tables.PREFERENCES, pins.preferences))
        )
        return sum(labels.filter(pl.col("weight") > 0).height for labels in found)

    def unscored(self, reward_model: str, *, limit: int) -> list[Answer]:
        """The newest answers of production without scores by this reward model, newest first.

        Scores are for choosing what labelers are asked, and what they answer is learned from: answers whose consent
        doesn't cover training are left out.
        """
        if limit < 1:
            return []
        scored = self.scored(reward_model)
        return [a for a in self._answers(limit, pl.lit(True)) if a.response_id not in scored]

    def answers(self, *, limit: int, version: str | None = None, since: datetime | None = None) -> list[Answer]:
        """The newest answers of production, newest first: of one version or from a moment on, if asked.

        Looked for among the newest `SCANNED_ANSWERS`. Answers whose consent doesn't cover training are left out.
        """
        wanted = pl.lit(True) if version is None else pl.col("version") == version
        if since is not None:
            wanted &= pl.col("event_time") >= since
        return self._answers(SCANNED_ANSWERS, wanted)[:limit]

    def _answers(self, newest: int, wanted: pl.Expr) -> list[Answer]:
        pin = self._newest(tables.RESPONSES)
        if pin is None:
            return []
        columns = ["response_id", "prompt_id", "prompt", "completion", "version", "event_time", "segment", "tenant"]
        rows = self._responses(pin, columns, newest).filter((pl.col("completion").str.strip_chars() != "") & wanted)
        return [
            Answer(
                r["response_id"],
                r["prompt_id"],
                _turns(r["prompt"]),
                r["completion"],
                r["version"],
                r["segment"] or COMMON,
                r["tenant"] or COMMON,
            )
            for r in rows.sort("response_id", descending=True).iter_rows(named=True)
        ]

    def append_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Append to gold.scores, in one commit; creates the table where it isn't there."""
        if not rows:
            return
        schema = arrow_schema(tables.SCORES)
        data = pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)
        if self._root.folder is not None:
            (self._root.folder / tables.SCORES.path).mkdir(parents=True, exist_ok=True)
        uri = self._root.at(tables.SCORES.path)
        for attempt in range(WRITE_ATTEMPTS):
            try:
                handle = DeltaTable.create(uri, schema=schema, mode="ignore", storage_options=self._options)
                properties = CommitProperties(max_commit_retries=30)
                deltalake.write_deltalake(handle, data, mode="append", commit_properties=properties)
            except CommitFailedError as error:
                if attempt == WRITE_ATTEMPTS - 1:
                    raise
                logger.info("scores not committed, trying again", extra={"error": str(error)})
                time.sleep(0.05 * 2**attempt * random.uniform(0.5, 1.5))
            else:
                return

    def _newest(self, table: Table) -> Pin | None:
        handle = self._open(table)
        return None if handle is None else pin_of(table, handle)

    def _open(self, table: Table) -> DeltaTable | None:
        try:
            uri = self._root.at(table.path)
            return settled(lambda: DeltaTable(uri, storage_options=self._options), DeltaError)
        except TableNotFoundError:
            return None

    def _trust(self, pin: Pin | None) -> dict[str, float]:
        """Weight by annotator id."""
        rows = self._current(tables.ANNOTATORS, pin, ("rater_id", "weight"))
        return dict(rows.select("rater_id", "weight").iter_rows())

    def _current(
        self, table: Table, pin: Pin | None, columns: Sequence[str], taken: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """The latest revision of each row, without retracted ones, in order of row id.

        Of `taken` rows alone, if given: their key, revision and time, by which files are passed over.
        """

        needed = sorted({*columns, table.key, "revision", "retracted", *(taken.columns if taken is not None else ())})

        def query(stored: pl.LazyFrame) -> pl.DataFrame:
            frame = stored.select(needed)
            if taken is not None:
                first = taken["judged_at"].min()
                frame = frame.head(0) if first is None else frame.filter(pl.col("judged_at") >= first)
                frame = frame.join(taken.lazy(), on=[table.key, "revision"], how="semi")
            latest = frame.sort("revision").unique(subset=[table.key], keep="last", maintain_order=True)
            return latest.filter(~pl.col("retracted")).sort(table.key).select(columns).collect()

        return self._read(table, pin, query)

    def _responses(self, pin: Pin | None, columns: list[str], limit: int) -> pl.DataFrame:
        """Of the newest answers those whose consent covers training."""
        return self._newest_answers(pin, columns, limit).filter(_LEARNABLE)

    def _newest_answers(self, pin: Pin | None, columns: list[str], limit: int) -> pl.DataFrame:
        """The answers with the newest ids (which are ordered by time), one row each, in order of id.

        Also those that must not be learned from (any more): silver hears of a withdrawn consent before gold does, and
        gold that is pinned in between still holds labels on them.
        """
        kept = list(dict.fromkeys(["response_id", "retracted", "purposes", *columns]))

        def query(stored: pl.LazyFrame) -> pl.DataFrame:
            ids = stored.select("response_id").unique().sort("response_id").tail(limit).collect()
            if ids.is_empty():
                return stored.select(kept).head(0).collect()
            frame = stored.select(*kept, "revision").filter(pl.col("response_id") >= ids["response_id"].min())
            latest = frame.sort("revision").unique(subset=["response_id"], keep="last", maintain_order=True)
            return latest.sort("response_id").select(kept).collect()

        return self._read(tables.RESPONSES, pin, query)

    def _read(self, table: Table, pin: Pin | None, query: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
        """What `query` makes of the rows in the pinned files. Raises `DataGone` where one of them is gone."""
        files = self._files(table, pin) if pin is not None else {}
        try:
            return query(self._scan(table, list(files)))
        except (OSError, pl.exceptions.ComputeError) as error:
            missing = self._lists.missing(table, files)
            if not missing:
                raise OSError(f"{table.path} can't be read: {error}") from error
            raise DataGone(
                f"{len(missing)} of the {len(files)} files that were pinned of {table.path} are gone: erased or "
                "vacuumed since. A version that learned from them goes on serving, but can't be made again: begin a "
                "new cycle (THUMBWHEEL_KEEP_VERSIONS_DAYS says how long upkeep leaves pinned files)"
            ) from error

    def _files(self, table: Table, pin: Pin) -> Mapping[str, int | None]:
        if pin.files is not None:
            return pin.files
        try:
            uri = self._root.at(table.path)
            handle = DeltaTable(uri, version=pin.version, storage_options=self._options)
        except DeltaError as error:
            raise DataGone(
                f"version {pin.version} of {table.path} is not in its log any more, and the record is from a release "
                "that listed no files: what was trained on it can't be made again; begin a new cycle"
            ) from error
        return pin_of(table, handle).files or {}

    def _scan(self, table: Table, files: Sequence[str]) -> pl.LazyFrame:
        """The rows of these files; columns that were added after a file was written are null."""
        schema = pl.DataFrame(arrow_schema(table).empty_table()).schema
        if not files:
            return pl.LazyFrame(schema=schema)
        return pl.scan_parquet(
            [f"{self._root.at(table.path)}/{path}" for path in files],
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore"),
            storage_options=self._options,
            glob=False,
        )

    def scored(self, reward_model: str) -> set[str]:
        """Ids of the answers that this reward model has scored."""
        handle = self._open(tables.SCORES)
        if handle is None:
            return set()
        frame = pl.scan_delta(handle).filter(pl.col("reward_model") == reward_model).select("response_id")
        return set(frame.collect()["response_id"].to_list())


def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow types."""
    return pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())


def _turns(prompt: Sequence[Mapping[str, str]]) -> tuple[Turn, ...]:
    return tuple((turn["role"], turn["content"]) for turn in prompt)


def _flag_rows(answers: pl.DataFrame) -> list[FlagRow]:
    """Answers that were flagged or rated."""
    said = answers.filter((pl.col("flags") > 0) | pl.col("thumb").is_not_null())
    return [
        FlagRow(row["response_id"], _turns(row["prompt"]), row["completion"], row["flags"])
        for row in said.iter_rows(named=True)
    ]


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
