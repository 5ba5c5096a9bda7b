"""What each rater is worth, from what silver and bronze hold now: the rows of gold.annotators.

    silver.responses (votes) ──► conduct of each user ──┐
    bronze.labels ─────────────► conduct of labelers ───┼─► Dawid-Skene on overlap and gold ─► one row a rater
    gold answers (a file) ──────────────────────────────┘

An estimate looks at the judgements of the last days only (by the newest time at which ingest took something in, so a
rebuild comes to the same), reads narrow columns of the files of that time, and makes rows for those alone of whom
there is something to say. Nothing else is rewritten when a weight changes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from schemas.consent import Purpose
from schemas.tables import AnnotatorRow, Discount, annotator_id
from streams.adapters import increments
from streams.adapters.increments import HAPPENED_AT
from streams.core.pairing import Cast, in_order, votes_on
from streams.core.raters import Conduct, annotator, opinions, side_of
from streams.core.reliability import Opinion, Reliability, reliabilities
from streams.core.selection import task_id
from streams.derive import DerivedTables

CLASSES = 3
"""Classes of a label: the one text, the other, neither."""


@dataclass(frozen=True)
class RaterRules:
    """What an estimate looks at: see `RaterSettings`. `gold` is the better text (or None) by task id: of a question
    that was asked several times, by that of the first."""

    window_days: float = 90.0
    cap: int = 100
    gold: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


def annotators(tables: DerivedTables, rules: RaterRules) -> dict[str, AnnotatorRow]:
    """The rows as they should be (revision 1), by rater id; writes nothing. The caller refreshes the tables.

    silver.responses and gold.ratings must hold all that they are to be judged by.
    """
    since = _since(tables, rules)
    if since is None:
        return {}
    rows = [*_users(tables, since, rules), *_labelers(tables, since, rules)]
    return {row.rater_id: row for row in rows}


def _since(tables: DerivedTables, rules: RaterRules) -> datetime | None:
    """The beginning of what is looked at."""
    moments = [
        table.all().select(pl.col("ingested_at").max()).collect().item() for table in (tables.feedback, tables.labels)
    ]
    newest = max((m for m in moments if m is not None), default=None)
    return None if newest is None else newest - timedelta(days=rules.window_days)


def _users(tables: DerivedTables, since: datetime, rules: RaterRules) -> list[AnnotatorRow]:
    votes = _votes(tables, since)
    counted = votes.filter(pl.col("discounted").is_null())
    shared = counted.filter(pl.col("response_id").count().over("response_id") > 1)
    said = shared.select("rater", "response_id", "value").iter_rows()
    estimates = reliabilities(Opinion(rater, item, int(value > 0)) for rater, item, value in said)
    overlapping = dict(shared.group_by("rater").len().iter_rows())
    repeats = _duplicates(tables, since)
    conduct = votes.group_by("rater").agg(
        pl.len().alias("judgements"),
        pl.col("at").max().alias("newest"),
        (pl.col("discounted") == Discount.BURST.value).sum().alias("bursts"),
    )
    rows: list[AnnotatorRow | None] = []
    for rater, judgements, newest, bursts in _noted(conduct, estimates, repeats, rules).iter_rows():
        did = Conduct(
            rater,
            "user",
            judgements,
            newest,
            overlapping=overlapping.get(rater, 0),
            bursts=bursts,
            duplicates=repeats.get(rater, 0),
        )
        rows.append(annotator(did, estimates.get(rater), cap=rules.cap))
    return [row for row in rows if row is not None]


def _noted(
    conduct: pl.DataFrame, estimates: Mapping[str, Reliability], repeats: Mapping[str, int], rules: RaterRules
) -> pl.DataFrame:
    """Those of whom there may be something to say: of a million users most have judged little, and alone."""
    known = sorted(estimates.keys() | repeats.keys())
    busy = (pl.col("judgements") > rules.cap) | (pl.col("bursts") > 0)
    return conduct.filter(busy | pl.col("rater").is_in(known)).sort("rater")


def _votes(tables: DerivedTables, since: datetime) -> pl.DataFrame:
    """The users' present thumbs on answers of the time: rater, response_id, value, at, discounted."""
    table = tables.responses
    columns = ("response_id", "revision", "retracted", "tenant", "purposes", "shadow_of", "votes")
    recent = table.scan(table.files({"event_time": (since, None)})).filter(pl.col("event_time") >= since)
    # An answer in silence is one row of revision 1 without votes: most rows, and none of them matters.
    spoken = recent.filter((pl.col("revision") > 1) | pl.col("votes").is_not_null()).select(columns)
    newest = spoken.sort("revision").unique(subset=["response_id"], keep="last")
    agreed = pl.col("purposes").is_null() | pl.col("purposes").list.contains(Purpose.TRAINING.value)
    usable = newest.filter(
        ~pl.col("retracted") & agreed & pl.col("shadow_of").is_null() & pl.col("votes").is_not_null()
    )
    votes = usable.select("response_id", "tenant", "votes").explode("votes").unnest("votes")
    rated = votes.filter(pl.col("rater_id").is_not_null()).with_columns(_annotator_id().alias("rater"))
    return rated.select("rater", "response_id", "value", "at", "discounted").sort("response_id", "rater").collect()


def _duplicates(tables: DerivedTables, since: datetime) -> dict[str, int]:
    """How many ratings of each user only repeat what they said before."""
    table = tables.ratings
    columns = ("rating_id", "revision", "retracted", "tenant", "rater_id", "judged_at", "discounted")
    recent = table.scan(table.files({"judged_at": (since, None)})).select(columns)
    newest = recent.sort("revision").unique(subset=["rating_id"], keep="last")
    repeated = newest.filter(
        ~pl.col("retracted")
        & (pl.col("judged_at") >= since)
        & (pl.col("discounted") == Discount.DUPLICATE.value)
        & pl.col("rater_id").is_not_null()
    )
    return dict(repeated.group_by(_annotator_id().alias("rater")).len().collect().iter_rows())


def _annotator_id() -> pl.Expr:
    """`annotator_id` of a user, on the columns tenant and rater_id."""
    in_tenant = pl.concat_str(pl.col("tenant"), pl.lit("/"), pl.col("rater_id"))
    return pl.when(pl.col("tenant").is_null()).then(pl.col("rater_id")).otherwise(in_tenant)


def _labelers(tables: DerivedTables, since: datetime, rules: RaterRules) -> list[AnnotatorRow]:
    table = tables.labels
    files = table.files({"event_time": (since, None), "ingested_at": (since, None)})
    frame = table.scan(files).filter(since <= HAPPENED_AT).collect()
    tasks: dict[str, list[Cast]] = {}
    for casts in increments.cast(frame).values():
        for cast in casts:
            tasks.setdefault(cast.label.task_id, []).append(cast)
    said = opinions(cast for casts in tasks.values() for cast in casts)
    truths = _truths(tasks, rules.gold) if rules.gold else {}
    estimates = reliabilities(said, truths=truths, classes=CLASSES)
    rows = [annotator(did, estimates.get(did.rater_id), cap=rules.cap) for did in _labeling(said, tasks, truths)]
    return [row for row in rows if row is not None]


def _truths(tasks: Mapping[str, list[Cast]], gold: Mapping[str, str | None]) -> dict[str, int]:
    """The class of each known answer by task id, in the order of the texts that were shown. A gold question is known
    by these, whatever the id under which it was asked."""
    found: dict[str, int] = {}
    for task, casts in tasks.items():
        label = in_order(casts)[0].label
        texts = (label.left.completion, label.right.completion)
        known = task if task in gold else task_id(label.prompt_id, texts)
        if known in gold:
            found[task] = side_of(gold[known], texts)
    return found


def _labeling(said: list[Opinion], tasks: Mapping[str, list[Cast]], truths: Mapping[str, int]) -> list[Conduct]:
    """What each labeler did, in the order of their ids."""
    labelers = Counter(o.item for o in said)
    newest: dict[str, datetime] = {}
    for task in labelers:
        for labeler, cast in votes_on(tasks[task]).items():
            rater = annotator_id("labeler", labeler)
            newest[rater] = max(cast.time, newest.get(rater, cast.time))
    by_rater: dict[str, list[Opinion]] = {}
    for opinion in said:
        by_rater.setdefault(opinion.rater, []).append(opinion)
    return [
        Conduct(
            rater,
            "labeler",
            len(own),
            newest[rater],
            overlapping=sum(labelers[o.item] > 1 for o in own),
            gold_asked=sum(o.item in truths for o in own),
            gold_right=sum(truths.get(o.item) == o.said for o in own),
        )
        for rater, own in sorted(by_rater.items())
    ]
