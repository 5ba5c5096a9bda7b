"""What the tables hold of one person, and where it went."""

import json
from collections.abc import Iterable
from typing import get_args

import polars as pl
from pydantic import BaseModel, ConfigDict

from infra.provenance.sources import Row, Sources
from schemas import tables
from schemas.tables import annotator_id
from trainer.adapters.registry import quote
from trainer.core.evidence import Set, rater_hash


class Footprint(BaseModel):
    """Ids of rows; no content.

    `responses` are answers given to the person, `touched` other people's answers that the person said something of,
    `prompts` what only this person asked, `shared_prompts` what others asked in the same words, `quotes` hashes of the
    last turns of the former (see `quote`), by which version records are searched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    responses: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    shared_prompts: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    feedback_events: tuple[str, ...] = ()
    label_events: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    judgements: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    dead_letters: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not any(value for name, value in self if name != "user")


class Learned(BaseModel):
    """A version that learned from a person: how many judgements and prompts of theirs, in which set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    cycle_id: str
    set: Set
    judgements: int
    prompts: int
    content_hash: str


def footprint(sources: Sources, user: str) -> Footprint:
    """Everything that is stored of a person. Reads id columns of whole tables: an erasure may take its time."""
    mine = _column(sources, tables.OUTPUTS, pl.col("user_id") == user, "response_id")
    mine |= _column(sources, tables.RESPONSES, pl.col("user_id") == user, "response_id")
    said = sources.where(tables.FEEDBACK, pl.col("user_id") == user, ["event_id", "response_id"])
    about = sources.by(tables.FEEDBACK, "response_id", mine)
    cast = (pl.col("labeler_id") == user) | _quotes(mine)
    labels = sources.where(tables.LABELS, cast, ["event_id", "task_id"])
    asked = sources.where(tables.RESPONSES, pl.col("response_id").is_in(sorted(mine)), ["prompt_id"]) + sources.where(
        tables.OUTPUTS, pl.col("response_id").is_in(sorted(mine)), ["prompt_id"]
    )
    prompts = {row["prompt_id"] for row in asked}
    others = pl.col("prompt_id").is_in(sorted(prompts)) & ~pl.col("response_id").is_in(sorted(mine))
    shared = _column(sources, tables.OUTPUTS, others, "prompt_id")
    touched = {row["response_id"] for row in said} - mine
    return Footprint(
        user=user,
        responses=_sorted(mine),
        touched=_sorted(touched | _touched_silver(sources, user) - mine),
        prompts=_sorted(prompts - shared),
        shared_prompts=_sorted(shared),
        quotes=_sorted(_quoted(sources, prompts - shared)),
        feedback_events=_sorted(row["event_id"] for row in (*said, *about)),
        label_events=_sorted(row["event_id"] for row in labels),
        tasks=_sorted(_tasks(sources, mine, prompts - shared)),
        judgements=_sorted(_judgements(sources, user, mine, prompts - shared)),
        annotators=_sorted(_column(sources, tables.ANNOTATORS, _is_rater(user), "rater_id")),
        dead_letters=_sorted(_dead_letters(sources, user, mine)),
    )


def learned(sources: Sources, found: Footprint) -> list[Learned]:
    """Which versions learned from the person. What a version made of it can't be taken out again."""
    rater, judgements = rater_hash(found.user), set(found.judgements)
    responses, prompts = set(found.responses), {*found.prompts, *found.shared_prompts}
    result: list[Learned] = []
    for record in sources.records():
        counts: dict[str, list[int]] = {}
        for item in sources.evidence(record.version) or ():
            theirs = item.rater == rater or item.id in judgements or responses & set(item.response_ids)
            if item.kind == "prompt":
                counts.setdefault(item.set, [0, 0])[1] += item.id in prompts
            else:
                counts.setdefault(item.set, [0, 0])[0] += bool(theirs)
        for name in get_args(Set):
            labels, asked = counts.get(name, (0, 0))
            if labels or asked:
                result.append(
                    Learned(
                        version=record.version,
                        cycle_id=record.cycle_id,
                        set=name,
                        judgements=labels,
                        prompts=asked,
                        content_hash=record.content_hash,
                    )
                )
    return result


def _quoted(sources: Sources, prompts: set[str]) -> set[str]:
    asked = sources.where(tables.OUTPUTS, pl.col("prompt_id").is_in(sorted(prompts)), ["prompt"])
    return {quote(row["prompt"][-1]["content"]) for row in asked}


def _is_rater(user: str) -> pl.Expr:
    """Whether a row of gold/annotators is about the person, as a user of any tenant or as a labeler."""
    rater = pl.col("rater_id")
    return rater.is_in([user, annotator_id("labeler", user)]) | rater.str.ends_with(f"/{user}")


def _touched_silver(sources: Sources, user: str) -> set[str]:
    by = (pl.col("rater_id") == user) | (pl.col("corrected_by") == user)
    return _column(sources, tables.RESPONSES, by, "response_id")


def _judgements(sources: Sources, user: str, responses: set[str], prompts: set[str]) -> set[str]:
    ids, asked = sorted(responses), sorted(prompts)
    by = pl.col("rater_id") == user
    rated = _column(sources, tables.RATINGS, by | pl.col("response_id").is_in(ids), "rating_id")
    about = pl.col("chosen_response_id").is_in(ids) | pl.col("rejected_response_id").is_in(ids)
    about |= pl.col("prompt_id").is_in(asked)
    return rated | _column(sources, tables.PREFERENCES, by | about.fill_null(value=False), "preference_id")


def _tasks(sources: Sources, responses: set[str], prompts: set[str]) -> set[str]:
    quoting = _quotes(responses) | pl.col("prompt_id").is_in(sorted(prompts))
    return _column(sources, tables.LABEL_QUEUE, quoting, "task_id")


def _quotes(responses: set[str]) -> pl.Expr:
    """Whether a side of a comparison is one of these answers."""
    ids = sorted(responses)
    sides = [pl.col(side).struct.field("response_id").is_in(ids).fill_null(value=False) for side in ("left", "right")]
    return sides[0] | sides[1]


def _dead_letters(sources: Sources, user: str, responses: set[str]) -> set[str]:
    """Letters that name the person, or an answer of theirs, anywhere in their bytes."""
    found: set[str] = set()
    for row in sources.where(tables.DEAD_LETTERS, pl.lit(value=True), ["dead_letter_id", "key", "value", "headers"]):
        if _names(row, user, responses):
            found.add(row["dead_letter_id"])
    return found


def _names(row: Row, user: str, responses: set[str]) -> bool:
    whole = b"\0".join(part for part in (row["key"], row["value"], row["headers"].encode()) if part)
    return _as_json(user) in whole or any(response.encode() in whole for response in responses)


def _as_json(user: str) -> bytes:
    """A user id as it stands in an event: between quotes, so that user-1 is not found in user-10."""
    return json.dumps(user, ensure_ascii=False).encode()


def _column(sources: Sources, table: tables.Table, condition: pl.Expr, column: str) -> set[str]:
    return {row[column] for row in sources.where(table, condition, [column])}


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(ids)))
