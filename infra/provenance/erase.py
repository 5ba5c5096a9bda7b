"""Erasing a person: their content out of every table and out of old table versions. `log` does the log's part.

    footprint ─► plan on disk ─► bronze ─► gold ─► silver ─► again, until nothing is left ─► old table versions
                 (resumed after a kill)    └ what others' rows lose is computed anew from bronze

Bronze goes first, so that nothing can be derived from it again. A `refine` that runs meanwhile may still write what it
had read before; therefore the tables are looked through again after a pause, until two looks in a row find nothing.

Old table versions go by vacuum, and the commit files whose statistics quote values go with them: table versions from
before the erasure can't be read any more, and cycles that pinned them can't be made again.

What a trained version made of a person's content stays in its weights. The report names those versions; which of
them to retire is for people to decide.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.provenance.deletion import delete_rows, forget_history
from infra.provenance.footprint import Footprint, Learned, footprint, learned
from infra.provenance.sources import Sources
from schemas import tables
from schemas.errors import ThumbwheelError
from schemas.ids import content_id
from schemas.tables import PreferenceRow, RatingRow, ResponseRow, Table
from streams.adapters.lake import LakeTable
from streams.core.aggregation import rating_id
from streams.core.conduct import BurstRule
from streams.derive import Derivation, DerivedTables, rows_of

logger = logging.getLogger(__name__)

PASSES = 10
COLLAPSING = 2
"""In so many passes earlier revisions go, whatever they say: what a live refine appends later is of its own making."""
IDS_PER_STATEMENT = 500
Progress = Callable[[str], None]


class NotErased(ThumbwheelError):
    """Something of the person is still there."""


@dataclass
class Erased:
    """What was done. `rows` counts deleted rows by table, all revisions; `renewed` rows that were computed anew."""

    found: Footprint
    learned: list[Learned]
    rows: dict[str, int] = field(default_factory=dict[str, int])
    renewed: dict[str, int] = field(default_factory=dict[str, int])
    samples: int = 0
    passes: int = 0

    def add(self, table: Table, rows: int) -> None:
        if rows:
            self.rows[table.path] = self.rows.get(table.path, 0) + rows


def erase(
    sources: Sources,
    user: str,
    plans: Path,
    *,
    pause_seconds: float,
    burst: BurstRule | None = None,
    progress: Progress = lambda _: None,
) -> Erased:
    """Take a person out of the lake and of the versions' records. Can be called again after a kill at any moment.

    `plans` is the folder for the plan of an erasure that is under way, `burst` the rule that refine has.
    Raises `NotErased` where content keeps coming back, which only an ingest that still reads their events can cause.
    """
    progress("looking for what is stored of them")
    plan = _plan(sources, user, plans)
    report = Erased(plan, learned(sources, plan))
    quiet = 0
    while quiet < 2:
        if report.passes == PASSES:
            raise NotErased(
                "new content of this person keeps coming in; stop what sends it (they may still be using the product),"
                " and run the same command again: it goes on where it is"
            )
        if report.passes:
            time.sleep(pause_seconds)
        report.passes += 1
        progress(f"erasing, pass {report.passes}")
        sources.refresh()
        plan = _union(plan, footprint(sources, user))
        _write_plan(plans, plan)
        quiet = 0 if _pass(sources, plan, report, burst) else quiet + 1
    progress("removing old table versions")
    for table, _ in _doomed(plan):
        if sources.table(table) is not None:
            forget_history(sources.root, table)
            logger.info("old versions removed", extra={"table": table.path})
    sources.close()
    report.found = plan
    report.samples = _forget_samples(sources, plan)
    _plan_file(plans, user).unlink(missing_ok=True)
    return report


def unfinished(plans: Path) -> list[str]:
    """The users whose erasure was cut off."""
    return [Footprint.model_validate_json(file.read_text()).user for file in sorted(plans.glob("*.json"))]


def _plan(sources: Sources, user: str, plans: Path) -> Footprint:
    """What is there now, and what a plan that was cut off knew: rows may be gone that led to others."""
    found = footprint(sources, user)
    file = _plan_file(plans, user)
    if file.is_file():
        found = _union(Footprint.model_validate_json(file.read_text(encoding="utf-8")), found)
    _write_plan(plans, found)
    return found


def _write_plan(plans: Path, plan: Footprint) -> None:
    plans.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = _plan_file(plans, plan.user)
    temporary = file.with_suffix(".part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(plan.model_dump_json())
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def _plan_file(plans: Path, user: str) -> Path:
    return plans / f"{content_id('user', user)}.json"


def _union(first: Footprint, second: Footprint) -> Footprint:
    merged = {name: tuple(sorted({*value, *getattr(second, name)})) for name, value in first if name != "user"}
    # What was only theirs may have been asked by others since; what was shared stays shared.
    merged["prompts"] = tuple(sorted(set(merged["prompts"]) - set(merged["shared_prompts"])))
    return Footprint(user=first.user, **merged)


def _pass(sources: Sources, plan: Footprint, report: Erased, burst: BurstRule | None) -> bool:
    """One pass over all tables; whether anything had to be changed."""
    before = sum(report.rows.values()) + sum(report.renewed.values())
    for table, conditions in _doomed(plan):
        opened = sources.table(table)
        if opened is not None:
            for predicate in conditions:
                report.add(table, _delete(sources, table, predicate))
    _renew(sources, plan, report, burst)
    return sum(report.rows.values()) + sum(report.renewed.values()) > before


def _doomed(plan: Footprint) -> Iterable[tuple[Table, list[str]]]:
    """Predicates by table, in the order in which they must be carried out."""
    mine, user = plan.responses, _literal(plan.user)
    yield tables.OUTPUTS, [f"user_id = {user}", *_within("response_id", mine)]
    yield (
        tables.FEEDBACK,
        [f"user_id = {user}", *_within("response_id", mine), *_within("event_id", plan.feedback_events)],
    )
    yield tables.LABELS, [f"labeler_id = {user}", *_within("event_id", plan.label_events)]
    yield tables.DEAD_LETTERS, list(_within("dead_letter_id", plan.dead_letters))
    yield tables.LABEL_QUEUE, list(_within("task_id", plan.tasks))
    yield tables.SCORES, list(_within("response_id", mine))
    yield tables.ANNOTATORS, list(_within("rater_id", plan.annotators))
    yield tables.RATINGS, [f"rater_id = {user}", *_within("response_id", mine), *_within("rating_id", plan.judgements)]
    yield (
        tables.PREFERENCES,
        [
            f"rater_id = {user}",
            *_within("chosen_response_id", mine),
            *_within("rejected_response_id", mine),
            *_within("preference_id", plan.judgements),
            *_within("prompt_id", plan.prompts),
        ],
    )
    yield tables.RESPONSES, [f"user_id = {user}", *_within("response_id", mine)]


def _renew(sources: Sources, plan: Footprint, report: Erased, burst: BurstRule | None) -> None:
    """Other people's rows that the person had a part in: all revisions go, and what is left of them is written."""
    derived = _derived(sources)
    if derived is None:
        return
    derivation = Derivation(derived, burst=burst)
    for table in (*derived.bronze, *derived.derived):
        table.refresh()
    responses = derivation.responses(plan.touched)
    _replace(sources, derived.responses, plan.touched, responses, ResponseRow, report)
    current = derived.ratings.rows_by("response_id", plan.touched)
    judged = derivation.with_repeats(responses.values(), current)
    ids = sorted({rating_id(i) for i in (*plan.touched, *judged)})
    _replace(sources, derived.ratings, ids, derivation.ratings(judged.values()), RatingRow, report)
    prompts = {row.prompt_id for row in responses.values()} | set(plan.shared_prompts)
    derived.responses.refresh()
    silver = rows_of(ResponseRow, derived.responses.rows_by("prompt_id", prompts), lambda r: r.response_id)
    wanted = derivation.preferences(prompts, silver.values())
    paired = derived.preferences.rows_by("prompt_id", prompts).get_column("preference_id").to_list()
    _replace(sources, derived.preferences, sorted({*paired, *wanted}), wanted, PreferenceRow, report)


def _replace(
    sources: Sources, table: LakeTable, ids: Sequence[str], wanted: dict[str, Any], kind: type[Any], report: Erased
) -> None:
    """Where an id's stored rows are anything but the one row wanted, put that in their place.

    Its revision goes on from the highest there was, so that whoever read an earlier one sees that it changed.
    """
    if not ids:
        return
    key = table.table.key
    stored: dict[str, list[Any]] = {}
    for row in table.rows_by(key, ids).sort("revision").iter_rows(named=True):
        model = kind.model_validate(row, extra="ignore")
        stored.setdefault(row[key], []).append(model)
    renewed: list[Any] = []
    stale: list[str] = []
    for row_id in sorted({*stored, *wanted}):
        rows, row = stored.get(row_id, []), wanted.get(row_id)
        if row is not None and rows and _same(rows[-1], row) and (len(rows) == 1 or report.passes > COLLAPSING):
            continue
        if rows:
            stale.append(row_id)
        if row is not None:
            last = max((r.revision for r in rows), default=0)
            renewed.append(row.model_copy(update={"revision": last + 1}))
    for predicate in _within(key, stale):
        report.add(table.table, _delete(sources, table.table, predicate))
        table.refresh()
    if renewed:
        table.append(table.arrow([row.model_dump() for row in renewed]), {})
        report.renewed[table.table.path] = report.renewed.get(table.table.path, 0) + len(renewed)


def _same(stored: Any, wanted: Any) -> bool:
    return stored == wanted.model_copy(update={"revision": stored.revision})


def _derived(sources: Sources) -> DerivedTables | None:
    named = (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS, tables.RESPONSES, tables.RATINGS, tables.PREFERENCES)
    opened = [sources.table(table) for table in named]
    found = [table for table in opened if table is not None]
    return DerivedTables(*found) if len(found) == len(named) else None


def _delete(sources: Sources, table: Table, predicate: str) -> int:
    return delete_rows(sources.root, table, predicate)


def _within(column: str, ids: Sequence[str]) -> Iterable[str]:
    """`column IN (...)`, a bounded number of ids at a time."""
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        listed = ", ".join(map(_literal, ids[start : start + IDS_PER_STATEMENT]))
        yield f"{column} IN ({listed})"


def _literal(text: str) -> str:
    """A string literal of SQL: quotes doubled, nothing else is special."""
    return "'" + text.replace("'", "''") + "'"


def _forget_samples(sources: Sources, plan: Footprint) -> int:
    """Records quote some held-out prompts with their answers: those that only this person asked go."""
    return sources.registry.forget_samples(set(plan.quotes))
