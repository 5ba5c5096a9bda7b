"""What derived tables should hold by bronze, beside what they hold.

A part is one derived table. Its rows are computed by unit: all of one response, or all of one prompt. A gold row is
computed from bronze alone: silver need not be right for it. (Only gold.annotators rests on silver and gold.)
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ValidationError

from schemas.tables import PreferenceRow, RatingRow
from streams.adapters.dead_letters import source
from streams.adapters.increments import watermark
from streams.adapters.lake import LakeTable
from streams.annotators import RaterRules, annotators
from streams.contents import Content, counted, row_hash
from streams.derive import Derivation, DerivedTables

logger = logging.getLogger(__name__)

SAMPLE_UNITS = 100_000

Gold = RatingRow | PreferenceRow


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not as it should be; `columns` are those that differ."""

    row_id: str
    kind: Literal["missing", "extra", "differing"]
    columns: tuple[str, ...] = ()


@dataclass
class Unit:
    """One response or prompt: the hashes of its rows on both sides, and what differs about them."""

    live: list[int] = field(default_factory=list[int])
    wanted: list[int] = field(default_factory=list[int])
    differences: list[Difference] = field(default_factory=list[Difference])


@dataclass
class Compared:
    """The content that is the same on both sides, and the units that are wrong."""

    same: Content
    wrong: dict[str, Unit] = field(default_factory=dict[str, Unit])

    def live(self) -> list[int]:
        """The hashes of the rows that the wrong units have."""
        return [h for unit in self.wrong.values() for h in unit.live]

    def wanted(self) -> list[int]:
        """The hashes of the rows that they should have."""
        return [h for unit in self.wrong.values() for h in unit.wanted]


@dataclass(frozen=True, slots=True)
class Live:
    """The newest revision of a row as it lies in the table; `torn`: there are several, and they differ."""

    row: dict[str, Any]
    torn: bool = False


class Part:
    """A derived table, the bronze tables whose watermarks it keeps, and how its rows follow from these.

    Rows are computed by `unit`: all of one response, or all of one prompt.
    """

    unit: str
    estimated = False
    """Whether its rows are made every so often, from all there is, and not whenever an event comes."""

    def __init__(self, opened: DerivedTables, derivation: Derivation, table: LakeTable, bronze: Sequence[LakeTable]):
        self.opened, self.derivation, self.table, self.bronze = opened, derivation, table, bronze
        self.key, self.name, self.columns = table.table.key, table.table.name, counted(table.schema.names)
        self.alive = True

    def evidence(self) -> pl.LazyFrame:
        """The units of all that bronze has."""
        raise NotImplementedError

    def wanted(self, units: set[str]) -> dict[str, BaseModel]:
        """The rows that bronze comes to, by their ids."""
        raise NotImplementedError

    def units_of(self, response_ids: set[str]) -> set[str]:
        """The units that these responses belong to."""
        return set()

    def units(self) -> pl.LazyFrame:
        """The units of bronze, and those that only the table has."""
        return pl.concat([self.evidence(), self.table.all().select(self.unit)])

    def units_between(self, low: str | None, high: str | None) -> set[str]:
        """Those from `low` up to and without `high`."""
        frame = self.units()
        if low is not None:
            frame = frame.filter(pl.col(self.unit) >= low)
        if high is not None:
            frame = frame.filter(pl.col(self.unit) < high)
        return set(frame.unique().collect().get_column(self.unit).to_list())

    def refresh(self) -> None:
        """The table first: then whatever its rows were made of is in bronze as we see it, and its fence holds."""
        self.table.refresh()
        for bronze in self.opened.bronze:
            bronze.refresh()

    def positions(self) -> dict[str, int | None]:
        """The table's watermarks, for every partition that there is or may be."""
        return {app: self.table.position(app) for app in self._sources()}

    def bronze_positions(self) -> dict[str, int]:
        """How far bronze is, by the names of the table's watermarks."""
        return {app: bronze.position(at) or 0 for app, (bronze, at) in self._sources().items()}

    def caught_up(self) -> bool:
        """Whether the table has consumed all that bronze has."""
        return not self.unconsumed()

    def unconsumed(self) -> int:
        """How many offsets of bronze lie behind the table's watermarks."""
        held = self.positions()
        return sum(max(0, to - max(0, held[app] or 0)) for app, to in self.bronze_positions().items())

    def estimate_is_old(self) -> bool:
        """Only of estimated rows: whether they were made before the last events."""
        return False

    def in_flight(self) -> set[str]:
        """The units that events touch which the table has not consumed."""
        ids, units = set[str](), set[str]()
        for bronze in self.bronze:
            assert bronze.table.topic is not None
            for partition in bronze.partitions():
                low = self.table.position(watermark(bronze.table.topic.name, partition)) or 0
                files = bronze.files({"kafka_partition": (partition, partition), "kafka_offset": (low, None)})
                there = (pl.col("kafka_partition") == partition) & (pl.col("kafka_offset") >= low)
                column = "response_id" if "response_id" in bronze.schema.names else "prompt_id"
                found = bronze.scan(files).filter(there).select(column).unique().collect().get_column(column)
                (ids if column == "response_id" else units).update(found.to_list())
        return units | self.units_of(ids)

    def compare(self, units: set[str]) -> Compared:
        """The rows of these units as the table has them, with those that bronze comes to."""
        wanted = {row_id: row for row_id, (_, row) in self._wanted_rows(units).items()}
        live = self.live_rows(units, wanted.keys())
        found = Compared(Content(self.columns))
        sides: dict[str, Unit] = {unit: Unit() for unit in units}
        for row_id in wanted.keys() | live.keys():
            self._compare_row(row_id, live.get(row_id), wanted.get(row_id), sides)
        for unit, side in sides.items():
            if side.differences:
                found.wrong[unit] = side
            else:
                found.same.add(*side.wanted)
        return found

    def _compare_row(
        self, row_id: str, live: Live | None, wanted: dict[str, Any] | None, sides: Mapping[str, Unit]
    ) -> None:
        there = None if live is None or live.row["retracted"] else live.row
        home = None if there is None else sides.get(there[self.unit])
        if there is not None and home is not None:
            home.live.append(row_hash(there, self.columns))
        side = None if wanted is None else sides[wanted[self.unit]]
        if home is not None and home is not side:
            home.differences.append(Difference(row_id, "extra"))
        if wanted is None or side is None:
            return
        side.wanted.append(row_hash(wanted, self.columns))
        if there is None:
            side.differences.append(Difference(row_id, "missing"))
            return
        columns = tuple(c for c in self.columns if there[c] != wanted[c])
        if columns or (live is not None and live.torn):
            side.differences.append(Difference(row_id, "differing", columns or ("revision",)))

    def revisions(self, units: set[str]) -> list[dict[str, Any]]:
        """The rows to append, as `streams.core.revisions.revise` would have them.

        It works on rows as they lie in the table: one that was destroyed need not be a valid one.
        """
        wanted = self._wanted_rows(units)
        live = self.live_rows(units, wanted.keys())
        rows: list[dict[str, Any]] = []
        for row_id, (model, row) in sorted(wanted.items()):
            now = live.get(row_id)
            if now is None:
                rows.append({**model.model_dump(), "revision": 1, "retracted": False})
            elif now.torn or now.row["retracted"] or any(now.row[c] != row[c] for c in self.columns):
                rows.append({**model.model_dump(), "revision": now.row["revision"] + 1, "retracted": False})
        for row_id, now in sorted(live.items()):
            if row_id not in wanted and now.row[self.unit] in units and (now.torn or not now.row["retracted"]):
                rows.append({**now.row, "revision": now.row["revision"] + 1, "retracted": True})
        return rows

    def published(self, rows: Iterable[Mapping[str, Any]]) -> list[Gold]:
        """Those that are announced: gold rows. A row that was destroyed can be retracted, but not be told."""
        if self.table.table.row not in (RatingRow, PreferenceRow):
            return []
        found: list[Gold] = []
        for row in rows:
            try:
                found.append(self.table.table.row.model_validate(dict(row), extra="ignore"))  # pyright: ignore[reportArgumentType]
            except ValidationError as error:
                logger.warning("a destroyed row is retracted untold", extra={"row": row[self.key], "error": str(error)})
        return found

    def _wanted_rows(self, units: set[str]) -> dict[str, tuple[BaseModel, dict[str, Any]]]:
        """Each as a model, and as it would come back from the table: by the same types, so that they compare."""
        wanted = self.wanted(units)
        frame = pl.DataFrame(self.table.arrow([row.model_dump() for row in wanted.values()]))
        return dict(zip(wanted, zip(wanted.values(), frame.to_dicts(), strict=True), strict=True))

    def live_rows(self, units: set[str], wanted: Iterable[str]) -> dict[str, Live]:
        """The newest revisions of the rows of these units, and of those that belong to them wherever they are."""
        ids = set(wanted)
        if self.unit == self.key:
            return _newest(self.table.rows_by(self.key, units | ids), self.key)
        here = self.table.all().filter(pl.col(self.unit).is_in(sorted(units))).select(self.key).unique().collect()
        return _newest(self.table.rows_by(self.key, ids | set(here.get_column(self.key).to_list())), self.key)

    def _sources(self) -> dict[str, tuple[LakeTable, str]]:
        """Each watermark of the table, with the bronze table and its position that it follows."""
        found: dict[str, tuple[LakeTable, str]] = {}
        for bronze in self.bronze:
            topic = bronze.table.topic
            assert topic is not None
            for partition in sorted({*range(topic.partitions), *bronze.partitions()}):
                found[watermark(topic.name, partition)] = (bronze, source(topic.name, partition))
        return found


class Silver(Part):
    """silver.responses, by response."""

    unit = "response_id"

    def __init__(self, opened: DerivedTables, derivation: Derivation) -> None:
        super().__init__(opened, derivation, opened.responses, (opened.outputs, opened.feedback))

    def evidence(self) -> pl.LazyFrame:
        return self.opened.outputs.all().select("response_id")

    def wanted(self, units: set[str]) -> dict[str, BaseModel]:
        return {**self.derivation.responses(units)}

    def units_of(self, response_ids: set[str]) -> set[str]:
        return response_ids


class _Gold(Part):
    """A gold table, by prompt. Of answers of which nothing was said nothing comes, so they are not looked at."""

    unit = "prompt_id"

    def evidence(self) -> pl.LazyFrame:
        return pl.concat([self._judged().select("prompt_id"), self.opened.labels.all().select("prompt_id")])

    def units_of(self, response_ids: set[str]) -> set[str]:
        found = self.opened.outputs.all().filter(pl.col("response_id").is_in(sorted(response_ids)))
        return set(found.select("prompt_id").collect().get_column("prompt_id").to_list())

    def _judged(self) -> pl.LazyFrame:
        """The answers of which something was said, or that a label is about: response_id, prompt_id."""
        labels = self.opened.labels.all()
        sides = [labels.select(pl.col(side).struct.field("response_id")) for side in ("left", "right")]
        said = pl.concat([self.opened.feedback.all().select("response_id"), *sides]).drop_nulls().unique()
        return self.opened.outputs.all().select("response_id", "prompt_id").join(said, on="response_id", how="semi")

    def _responses(self, prompts: set[str]) -> list[Any]:
        found = self._judged().filter(pl.col("prompt_id").is_in(sorted(prompts))).select("response_id").unique()
        ids = found.collect().get_column("response_id").to_list()
        return [row for row in self.derivation.responses(ids).values() if row.prompt_id in prompts]


class Ratings(_Gold):
    def __init__(self, opened: DerivedTables, derivation: Derivation) -> None:
        super().__init__(opened, derivation, opened.ratings, (opened.outputs, opened.feedback))

    def wanted(self, units: set[str]) -> dict[str, BaseModel]:
        return {**self.derivation.ratings(self._responses(units))}


class Pairs(_Gold):
    def __init__(self, opened: DerivedTables, derivation: Derivation) -> None:
        super().__init__(opened, derivation, opened.preferences, (opened.outputs, opened.feedback, opened.labels))

    def wanted(self, units: set[str]) -> dict[str, BaseModel]:
        return {**self.derivation.preferences(units, self._responses(units))}


class Annotators(Part):
    """gold.annotators, all at once: an estimate over what silver and gold say, so these must be right first."""

    unit = "rater_id"
    estimated = True

    def __init__(self, opened: DerivedTables, table: LakeTable, rules: RaterRules) -> None:
        super().__init__(opened, Derivation(opened), table, opened.bronze)
        self._rules = rules

    def evidence(self) -> pl.LazyFrame:
        return pl.LazyFrame({self.unit: sorted(annotators(self.opened, self._rules))}, schema={self.unit: pl.String})

    def wanted(self, units: set[str]) -> dict[str, BaseModel]:
        return {row_id: row for row_id, row in annotators(self.opened, self._rules).items() if row_id in units}

    def estimate_is_old(self) -> bool:
        """Whether there is one, of before the last events: then it need not say what one of now would."""
        return not self.caught_up() and any((at or 0) > 0 for at in self.positions().values())

    def refresh(self) -> None:
        for table in (self.table, *reversed(self.opened.derived), *self.opened.bronze):
            table.refresh()


def _newest(frame: pl.DataFrame, key: str) -> dict[str, Live]:
    """The highest revision of each row id. Two writers that gave the same number to different rows tear it."""
    found: dict[str, Live] = {}
    for row in frame.iter_rows(named=True):
        known = found.get(row[key])
        if known is None or row["revision"] > known.row["revision"]:
            found[row[key]] = Live(row)
        elif row["revision"] == known.row["revision"] and row != known.row:
            found[row[key]] = Live(row, torn=True)
    return found


def ranges(units: pl.LazyFrame, column: str, per_slice: int) -> list[tuple[str | None, str | None]]:
    """Ranges of about `per_slice` entries each, cut at the quantiles of a sample; None is open."""
    count = int(units.select(pl.len()).collect().item())
    slices = math.ceil(count / per_slice)
    if slices <= 1:
        return [(None, None)]
    kept = pl.col(column).hash() % max(1, count // SAMPLE_UNITS) == 0
    sample = units.filter(kept).sort(column).collect().get_column(column).to_list()
    cuts = sorted({sample[len(sample) * n // slices] for n in range(1, slices)}) if sample else []
    return list(_between(cuts))


def _between(cuts: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    yield from pairwise([None, *cuts, None])
