"""Erasing a person: their content out of every table and out of old table versions. `log` does the log's part.

    footprint ─► plan on disk ─► bronze ─► fences ─► gold ─► silver ─► again, until nothing is left ─► old versions
                 (resumed after a kill)              └ what others' rows lose is computed anew from bronze

Bronze goes first, so that nothing can be derived from it again. What a `refine` or a rebuild had read before, and would
still write, the fences refuse (see `streams.adapters.lake`), on whichever machine it runs. What they wrote right before
is found by looking again after a pause, until two looks in a row find nothing. Each look fences first, silver before
gold: what is derived from silver may have been read from it between its fence and its deletion.

Two erasures may run at once: what one computes anew from what the other deletes meanwhile is refused like a rebuild.

Old table versions go by vacuum, and the commit files whose statistics quote values go with them: table versions from
before the erasure can't be read any more, and cycles that pinned them can't be made again.

What a trained version made of a person's content stays in its weights. The report names those versions; which of
them to retire is for people to decide.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from infra.provenance.deletion import delete_rows, forget_history, literal, within
from infra.provenance.footprint import Footprint, Learned, footprint, learned
from infra.provenance.renewal import UNREADABLE, renew
from infra.provenance.sources import Sources
from schemas import tables
from schemas.errors import ThumbwheelError
from schemas.ids import content_id
from schemas.tables import Layer, Table
from streams.core.conduct import BurstRule
from streams.derive import DerivedTables
from trainer.adapters.files import remove_whole

logger = logging.getLogger(__name__)

PASSES = 10
READ_ATTEMPTS = 5
COLLAPSING = 2
"""In so many passes earlier revisions go, whatever they say: what a live refine appends later is of its own making."""
FENCED = (tables.RESPONSES, tables.RATINGS, tables.PREFERENCES, tables.ANNOTATORS, tables.LABEL_QUEUE)
"""What is derived, each after that which it is derived from. (Scores are ids and numbers, of the trainer.)"""
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

    def add_renewed(self, table: Table, rows: int) -> None:
        if rows:
            self.renewed[table.path] = self.renewed.get(table.path, 0) + rows


def derived_folders(data: Path) -> list[Path]:
    """What a data folder keeps of texts beside the tables: features between cycles, and answers of distillations that
    were stopped and may be gone on with."""
    return [data / "features", *sorted((data / "students").glob(".*.work"))]


def erase(
    sources: Sources,
    user: str,
    plans: Path,
    *,
    pause_seconds: float,
    burst: BurstRule | None = None,
    derived: Iterable[Path] = (),
    progress: Progress = lambda _: None,
) -> Erased:
    """Take a person out of the lake and of the versions' records. Can be called again after a kill at any moment.

    `plans` is the folder for the plan of an erasure that is under way, `burst` the rule that refine has, `derived` the
    folders of what the trainer keeps of answers (see `derived_folders`): all of it goes, since nothing there says whose
    it is.
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
        plan = _union(plan, _footprint(sources, user))
        _write_plan(plans, plan)
        quiet = 0 if _pass(sources, plan, report, burst) else quiet + 1
    progress("removing old table versions")
    held = [table for table, _ in _doomed(plan) if sources.table(table) is not None]
    forget_history(sources.root, held)
    logger.info("old versions removed", extra={"tables": [table.path for table in held]})
    sources.close()
    report.found = plan
    report.samples = _forget_samples(sources, plan)
    for folder in derived:
        if remove_whole(folder):
            logger.info("what was made of answers removed", extra={"folder": str(folder)})
    for file in (_plan_file(plans, user), *plans.glob(f"{_plan_file(plans, user).stem}.*.part")):
        file.unlink(missing_ok=True)
    return report


def unfinished(plans: Path) -> list[str]:
    """The users whose erasure was cut off."""
    return [Footprint.model_validate_json(file.read_text()).user for file in sorted(plans.glob("*.json"))]


def _plan(sources: Sources, user: str, plans: Path) -> Footprint:
    """What is there now, and what a plan that was cut off knew: rows may be gone that led to others."""
    found = _footprint(sources, user)
    file = _plan_file(plans, user)
    if file.is_file():
        found = _union(Footprint.model_validate_json(file.read_text(encoding="utf-8")), found)
    _write_plan(plans, found)
    return found


def _footprint(sources: Sources, user: str) -> Footprint:
    """As of now; another erasure may remove files while they are read."""
    for attempt in range(READ_ATTEMPTS):
        sources.refresh()
        try:
            return footprint(sources, user)
        except UNREADABLE:
            if attempt == READ_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("the last attempt either returns or raises")


def _write_plan(plans: Path, plan: Footprint) -> None:
    plans.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = _plan_file(plans, plan.user)
    temporary = file.with_suffix(f".{os.getpid()}.part")  # the same person may be erased twice at once
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(plan.model_dump_json())
        out.flush()
        os.fsync(out.fileno())
    with contextlib.suppress(FileNotFoundError):  # the other one has just come to its end, and cleared up
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
    doomed = [(table, conditions) for table, conditions in _doomed(plan) if sources.table(table) is not None]
    bronze, rest = ([(t, c) for t, c in doomed if (t.layer is Layer.BRONZE) == first] for first in (True, False))
    _delete_all(sources, bronze, report)
    for table in filter(None, map(sources.table, FENCED)):
        table.fence()
    _delete_all(sources, rest, report)
    derived = _derived(sources)
    if derived is not None:
        for change in renew(sources.root, derived, plan, burst=burst, collapse=report.passes <= COLLAPSING):
            report.add(change.table, change.deleted)
            report.add_renewed(change.table, change.written)
    return sum(report.rows.values()) + sum(report.renewed.values()) > before


def _delete_all(sources: Sources, doomed: Iterable[tuple[Table, list[str]]], report: Erased) -> None:
    for table, conditions in doomed:
        for predicate in conditions:
            report.add(table, delete_rows(sources.root, table, predicate))


def _doomed(plan: Footprint) -> Iterable[tuple[Table, list[str]]]:
    """Predicates by table, in the order in which they must be carried out."""
    mine, user = plan.responses, literal(plan.user)
    yield tables.OUTPUTS, [f"user_id = {user}", *within("response_id", mine)]
    yield (
        tables.FEEDBACK,
        [f"user_id = {user}", *within("response_id", mine), *within("event_id", plan.feedback_events)],
    )
    yield tables.LABELS, [f"labeler_id = {user}", *within("event_id", plan.label_events)]
    yield tables.DEAD_LETTERS, list(within("dead_letter_id", plan.dead_letters))
    yield tables.LABEL_QUEUE, list(within("task_id", plan.tasks))
    yield tables.SCORES, list(within("response_id", mine))
    yield tables.ANNOTATORS, list(within("rater_id", plan.annotators))
    yield tables.RATINGS, [f"rater_id = {user}", *within("response_id", mine), *within("rating_id", plan.judgements)]
    yield (
        tables.PREFERENCES,
        [
            f"rater_id = {user}",
            *within("chosen_response_id", mine),
            *within("rejected_response_id", mine),
            *within("preference_id", plan.judgements),
            *within("prompt_id", plan.prompts),
        ],
    )
    yield tables.RESPONSES, [f"user_id = {user}", *within("response_id", mine)]


def _derived(sources: Sources) -> DerivedTables | None:
    named = (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS, tables.RESPONSES, tables.RATINGS, tables.PREFERENCES)
    opened = [sources.table(table) for table in named]
    found = [table for table in opened if table is not None]
    return DerivedTables(*found) if len(found) == len(named) else None


def _forget_samples(sources: Sources, plan: Footprint) -> int:
    """Records quote some held-out prompts with their answers: those that only this person asked go."""
    return sources.registry.forget_samples(set(plan.quotes))
