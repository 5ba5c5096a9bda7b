"""Silver and gold, incrementally: what was said meets its answer, judgements become rows to learn from.

    bronze.outputs ─┐                          ┌─► gold.ratings ─────┐
    bronze.feedback ┴─► silver.responses ──────┤                     ├─► preferences.v1 (published before the commit)
    bronze.labels ─────────────────────────────┴─► gold.preferences ─┘
    gold.scores (from the trainer) ─► selector ─► label-tasks.v1, then gold.label_queue

A round reads the bronze rows behind each table's watermark, finds what they touch, computes those rows anew from
*all* the evidence, and appends what changed together with the new watermark. So late, repeated, withdrawn and
corrected events need no cases of their own, and a crash between two commits costs a recomputation, no more.

What a round costs: bronze and silver are looked up by time-ordered ids, which prune to few files. Pairs are looked up
by prompt id, a hash that prunes nothing: one column of silver.responses, bronze.labels and gold.preferences is read
whole, which grows with history (about 0.1 s for a million rows). Starting reads two id columns to find orphans.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError

from schemas import tables, topics
from schemas.envelope import encode, new_event
from schemas.errors import BrokerUnavailable, TableConflict
from schemas.ids import content_id
from schemas.preferences import Preference
from schemas.tables import LabelQueueRow, PreferenceRow, RatingRow, ResponseRow, ScoreRow
from streams.adapters import increments
from streams.adapters.dead_letters import DeadLetters
from streams.adapters.increments import Increment, watermark
from streams.adapters.lake import LakeTable, Move, open_table
from streams.adapters.log import Producer
from streams.core.aggregation import rating, rating_id, respond
from streams.core.pairing import pairs
from streams.core.revisions import latest as newest
from streams.core.revisions import revise
from streams.core.selection import SelectionPlan, select
from streams.metrics import Metrics
from streams.orphans import Orphans
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

SOURCE = "thumbwheel/streams/refine"
_JOINED = (tables.OUTPUTS, tables.FEEDBACK)


class Refine:
    """The program. One writer: a second one is refused by the tables and begins again from their watermarks."""

    def __init__(self, settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
        self._settings, self._metrics, self._stop = settings, metrics, stop
        self.outputs = self._open(tables.OUTPUTS)
        self.feedback = self._open(tables.FEEDBACK)
        self.labels = self._open(tables.LABELS)
        self.scores = self._open(tables.SCORES)
        self.responses = self._open(tables.RESPONSES)
        self.ratings = self._open(tables.RATINGS)
        self.preferences = self._open(tables.PREFERENCES)
        self.queue = self._open(tables.LABEL_QUEUE)
        self._producer = Producer(settings.kafka, client_id="refine")
        dead = DeadLetters(self._producer, self._open(tables.DEAD_LETTERS))
        self.orphans = Orphans(self.feedback, self.outputs, dead, after_seconds=settings.orphan_after_seconds)
        self._scores_seen = -1

    def _open(self, table: tables.Table) -> LakeTable:
        every = self._settings.compact_every_commits
        return open_table(self._settings.lake, table, compact_every_commits=every)

    def run(self) -> None:
        """Until told to stop. What can't be done now is tried again; the watermarks say from where."""
        while not self._stop.is_set():
            more = self._try_round()
            if not more:
                self._stop.wait(self._settings.refine_seconds)

    def _try_round(self) -> bool:
        try:
            return self.round()
        except TableConflict as error:
            self._metrics.conflicts.inc()
            self.orphans.forget()
            logger.warning("another writer came first; reading the tables again", extra={"error": str(error)})
        except (BrokerUnavailable, DeltaError, OSError, pl.exceptions.PolarsError) as error:
            logger.error("this round failed, trying again", extra={"error": str(error)})
        return False

    def round(self) -> bool:
        """One pass over all tables; whether there is more to do at once."""
        began = time.perf_counter()
        for table in (self.outputs, self.feedback, self.labels, self.scores, *self._own):
            table.refresh()
        more = [step() for step in (self._responses, self._ratings, self._preferences) if not self._stop.is_set()]
        self._select()
        reported = self.orphans.report(datetime.now(UTC))
        self._metrics.dead_letters.labels(topics.FEEDBACK.name, "unknown_response").inc(reported)
        self._metrics.orphans.set(self.orphans.count)
        for table in self._own:
            table.maintain()
        self._metrics.round_seconds.observe(time.perf_counter() - began)
        return any(more)

    @property
    def _own(self) -> tuple[LakeTable, ...]:
        return self.responses, self.ratings, self.preferences, self.queue

    def _responses(self) -> bool:
        """Silver: every answer that something new was said of, joined anew with all that is known of it."""
        found = increments.read(self.responses, (self.outputs, self.feedback), limit=self._settings.refine_rows)
        if not found.moves:
            return False
        ids = found.values("response_id", (topics.OUTPUTS, topics.FEEDBACK))
        given = increments.given(self.outputs.rows_by("response_id", ids))
        said = increments.said(self.feedback.rows_by("response_id", ids))
        joined = {i: respond(given.get(i, ()), said.get(i, ())) for i in ids}
        wanted = {i: row for i, row in joined.items() if row is not None}
        self._append(self.responses, revise(self._current_responses(ids), wanted), found.moves)
        self.orphans.note(found.frames.get(topics.FEEDBACK.name), joined=wanted)
        return found.full

    def _ratings(self) -> bool:
        found = self._touched(self.ratings)
        if not found.moves:
            return False
        ids = found.values("response_id", (topics.OUTPUTS, topics.FEEDBACK))
        judged = {row_id: rating(row) for row_id, row in self._current_responses(ids).items()}
        wanted = {row.rating_id: row for row in judged.values() if row is not None}
        current = _models(RatingRow, self.ratings.rows_by("rating_id", map(rating_id, ids)), lambda r: r.rating_id)
        changed = revise(current, wanted)
        self._publish([_rating_event(row) for row in changed])
        self._append(self.ratings, changed, found.moves)
        return found.full

    def _preferences(self) -> bool:
        found = self._touched(self.preferences, self.labels)
        if not found.moves:
            return False
        prompts = self._prompts(found) | found.values("prompt_id", (topics.LABELS,))
        changed = self._revised_pairs(prompts) if prompts else []
        self._publish([_pair_event(row) for row in changed])
        self._append(self.preferences, changed, found.moves)
        return found.full

    def _revised_pairs(self, prompts: set[str]) -> list[PreferenceRow]:
        """The whole set of pairs of these prompts, against what the table has."""
        rows = _models(ResponseRow, self.responses.rows_by("prompt_id", prompts), lambda r: r.response_id)
        labels = increments.cast(self.labels.rows_by("prompt_id", prompts))
        by_prompt: dict[str, list[ResponseRow]] = {}
        for row in rows.values():
            by_prompt.setdefault(row.prompt_id, []).append(row)
        wanted: dict[str, PreferenceRow] = {}
        for prompt in prompts:
            wanted |= pairs(by_prompt.get(prompt, ()), labels.get(prompt, ()))
        frame = self.preferences.rows_by("prompt_id", prompts)
        return revise(_models(PreferenceRow, frame, lambda r: r.preference_id), wanted)

    def _prompts(self, found: Increment) -> set[str]:
        """The prompts of answers of which something was said; an answer in silence can't change a pair."""
        ids = found.values("response_id", (topics.OUTPUTS, topics.FEEDBACK))
        return {row.prompt_id for row in self._current_responses(ids).values() if row.feedback_count}

    def _touched(self, gold: LakeTable, *more: LakeTable) -> Increment:
        """What a gold table has not consumed of that which silver has, and of further bronze tables."""
        apps = {
            watermark(bronze.table.topic.name, partition): None
            for bronze in (self.outputs, self.feedback)
            for partition in bronze.partitions()
            if bronze.table.topic
        }
        bounds = {app: self.responses.position(app) for app in apps}
        sources = (self.outputs, self.feedback, *more)
        return increments.read(gold, sources, limit=self._settings.refine_rows, not_beyond=bounds)

    def _current_responses(self, ids: set[str]) -> dict[str, ResponseRow]:
        return _models(ResponseRow, self.responses.rows_by("response_id", ids), lambda r: r.response_id)

    def _select(self) -> None:
        """Label tasks from scores that were not looked at yet; nothing to do while the table stands still."""
        if self.scores.version == self._scores_seen:
            return
        counts = self.scores.all().group_by("reward_model").len().sort("reward_model").collect()
        for reward_model, count in counts.iter_rows():
            app = f"select/{reward_model}"
            held = self.queue.position(app)
            if held is None or held < count:
                self._queue_tasks(str(reward_model), {app: Move(held, count)})
        self._scores_seen = self.scores.version

    def _queue_tasks(self, reward_model: str, moves: Mapping[str, Move]) -> None:
        chosen = self.scores.all().filter(pl.col("reward_model") == reward_model).collect()
        scores = increments.models(ScoreRow, chosen)
        responses = self._current_responses({s.response_id for s in scores})
        asked = [t.all().select("task_id").collect().get_column("task_id").to_list() for t in (self.queue, self.labels)]
        known = {task_id for ids in asked for task_id in ids}
        plan = SelectionPlan(**self._settings.selection.model_dump())
        tasks = select(scores, responses, known=known, plan=plan)
        for task in tasks:
            self._send(new_event(task, source=SOURCE, id=task.task_id))
        self._producer.flush()
        now = datetime.now(UTC)
        self._append(self.queue, [LabelQueueRow(**dict(task), queued_at=now) for task in tasks], moves)
        logger.info("label tasks queued", extra={"reward_model": reward_model, "tasks": len(tasks)})

    def _publish(self, preferences: Sequence[Preference]) -> None:
        """Before the commit, so that none is missed; a repeat after a crash has the same event id."""
        for preference in preferences:
            identity = content_id(f"{preference.preference_id}.{preference.revision}", preference.model_dump_json())
            self._send(new_event(preference, source=SOURCE, id=identity))
        if preferences:
            self._producer.flush()

    def _send(self, event: Any) -> None:
        key, value, headers = encode(event)
        self._producer.send(topics.BY_NAME[f"thumbwheel.{event.data.schema_name}.v1"].name, key, value, headers=headers)

    def _append(self, table: LakeTable, rows: Sequence[Any], moves: Mapping[str, Move]) -> None:
        began = time.perf_counter()
        table.append(table.arrow([row.model_dump() for row in rows]), moves)
        name = table.table.name
        self._metrics.commit_seconds.labels(name).observe(time.perf_counter() - began)
        self._metrics.rows.labels(name).inc(len(rows))
        self._metrics.last_round.labels(name).set_to_current_time()
        logger.debug("refined", extra={"table": name, "rows": len(rows)})


def _models(kind: type[Any], frame: pl.DataFrame, key: Callable[[Any], str]) -> dict[str, Any]:
    """The latest revision of each row, retracted ones as well."""
    return newest(increments.models(kind, frame), key)


def _rating_event(row: RatingRow) -> Preference:
    return Preference(
        preference_id=row.rating_id,
        kind="rating",
        completion=row.completion,
        label=row.label,
        response_ids=(row.response_id,),
        versions=(row.version,),
        **_judgement(row),
    )


def _pair_event(row: PreferenceRow) -> Preference:
    return Preference(
        preference_id=row.preference_id,
        kind="pair",
        chosen=row.chosen,
        rejected=row.rejected,
        response_ids=tuple(i for i in (row.chosen_response_id, row.rejected_response_id) if i),
        versions=tuple(v for v in (row.chosen_version, row.rejected_version) if v),
        **_judgement(row),
    )


def _judgement(row: RatingRow | PreferenceRow) -> dict[str, Any]:
    return {
        name: getattr(row, name)
        for name in ("revision", "retracted", "prompt_id", "prompt", "weight", "source", "rater_id")
    }
