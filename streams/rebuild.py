"""Silver and gold again from bronze, beside the live job: compare, and mend where they differ.

    bronze ──Derivation──► rows as they should be ─┐
                                                   ├─► same? count and hash. Else: what differs ─► mended
    silver, gold: rows as they are ────────────────┘      (revisions, published before their commit as refine does)

It goes through each table in slices of its ids, so memory is bounded by a slice. A gold row is computed from bronze
alone: silver need not be right for it.

**A difference, or the live job on its way?** Refine computes a row anew when it consumes an event that touches it, and
its watermark then says so. The derived table is refreshed before bronze: where its watermarks cover what bronze held
after that, every row had to be right and what differs is wrong. Elsewhere the rows that differ are looked at again
after the watermarks have passed the place where bronze was, some times; those that still differ, and that no event
behind the watermark touches, are wrong. Where the watermarks stand still, nobody is on the way: what differs counts.

**No lost update.** Mended rows are computed from bronze as it is after the table was read, and are committed by
compare-and-swap on all the table's watermarks, which every commit of refine moves: where refine came first the mend is
refused, and computed anew. The other way round, the mend moves the table's fence (`streams.adapters.lake`), so that a
round of refine, or another rebuild, which began before it is refused: it read rows that were mended since. At the end
the watermarks are put where bronze was at the start, if they are behind that.

**No erased row comes back.** An erasure takes its rows out of bronze, and then moves the fences of the derived tables:
a mend that has read bronze before is refused, and computed anew from what is left. Deletions in bronze are counted, so
that a comparison between which they came says so instead of calling a table wrong.

Every commit leaves the table right as far as it was mended. Whatever stops it, the same call goes on: what is right by
then is only compared.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
from deltalake.exceptions import DeltaError

from schemas import tables, topics
from schemas.envelope import encode, new_event
from schemas.errors import SettingsError, TableConflict
from schemas.ids import content_id
from schemas.tables import RatingRow, Table
from streams.adapters.lake import LakeTable, Move, open_table
from streams.adapters.log import Producer
from streams.announce import SOURCE, pair_event, rating_event
from streams.comparison import Annotators, Compared, Difference, Gold, Pairs, Part, Ratings, Silver, ranges
from streams.contents import Content, counted
from streams.derive import Derivation, DerivedTables
from streams.refine import burst_rule, rater_rules
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

REBUILT = (tables.RESPONSES, tables.RATINGS, tables.PREFERENCES, tables.ANNOTATORS)
"""In the order in which one follows from the other."""

SLICE_UNITS = 20_000
MEND_UNITS = 2_000
ATTEMPTS = 5
MEND_ATTEMPTS = 20
EXAMPLES = 5
PATIENCE_SECONDS = 10.0
POLL_SECONDS = 0.2
UNREADABLE = (FileNotFoundError, DeltaError, pl.exceptions.PolarsError)
MEANWHILE = "a person was erased, or rows were mended, while the tables were read; run the same command again"

Publish = Callable[[Sequence[Gold]], None]
Progress = Callable[[str, int, int], None]
"""Told a table's name, how many slices are done, and of how many."""


@dataclass
class Report:
    """One table. `live` is its content as found, `rebuilt` as computed from bronze, `after` as left.

    `left` counts the responses or prompts that are wrong still, `unconsumed` the offsets by which it is behind bronze.
    """

    table: str
    live: Content
    rebuilt: Content
    after: Content
    missing: int = 0
    extra: int = 0
    differing: int = 0
    mended: int = 0
    left: int = 0
    conflicts: int = 0
    unconsumed: int = 0
    examples: list[Difference] = field(default_factory=list[Difference])

    @property
    def identical(self) -> bool:
        """Whether it was found as it should be."""
        return not self.missing + self.extra + self.differing

    @property
    def right(self) -> bool:
        """Whether it is as it should be now."""
        return not self.left


class Rebuild:
    """One comparison, or one mending, of derived tables. Raises `SettingsError` for tables that can't be rebuilt, and
    `TableConflict` where others wrote or erased so much meanwhile that it must be called again.

    `publish` is handed every gold row before it is committed. `stop` ends it between two commits.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        publish: Publish = lambda _: None,
        progress: Progress = lambda *_: None,
        stop: threading.Event | None = None,
        slice_units: int = SLICE_UNITS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._publish, self._progress, self._stop = publish, progress, stop or threading.Event()
        self._slice_units, self._patience = slice_units, patience_seconds

        def opened(table: Table) -> LakeTable:
            return open_table(settings.lake, table)

        self._tables = DerivedTables(
            outputs=opened(tables.OUTPUTS),
            feedback=opened(tables.FEEDBACK),
            labels=opened(tables.LABELS),
            responses=opened(tables.RESPONSES),
            ratings=opened(tables.RATINGS),
            preferences=opened(tables.PREFERENCES),
        )
        derivation = Derivation(self._tables, burst=burst_rule(settings.raters))
        estimates = Annotators(self._tables, opened(tables.ANNOTATORS), rater_rules(settings.raters))
        parts = (*(kind(self._tables, derivation) for kind in (Silver, Ratings, Pairs)), estimates)
        self._parts: dict[str, Part] = {part.name: part for part in parts}

    def run(self, names: Sequence[str] = (), *, mend: bool) -> list[Report]:
        """Compare these tables (all of them by default), in their order, and mend them if told to."""
        unknown = sorted(set(names) - self._parts.keys())
        if unknown:
            raise SettingsError(
                f"{', '.join(unknown)} can't be rebuilt from bronze; these can: {', '.join(self._parts)}"
            )
        chosen = [part for name, part in self._parts.items() if not names or name in names]
        read = self._tables.bronze if mend else (*self._tables.bronze, *(part.table for part in chosen))
        began = _fences(read)
        try:
            reports = [self._table(part, mend=mend) for part in chosen if not self._stop.is_set()]
        except UNREADABLE as error:
            if _fences(read) == began:
                raise
            raise TableConflict(MEANWHILE) from error
        if not (mend or all(report.identical for report in reports)) and _fences(read) != began:
            raise TableConflict(MEANWHILE)
        return reports

    def _table(self, part: Part, *, mend: bool) -> Report:
        part.refresh()
        start, columns = part.bronze_positions(), counted(part.table.schema.names)
        report = Report(part.table.table.path, Content(columns), Content(columns), Content(columns))
        slices = [(None, None)] if part.estimated else ranges(part.units(), part.unit, self._slice_units)
        for done, (low, high) in enumerate(slices):
            if self._stop.is_set():
                break
            self._progress(report.table, done, len(slices))
            self._slice(part, part.units_between(low, high), report, mend=mend)
        else:
            if mend:
                self._advance(part, start)
            self._progress(report.table, len(slices), len(slices))
        if report.mended and part.name == tables.RESPONSES.name:
            self._fence_gold()
        part.refresh()
        report.unconsumed = part.unconsumed()
        logger.info("rebuilt" if mend else "compared", extra={"table": report.table, "mended": report.mended})
        return report

    def _slice(self, part: Part, units: set[str], report: Report, *, mend: bool) -> None:
        found = self._compare(part, units, mend=mend)
        report.live.merge(found.same)
        report.live.add(*found.live())
        _count(report, found)
        if found.wrong and mend:
            self._mend_all(part, sorted(found.wrong), report)
            mended = self._compare(part, set(found.wrong), mend=mend)
            mended.same.merge(found.same)
            found = mended
        report.left += len(found.wrong)
        for content, wrong in ((report.rebuilt, found.wanted()), (report.after, found.live())):
            content.merge(found.same)
            content.add(*wrong)

    def _compare(self, part: Part, units: set[str], *, mend: bool) -> Compared:
        found = part.compare(units)
        if not found.wrong or (part.estimated and mend):
            return found
        if part.estimated:
            _pass_over(found, found.wrong.keys() if part.estimate_is_old() else ())
        else:
            self._settle(part, found)
        return found

    def _settle(self, part: Part, found: Compared) -> None:
        """Look again at what differs until it is no more than the live job being on its way."""
        for _ in range(ATTEMPTS):
            if part.caught_up() or not part.alive:
                return
            part.alive = self._wait(part, part.bronze_positions())
            part.refresh()
            again = part.compare(set(found.wrong))
            found.same.merge(again.same)
            found.wrong = again.wrong
            if not found.wrong:
                return
        _pass_over(found, part.in_flight() & found.wrong.keys())

    def _wait(self, part: Part, goal: Mapping[str, int]) -> bool:
        """Until the table has consumed bronze up to `goal`; False where its watermarks stand still."""
        seen, since = part.positions(), time.monotonic()
        while any((part.positions()[app] or 0) < to for app, to in goal.items()):
            if self._stop.wait(POLL_SECONDS) or time.monotonic() - since > self._patience:
                return False
            part.table.refresh()
            if part.positions() != seen:
                seen, since = part.positions(), time.monotonic()
        return True

    def _mend_all(self, part: Part, units: Sequence[str], report: Report) -> None:
        for at in range(0, len(units), MEND_UNITS):
            if not self._stop.is_set():
                self._mend(part, units[at : at + MEND_UNITS], report)

    def _mend(self, part: Part, units: Sequence[str], report: Report) -> None:
        """Append what is needed by compare-and-swap; raises `TableConflict` where another writer is always first."""
        for attempt in range(MEND_ATTEMPTS):
            part.refresh()
            moves = {app: Move(at, at or 0) for app, at in part.positions().items()}
            rows = part.revisions(set(units))
            if not rows:
                return
            self._publish(part.published(rows))
            try:
                part.table.append(part.table.arrow(rows), moves, fence=True)
            except TableConflict:
                report.conflicts += 1
                if len(units) > 1 and attempt:  # fewer rows take less time, in which less can come in between
                    half = len(units) // 2
                    self._mend(part, units[:half], report)
                    self._mend(part, units[half:], report)
                    return
                self._stop.wait(random.uniform(0.02, 0.1) * (attempt + 1))
            else:
                report.mended += len(rows)
                return
        raise TableConflict(f"{part.table.table.path}: the live job always came first; run the same command again")

    def _fence_gold(self) -> None:
        """Refuse rounds of refine that have read silver before it was mended and are still to write gold."""
        for part in self._parts.values():
            if part.name != tables.RESPONSES.name:
                part.table.fence()

    def _advance(self, part: Part, start: Mapping[str, int]) -> None:
        """All that bronze held at the start is in the table: its watermarks are not behind that any more."""
        for attempt in range(MEND_ATTEMPTS):
            part.table.refresh()
            held = part.positions()
            moves = {app: Move(held[app], to) for app, to in start.items() if (held[app] or 0) < to}
            if not moves:
                return
            try:
                part.table.append(part.table.arrow([]), moves)
            except TableConflict:
                self._stop.wait(random.uniform(0.02, 0.1) * (attempt + 1))
            else:
                return
        raise TableConflict(f"{part.table.table.path}: the live job always came first; run the same command again")


def _fences(read: Iterable[LakeTable]) -> list[int]:
    """How often each of these tables was fenced or deleted from, as of now."""
    found: list[int] = []
    for table in read:
        table.refresh()
        found.append(table.fences)
    return found


def _pass_over(found: Compared, units: Iterable[str]) -> None:
    """Take these as they are: the live job is on its way to them."""
    for unit in list(units):
        found.same.add(*found.wrong.pop(unit).live)


def _count(report: Report, found: Compared) -> None:
    for unit in found.wrong.values():
        for difference in unit.differences:
            setattr(report, difference.kind, getattr(report, difference.kind) + 1)
            if len(report.examples) < EXAMPLES:
                report.examples.append(difference)


def announcer(settings: StreamSettings) -> Publish:
    """Publishes gold rows as refine does, and waits for the log: what refine has published has the same event id."""
    producer = Producer(settings.kafka, client_id="rebuild")

    def publish(rows: Sequence[Gold]) -> None:
        for row in rows:
            preference = rating_event(row) if isinstance(row, RatingRow) else pair_event(row)
            identity = content_id(f"{preference.preference_id}.{preference.revision}", preference.model_dump_json())
            key, value, headers = encode(new_event(preference, source=SOURCE, id=identity))
            producer.send(topics.PREFERENCES.name, key, value, headers=headers)
        if rows:
            producer.flush()

    return publish
