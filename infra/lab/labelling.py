"""Labelers in the lab: the tasks that the selector would queue from the newest scores, answered with flips."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from infra.simulate import labelers
from infra.simulate.tastes import Taste
from schemas import tables
from schemas.envelope import Event, new_event
from schemas.ids import content_id
from schemas.labels import Label
from schemas.tables import ResponseRow, ScoreRow
from streams.adapters import increments
from streams.adapters.lake import open_table
from streams.core.selection import SelectionPlan, select
from streams.derive import rows_of
from streams.settings import StreamSettings


def answered_tasks(
    settings: StreamSettings, *, known: set[str], minds: Mapping[str, Taste], flips: float, seed: int, at: datetime
) -> list[Event[Any]]:
    """The labels of the newest reward model's tasks; none before there is one.

    A labeler judges a task by the taste of the segment (`minds`, by name) in which its left answer was given.
    """
    scores, responses = _newest_scores(settings)
    rows = rows_of(ResponseRow, responses, lambda r: r.response_id)
    plan = SelectionPlan(**settings.selection.model_dump())
    found: list[Event[Any]] = []
    for task in select(scores, rows, known=known, plan=plan):
        segment = rows[task.left.response_id or ""].segment
        label = labelers.answer(task, minds[segment], noise=flips, seed=seed)
        found.append(_event(label, at))
    return found


def _event(label: Label, at: datetime) -> Event[Any]:
    identity = content_id("label", label.task_id, label.labeler_id)
    return new_event(label, source=labelers.SOURCE, id=identity, time=at)


def _newest_scores(settings: StreamSettings) -> tuple[list[ScoreRow], pl.DataFrame]:
    """The scores of the reward model that scored last, and the silver rows of the answers that they are about."""
    table = open_table(settings.lake, tables.SCORES)
    every = table.all().collect()
    if every.is_empty():
        return [], pl.DataFrame()
    model = every.sort("scored_at").get_column("reward_model").to_list()[-1]
    scores = increments.models(ScoreRow, every.filter(pl.col("reward_model") == model))
    silver = open_table(settings.lake, tables.RESPONSES)
    return scores, silver.rows_by("response_id", {s.response_id for s in scores})
