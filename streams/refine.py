"""Silver and gold, incrementally: what was said meets its answer, judgements become rows to learn from.

    bronze.outputs ─┐                          ┌─► gold.ratings ─────┐
    bronze.feedback ┴─► silver.responses ──────┤                     ├─► preferences.v1 (published before the commit)
    bronze.labels ─────────────┬───────────────┴─► gold.preferences ─┘
                               └─► gold.annotators (every few minutes: what each rater's word is worth)
    gold.scores (from the trainer) ─► selector ─► label-tasks.v1, then gold.label_queue

A round reads the bronze rows behind each table's watermark, finds what they touch, computes those rows anew from
*all* the evidence (`streams.derive`), and appends what changed together with the new watermark. So late, repeated,
withdrawn and corrected events need no cases of their own, and a crash between two commits costs a recomputation, no
more. An output and what is said of it meet whichever comes first: `streams.orphans` says what happens to feedback whose
output has not come.

What a round costs: bronze and silver are looked up by time-ordered ids and by time, which prune to few files. Ratings
and pairs meet by prompt id, a hash that prunes nothing: one column of gold.ratings, gold.preferences and bronze.labels
is read whole. That grows with the number of *judged* answers, not with all that were given. Starting reads narrow
columns of whole tables to find what never met.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError

from schemas import tables, topics
from schemas.envelope import encode, new_event
from schemas.errors import BrokerUnavailable, TableConflict
from schemas.tables import AnnotatorRow, LabelQueueRow, PreferenceRow, RatingRow, ResponseRow, ScoreRow
from streams.adapters import increments
from streams.adapters.dead_letters import DeadLetters, source
from streams.adapters.increments import Increment, watermark
from streams.adapters.lake import LakeTable, Move, open_table
from streams.adapters.log import Producer
from streams.annotators import RaterRules, annotators
from streams.announce import SOURCE, announcement
from streams.core.aggregation import rating_id
from streams.core.conduct import BurstRule
from streams.core.gold import Asked, GoldQuestion, with_gold
from streams.core.revisions import revise
from streams.core.selection import SelectionPlan, select
from streams.derive import Derivation, DerivedTables, rows_of
from streams.gold import read_gold
from streams.metrics import Metrics
from streams.orphans import UNKNOWN_RESPONSE, WRONG_TENANT, Orphans, Silence, report_strangers
from streams.settings import RaterSettings, StreamSettings

logger = logging.getLogger(__name__)

ESTIMATE_PAUSES = 20
"""An estimate is followed by a pause of so many times what it took: it never costs more than 5 % of a worker."""


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
        self.annotators = self._open(tables.ANNOTATORS)
        self._tables = DerivedTables(
            self.outputs, self.feedback, self.labels, self.responses, self.ratings, self.preferences
        )
        self._derivation = Derivation(self._tables, burst=burst_rule(settings.raters))
        self._rater_rules = rater_rules(settings.raters)
        self._gold = read_gold(settings.raters.gold_answers)
        self._producer = Producer(settings.kafka, client_id="refine")
        self._dead = DeadLetters(self._producer, self._open(tables.DEAD_LETTERS))
        self.orphans = Orphans(self.feedback, self.outputs, self._dead, after_seconds=settings.orphan_after_seconds)
        self.silence = Silence(self.responses)
        self._scores_seen = -1
        self._estimate_at = float("-inf")

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
            self.silence.forget()
            logger.warning("another writer came first; reading the tables again", extra={"error": str(error)})
        except (BrokerUnavailable, DeltaError, OSError, pl.exceptions.PolarsError) as error:
            logger.error("this round failed, trying again", extra={"error": str(error)})
        return False

    def round(self) -> bool:
        """One pass over all tables; whether there is more to do at once."""
        began = time.perf_counter()
        # What is written before what it is made of (its fence says until when it may be), and gold before silver.
        for table in (*reversed(self._own), self.outputs, self.feedback, self.labels, self.scores):
            table.refresh()
        more = [step() for step in (self._responses, self._ratings, self._preferences) if not self._stop.is_set()]
        self._annotators()
        self._select()
        reported = self.orphans.report(datetime.now(UTC))
        self._metrics.dead_letters.labels(topics.FEEDBACK.name, UNKNOWN_RESPONSE).inc(reported)
        self._metrics.orphans.set(self.orphans.count)
        self._metrics.silent.set(self.silence.count())
        for table in self._own:
            table.maintain()
        self._metrics.round_seconds.observe(time.perf_counter() - began)
        return any(more)

    @property
    def _own(self) -> tuple[LakeTable, ...]:
        return self.responses, self.ratings, self.preferences, self.annotators, self.queue

    def _responses(self) -> bool:
        """Silver: every answer that something new was said of, joined anew with all that is known of it."""
        found = increments.read(self.responses, (self.outputs, self.feedback), limit=self._settings.refine_rows)
        if not found.moves:
            return False
        ids = self._ids(found)
        joined, current = self._derivation.join(ids), self._current_responses(ids)
        self._report_strangers(joined.strangers)
        self._append(self.responses, revise(current, joined.rows), found.moves)
        self.orphans.note(found.frames.get(topics.FEEDBACK.name), joined=joined.rows)
        self.silence.note(current, joined.rows)
        return found.full

    def _report_strangers(self, feedback: pl.DataFrame) -> None:
        """Before the commit, so that none is missed."""
        reported = report_strangers(self._dead, feedback)
        self._metrics.dead_letters.labels(topics.FEEDBACK.name, WRONG_TENANT).inc(reported)

    def _ids(self, found: Increment) -> set[str]:
        """The answers whose rows new bronze rows may change: those that they are about, and a few more."""
        about = found.values("response_id", (topics.OUTPUTS, topics.FEEDBACK))
        return about | self._derivation.hurried(found.frames.get(topics.FEEDBACK.name))

    def _ratings(self) -> bool:
        found = self._touched(self.ratings, bounds=self.responses)
        if not found.moves:
            return False
        ids = self._ids(found)
        before = self.ratings.rows_by("rating_id", map(rating_id, ids))
        responses = self._derivation.with_repeats(self._current_responses(ids).values(), before)
        wanted = self._derivation.ratings(responses.values())
        frame = self.ratings.rows_by("rating_id", map(rating_id, ids | responses.keys()))
        changed = revise(rows_of(RatingRow, frame, lambda r: r.rating_id), wanted)
        self._publish(changed)
        self._append(self.ratings, changed, found.moves)
        for row in changed:
            if row.discounted is not None and not row.retracted:
                self._metrics.discounted.labels(row.discounted.value).inc()
        return found.full

    def _preferences(self) -> bool:
        found = self._touched(self.preferences, self.labels, bounds=self.ratings)
        if not found.moves:
            return False
        ids = self._ids(found)
        prompts = self._prompts(ids) | found.values("prompt_id", (topics.LABELS,))
        changed = self._revised_pairs(prompts, ids) if prompts else []
        self._publish(changed)
        self._append(self.preferences, changed, found.moves)
        return found.full

    def _revised_pairs(self, prompts: set[str], ids: set[str]) -> list[PreferenceRow]:
        """The whole set of pairs of these prompts, against what the table has."""
        wanted = self._derivation.preferences(prompts, self._derivation.judged(prompts, ids))
        frame = self.preferences.rows_by("prompt_id", prompts)
        return revise(rows_of(PreferenceRow, frame, lambda r: r.preference_id), wanted)

    def _prompts(self, ids: set[str]) -> set[str]:
        """The prompts whose pairs these answers may change: those of answers of which something was said.

        An answer in silence changes a pair only where a label is about it, and came before it did. All revisions are
        looked at: an output that came late under a known id may be the earlier one, and answer another prompt.
        """
        rows = self.responses.rows_by("response_id", ids).select("prompt_id", "feedback_count")
        spoken = rows.filter(pl.col("feedback_count") > 0).get_column("prompt_id").unique().to_list()
        labelled = self.labels.all().select("prompt_id").filter(pl.col("prompt_id").is_in(rows["prompt_id"].to_list()))
        return {*spoken, *labelled.collect().get_column("prompt_id").to_list()}

    def _annotators(self) -> None:
        """Every so often, where something was judged since: what each rater's word is worth."""
        now = time.monotonic()
        if now < self._estimate_at or self._stop.is_set():
            return
        moves = self._unweighed()
        if not moves:
            return
        wanted = annotators(self._tables, self._rater_rules)
        newest = self.annotators.all().sort("revision").unique(subset=["rater_id"], keep="last").collect()
        current = rows_of(AnnotatorRow, newest, lambda r: r.rater_id)
        self._append(self.annotators, revise(current, wanted), moves)
        self._metrics.annotators.set(len(wanted))
        took = time.monotonic() - now
        self._estimate_at = now + max(self._settings.raters.estimate_seconds, ESTIMATE_PAUSES * took)

    def _unweighed(self) -> dict[str, Move]:
        """How far gold.ratings (and bronze, of labels) is where gold.annotators is not."""
        ends = {
            watermark(bronze.table.topic.name, partition): (
                self.ratings.position(watermark(bronze.table.topic.name, partition))
                if bronze is not self.labels
                else bronze.position(source(bronze.table.topic.name, partition))
            )
            for bronze in self._tables.bronze
            for partition in bronze.partitions()
            if bronze.table.topic
        }
        held = {app: self.annotators.position(app) for app in ends}
        return {app: Move(held[app], end) for app, end in ends.items() if end is not None and end != held[app]}

    def _touched(self, gold: LakeTable, *more: LakeTable, bounds: LakeTable) -> Increment:
        """What a gold table has not consumed of that which the table `bounds` has, and of further bronze tables."""
        apps = {
            watermark(bronze.table.topic.name, partition): None
            for bronze in (self.outputs, self.feedback)
            for partition in bronze.partitions()
            if bronze.table.topic
        }
        ends = {app: bounds.position(app) for app in apps}
        sources = (self.outputs, self.feedback, *more)
        return increments.read(gold, sources, limit=self._settings.refine_rows, not_beyond=ends)

    def _current_responses(self, ids: set[str]) -> dict[str, ResponseRow]:
        return rows_of(ResponseRow, self.responses.rows_by("response_id", ids), lambda r: r.response_id)

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
        gold = self._gold_questions()
        about = {s.response_id for s in scores}.union(*(question.response_ids for question in gold))
        responses, asked = self._current_responses(about), Asked(_task_ids(self.queue), _task_ids(self.labels))
        plan = SelectionPlan(**self._settings.selection.model_dump())
        tasks = select(scores, responses, known={*asked.queued, *asked.labelled}, plan=plan)
        tasks = with_gold(tasks, gold, responses, asked=asked, plan=plan)
        for task in tasks:
            self._send(new_event(task, source=SOURCE, id=task.task_id))
        self._producer.flush()
        now = datetime.now(UTC)
        self._append(self.queue, [LabelQueueRow(**dict(task), queued_at=now) for task in tasks], moves)
        logger.info("label tasks queued", extra={"reward_model": reward_model, "tasks": len(tasks)})

    def _gold_questions(self) -> list[GoldQuestion]:
        """Those that the file spells out, and those that it names by a task which was queued before."""
        rows = self.queue.rows_by("task_id", self._gold.named).iter_rows(named=True)
        return [*self._gold.questions, *(q for q in map(self._gold.of_task, rows) if q is not None)]

    def _publish(self, rows: Sequence[RatingRow | PreferenceRow]) -> None:
        """Before the commit, so that none is missed; a repeat after a crash has the same event id."""
        for row in rows:
            self._send(announcement(row))
        if rows:
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


def _task_ids(table: LakeTable) -> frozenset[str]:
    return frozenset(table.all().select("task_id").unique().collect().get_column("task_id").to_list())


def burst_rule(settings: RaterSettings) -> BurstRule:
    """For whoever derives rows: a rebuild or an erasure must judge by the same rule."""
    return BurstRule(settings.burst_limit, settings.burst_seconds)


def rater_rules(settings: RaterSettings) -> RaterRules:
    """The same for the raters' weights; reads the gold answers, raises `SettingsError` where they can't be read."""
    return RaterRules(settings.window_days, settings.cap, read_gold(settings.gold_answers).answers)
