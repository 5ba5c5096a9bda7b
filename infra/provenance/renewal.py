"""Other people's rows that an erased person had a part in: computed anew from what bronze has left.

    the derived table ─► silver ─► bronze ─► rows as they should be ─► appended by compare-and-swap ─► earlier revisions
    (refreshed in this order)                                                                          deleted

The append compares all watermarks of the table and its fence, and moves the fence: whoever wrote the table meanwhile
makes it start again, and whoever had read before is refused. Earlier revisions say what the person said, so they go.
They go after the new ones are there: killed in between, the same call deletes what it finds.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError

from infra.provenance.deletion import delete_rows, within
from infra.provenance.footprint import Footprint
from schemas.errors import TableConflict
from schemas.storage import LakeRoot
from schemas.tables import PreferenceRow, RatingRow, ResponseRow, Table
from streams.adapters.lake import Move
from streams.comparison import Pairs, Part, Ratings, Silver
from streams.core.aggregation import rating_id
from streams.core.conduct import BurstRule
from streams.derive import Derivation, DerivedTables, rows_of

ATTEMPTS = 20
UNREADABLE = (FileNotFoundError, DeltaError, pl.exceptions.PolarsError)
"""What a reader meets where another erasure has removed files under it: on the table as it is now it goes on."""


@dataclass(frozen=True)
class Change:
    """Rows of one table: all revisions that were deleted, and those that were written instead."""

    table: Table
    deleted: int
    written: int


@dataclass(frozen=True)
class Wanted:
    """The rows that there should be of these ids, by id."""

    ids: Sequence[str]
    rows: Mapping[str, Any]


def renew(
    root: LakeRoot, derived: DerivedTables, plan: Footprint, *, burst: BurstRule | None, collapse: bool
) -> list[Change]:
    """Silver, then gold. `collapse` deletes earlier revisions even where the newest is right.

    Raises `TableConflict` where a live job is always first; the same call goes on.
    """
    derivation = Derivation(derived, burst=burst)

    def responses() -> Wanted:
        return Wanted(plan.touched, derivation.responses(plan.touched))

    def ratings() -> Wanted:
        given = derivation.responses(plan.touched)
        current = derived.ratings.rows_by("response_id", plan.touched)
        judged = derivation.with_repeats(given.values(), current)
        return Wanted(sorted({rating_id(i) for i in (*plan.touched, *judged)}), derivation.ratings(judged.values()))

    def pairs() -> Wanted:
        given = derivation.responses(plan.touched)
        prompts = {row.prompt_id for row in given.values()} | set(plan.shared_prompts)
        silver = rows_of(ResponseRow, derived.responses.rows_by("prompt_id", prompts), lambda r: r.response_id)
        rows = derivation.preferences(prompts, silver.values())
        paired = derived.preferences.rows_by("prompt_id", prompts).get_column("preference_id").to_list()
        return Wanted(sorted({*paired, *rows}), rows)

    return [
        _renew(root, derived, Silver(derived, derivation), ResponseRow, responses, collapse=collapse),
        _renew(root, derived, Ratings(derived, derivation), RatingRow, ratings, collapse=collapse),
        _renew(root, derived, Pairs(derived, derivation), PreferenceRow, pairs, collapse=collapse),
    ]


def _renew(
    root: LakeRoot,
    derived: DerivedTables,
    part: Part,
    kind: type[Any],
    compute: Callable[[], Wanted],
    *,
    collapse: bool,
) -> Change:
    for attempt in range(ATTEMPTS):
        for table in dict.fromkeys((part.table, derived.responses, *derived.bronze)):
            table.refresh()
        try:
            return _replace(root, part, kind, compute(), collapse=collapse)
        except (TableConflict, *UNREADABLE) as error:
            if attempt == ATTEMPTS - 1 and not isinstance(error, TableConflict):
                raise
            time.sleep(random.uniform(0.02, 0.1) * (attempt + 1))
    raise TableConflict(
        f"{part.table.table.path}: the live job always came first; run the same command again, it goes on where it is"
    )


def _replace(root: LakeRoot, part: Part, kind: type[Any], wanted: Wanted, *, collapse: bool) -> Change:
    """Where an id's stored rows are anything but the one row wanted, put that in their place.

    Its revision goes on from the highest there was, so that whoever read an earlier one sees that it changed.
    """
    stored = _stored(part, kind, wanted.ids)
    renewed, stale = list[Any](), dict[int, list[str]]()
    for row_id in sorted({*stored, *wanted.rows}):
        rows, row = stored.get(row_id, []), wanted.rows.get(row_id)
        if row is not None and rows and _same(rows[-1], row) and not (collapse and len(rows) > 1):
            continue
        last = rows[-1].revision if rows else 0
        if rows:
            stale.setdefault(last, []).append(row_id)
        if row is not None:
            renewed.append(row.model_copy(update={"revision": last + 1}))
    if renewed:
        moves = {app: Move(at, at or 0) for app, at in part.positions().items()}
        part.table.append(part.table.arrow([row.model_dump() for row in renewed]), moves, fence=True)
    return Change(part.table.table, _delete(root, part, stale), len(renewed))


def _stored(part: Part, kind: type[Any], ids: Sequence[str]) -> dict[str, list[Any]]:
    """All revisions of these rows, in order."""
    found: dict[str, list[Any]] = {}
    for row in part.table.rows_by(part.key, ids).sort("revision").iter_rows(named=True):
        found.setdefault(row[part.key], []).append(kind.model_validate(row, extra="ignore"))
    return found


def _delete(root: LakeRoot, part: Part, stale: Mapping[int, Iterable[str]]) -> int:
    """The revisions up to a number of these ids: what was appended since stays."""
    deleted = 0
    for last, ids in sorted(stale.items()):
        for predicate in within(part.key, sorted(ids)):
            deleted += delete_rows(root, part.table.table, f"{predicate} AND revision <= {last}")
    return deleted


def _same(stored: Any, wanted: Any) -> bool:
    return stored == wanted.model_copy(update={"revision": stored.revision})
