"""The derived rows of some ids, from bronze as its tables hold it now: what refine, a rebuild and an erasure share.

    bronze.outputs, bronze.feedback ──responses()──► silver.responses ──ratings()──────► gold.ratings
    bronze.labels ───────────────────────────────────────────────────└─preferences()──► gold.preferences

Each function is handed all that its rows depend on or reads it from the tables, returns the rows as they should be
(with revision 1, by their ids), and writes nothing: `streams.core.revisions.revise` says what to append.
(`streams.annotators` does the same for gold.annotators.)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from schemas.tables import PreferenceRow, RatingRow, ResponseRow
from streams.adapters import increments
from streams.adapters.increments import HAPPENED_AT
from streams.adapters.lake import LakeTable
from streams.core.aggregation import ratings, respond
from streams.core.conduct import JUDGEMENTS, BurstRule, Judged, bursts
from streams.core.evidence import belongs
from streams.core.pairing import Cast, pairs, served
from streams.core.revisions import latest as newest

SPAN_GAP = timedelta(hours=1)
"""Windows of time that lie closer together are read as one."""


@dataclass(frozen=True)
class DerivedTables:
    """The open tables that rows are derived from, and those that they are written to."""

    outputs: LakeTable
    feedback: LakeTable
    labels: LakeTable
    responses: LakeTable
    ratings: LakeTable
    preferences: LakeTable

    @property
    def bronze(self) -> tuple[LakeTable, ...]:
        return self.outputs, self.feedback, self.labels

    @property
    def derived(self) -> tuple[LakeTable, ...]:
        return self.responses, self.ratings, self.preferences


@dataclass(frozen=True)
class Joined:
    """Silver rows by response id, and the bronze rows of feedback that was left aside as another tenant's."""

    rows: dict[str, ResponseRow] = field(default_factory=dict[str, ResponseRow])
    strangers: pl.DataFrame = field(default_factory=pl.DataFrame)


class Derivation:
    """Derived rows of some ids. The caller refreshes the tables. `burst` must be the same for all who derive."""

    def __init__(self, tables: DerivedTables, *, burst: BurstRule | None = None) -> None:
        self._tables = tables
        self._burst = burst or BurstRule()

    def responses(self, response_ids: Iterable[str]) -> dict[str, ResponseRow]:
        """Silver rows by response id, from bronze; ids whose output has not come are left out."""
        return self.join(response_ids).rows

    def join(self, response_ids: Iterable[str]) -> Joined:
        """The same, and the feedback that is not counted because its tenant is not the output's."""
        ids = set(response_ids)
        given = increments.given(self._tables.outputs.rows_by("response_id", ids))
        feedback = self._tables.feedback.rows_by("response_id", ids)
        said, fast = increments.said(feedback), self._bursts(feedback)
        joined = {i: respond(given.get(i, ()), said.get(i, ()), bursts=fast) for i in sorted(ids)}
        rows = {i: row for i, row in joined.items() if row is not None}
        places = enumerate(feedback.select("response_id", "tenant").iter_rows())
        strange = [n for n, (i, tenant) in places if i in rows and not belongs(tenant, rows[i].tenant)]
        return Joined(rows, feedback[strange])

    def hurried(self, feedback: pl.DataFrame | None) -> set[str]:
        """The responses whose rows new feedback may change without being about them.

        A late event can push a judgement that came after it over the limit of a burst. Whoever derives the responses
        of new feedback derives these as well.
        """
        if feedback is None or feedback.is_empty():
            return set()
        near = self._judged_near(feedback, before=self._burst.window, after=self._burst.window)
        answers = pl.col("response_id").n_unique().over("tenant", "user_id")
        return set(near.filter(answers > self._burst.limit).get_column("response_id").to_list())

    def ratings(self, responses: Iterable[ResponseRow]) -> dict[str, RatingRow]:
        """Gold ratings by rating id, from the silver rows of these answers.

        Answers of one user to one prompt must come together (`with_repeats` adds those that are missing): one thumb
        may only repeat another.
        """
        return ratings(responses)

    def with_repeats(self, responses: Iterable[ResponseRow], current: pl.DataFrame) -> dict[str, ResponseRow]:
        """Silver rows by id: these, and what the same users rated of the same prompts.

        `current` are gold rows of these answers: a thumb that was turned or withdrawn may have been what others only
        repeated. Reads the narrow columns of gold.ratings by prompt.
        """
        given = {row.response_id: row for row in responses}
        raters = {row.rater_id for row in given.values()} | set(current.get_column("rater_id").to_list())
        prompts = {row.prompt_id for row in given.values()} | set(current.get_column("prompt_id").to_list())
        mates = self._rated(prompts).filter(pl.col("rater_id").is_in([r for r in raters if r is not None]))
        others = set(mates.get_column("response_id").to_list()) - given.keys()
        return given | self._silver(others)

    def judged(self, prompt_ids: Iterable[str], more: Iterable[str] = ()) -> list[ResponseRow]:
        """The silver rows of these prompts of which a pair can come: rated ones, those of pairs that there are, those
        that a label is about, and `more`.

        gold.ratings and gold.preferences are asked which these are: they hold the few answers that were judged, while
        silver holds all. Their rows must not be behind what is asked for, except for `more`.
        """
        prompts = set(prompt_ids)
        paired = self._tables.preferences.rows_by("prompt_id", prompts)
        found = set(self._rated(prompts).get_column("response_id").to_list()) | set(more)
        for side in ("chosen_response_id", "rejected_response_id"):
            found |= set(paired.get_column(side).drop_nulls().to_list())
        found |= {i for casts in self._labels(prompts).values() for i in served(casts)}
        return [row for row in self._silver(found).values() if row.prompt_id in prompts]

    def preferences(self, prompt_ids: Iterable[str], responses: Iterable[ResponseRow]) -> dict[str, PreferenceRow]:
        """Gold pairs by preference id: all pairs of these prompts.

        `responses` are the silver rows of these prompts (answers of which nothing was said may be missing); labels
        are read from bronze.
        """
        prompts = set(prompt_ids)
        labels = self._labels(prompts)
        by_prompt: dict[str, list[ResponseRow]] = {}
        for row in responses:
            by_prompt.setdefault(row.prompt_id, []).append(row)
        found: dict[str, PreferenceRow] = {}
        for prompt in sorted(prompts):
            found |= pairs(by_prompt.get(prompt, ()), labels.get(prompt, ()))
        return found

    def _labels(self, prompts: set[str]) -> dict[str, list[Cast]]:
        return increments.cast(self._tables.labels.rows_by("prompt_id", prompts))

    def _silver(self, ids: set[str]) -> dict[str, ResponseRow]:
        return rows_of(ResponseRow, self._tables.responses.rows_by("response_id", ids), lambda r: r.response_id)

    def _rated(self, prompts: set[str]) -> pl.DataFrame:
        """Who rated which answers of these prompts, at any time: rater_id, response_id."""
        table = self._tables.ratings
        wanted = pl.col("prompt_id").is_in(sorted(prompts))
        return table.all().filter(wanted).select("rater_id", "response_id").unique().collect()

    def _bursts(self, feedback: pl.DataFrame) -> frozenset[str]:
        """The judgements in or near these rows that came too fast."""
        near = self._judged_near(feedback, before=self._burst.window, after=timedelta())
        columns = near.select("event_id", "at", "tenant", "user_id", "response_id").iter_rows()
        return bursts((Judged(i, at, (tenant, user), about) for i, at, tenant, user, about in columns), self._burst)

    def _judged_near(self, feedback: pl.DataFrame, *, before: timedelta, after: timedelta) -> pl.DataFrame:
        """The judgements of the users in these rows around the times of their judgements; narrow columns.

        Files are picked by the statistics of the events' times, so what is recent costs the same in a long history:
        those of the time by the events themselves, and those taken in then with events of a clock that runs ahead.
        """
        judging = pl.col("kind").is_in(_JUDGING) & pl.col("user_id").is_not_null()
        events = feedback.filter(judging).select("user_id", HAPPENED_AT.alias("at")).unique()
        table, files = self._tables.feedback, set[str]()
        for low, high in _spans(events.get_column("at").to_list(), before, after):
            files |= set(table.files({"event_time": (low, high)}))
            files |= set(table.files({"event_time": (high, None), "ingested_at": (low, high)}))
        users = events.get_column("user_id").unique().to_list()
        rows = table.scan(sorted(files)).filter(judging & pl.col("user_id").is_in(users))
        return rows.select("event_id", HAPPENED_AT.alias("at"), "tenant", "user_id", "response_id").collect()


_JUDGING = sorted(kind.value for kind in JUDGEMENTS)


def rows_of(kind: type[Any], frame: pl.DataFrame, key: Callable[[Any], str]) -> dict[str, Any]:
    """The latest revision of each row of a frame as models by `key`, retracted ones as well."""
    return newest(increments.models(kind, frame), key)


def _spans(times: Iterable[datetime], before: timedelta, after: timedelta) -> list[tuple[datetime, datetime]]:
    """The times with what lies around them, as few spans. Statistics may be cut to milliseconds: a second is added."""
    edge = timedelta(seconds=1)
    spans: list[tuple[datetime, datetime]] = []
    for time in sorted(times):
        low, high = time - before - edge, time + after + edge
        if spans and low - spans[-1][1] < SPAN_GAP:
            spans[-1] = (spans[-1][0], high)
        else:
            spans.append((low, high))
    return spans
