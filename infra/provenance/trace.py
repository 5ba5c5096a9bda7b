"""The path of an answer, a judgement or a version, in both directions.

    question ─► response ◄─ feedback, labels
                   │  └──────────► rating, preferences ─► evidence of ─► version ─► the responses it gave
                   └─ version that gave it ─► its cycle, its parent, ... the base

Ids are ordered by time or hashed from content, so every step is a look-up by id; only the step from a response to the
preferences that it is in reads two columns of that table whole.
"""

import re
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from infra.provenance.sources import JUDGEMENTS, Row, Sources
from schemas import tables
from schemas.errors import ThumbwheelError
from schemas.ids import RESPONSE_ID_PATTERN
from schemas.versions import BASE_VERSION
from trainer.core.evidence import Evidence, Set
from trainer.records import VersionRecord


class UnknownId(ThumbwheelError):
    """Nothing that is known has this id."""


@dataclass(frozen=True)
class Use:
    """A version that made use of a judgement or of a prompt."""

    version: str
    cycle_id: str
    set: Set
    kind: str
    weight: float
    passed: bool


@dataclass(frozen=True)
class VersionPath:
    """One version: how it came about. `sets` counts what it learned from, by set and kind; None: not recorded."""

    version: str
    record: VersionRecord | None
    sets: dict[tuple[str, str], int] | None
    parents: tuple[str, ...]
    children: tuple[str, ...]
    answers: int
    thumbs_up: int
    thumbs_down: int
    events: tuple[Row, ...]


@dataclass(frozen=True)
class JudgementPath:
    """A rating or a preference: its revisions (the last one counts), the answers it is about and what was said.

    `unrecorded` are versions that may have learned from it: their records don't say.
    """

    id: str
    table: str
    revisions: tuple[Row, ...]
    responses: tuple[Row, ...]
    feedback: tuple[Row, ...]
    labels: tuple[Row, ...]
    uses: tuple[Use, ...]
    unrecorded: tuple[str, ...]


@dataclass(frozen=True)
class ResponsePath:
    """An answer: the event, what was said, what became of that, and where its prompt was used."""

    id: str
    output: Row | None
    response: Row | None
    feedback: tuple[Row, ...]
    labels: tuple[Row, ...]
    judgements: tuple[Row, ...]
    uses: tuple[Use, ...]
    unrecorded: tuple[str, ...]
    version: VersionPath | None


Path = ResponsePath | JudgementPath | VersionPath


def trace(sources: Sources, id: str) -> Path:
    """Whatever has this id: a response, a rating or preference, a version, or a feedback event (which leads to its
    response). Raises `UnknownId`."""
    if id == BASE_VERSION or id in sources.registry.versions():
        return version_path(sources, id)
    for table in JUDGEMENTS:
        if rows := sources.by(table, table.key, [id]):
            return _judgement(sources, table.path, id, rows)
    found = _response(sources, id)
    if found is None:
        events = sources.by(tables.FEEDBACK, "event_id", [id]) or sources.by(tables.OUTPUTS, "event_id", [id])
        found = _response(sources, events[0]["response_id"]) if events else None
    if found is None:
        raise UnknownId(_unknown(id))
    return found


def version_path(sources: Sources, version: str) -> VersionPath:
    """A version with its line of parents and what it learned from; `base` learned from nobody here."""
    records = {record.version: record for record in sources.records()}
    record = records.get(version)
    known = sources.evidence(version) if record else []
    given = sources.where(tables.RESPONSES, pl.col("version") == version, ["response_id", "revision", "thumb"])
    latest = {row["response_id"]: row["thumb"] for row in sorted(given, key=lambda r: r["revision"])}
    return VersionPath(
        version=version,
        record=record,
        sets=None if known is None else _counted(known),
        parents=_line(version, records),
        children=tuple(v for v, r in records.items() if r.parent == version),
        answers=len(latest),
        thumbs_up=sum(thumb == 1 for thumb in latest.values()),
        thumbs_down=sum(thumb == -1 for thumb in latest.values()),
        events=tuple(sources.by(tables.VERSIONS, "version", [version])),
    )


def uses(sources: Sources, *, ids: set[str], prompt_ids: set[str]) -> tuple[Use, ...]:
    """Every version that used one of these judgements, or one of these prompts by itself."""
    found: list[Use] = []
    for record in sources.records():
        for item in sources.evidence(record.version) or ():
            if item.id in (prompt_ids if item.kind == "prompt" else ids):
                found.append(Use(record.version, record.cycle_id, item.set, item.kind, item.weight, record.passed))
    return tuple(found)


def _response(sources: Sources, id: str) -> ResponsePath | None:
    outputs = sources.by(tables.OUTPUTS, "response_id", [id])
    feedback = sources.by(tables.FEEDBACK, "response_id", [id])
    if not outputs and not feedback:
        return None
    output = outputs[0] if outputs else None
    silver = sources.current(tables.RESPONSES, "response_id", [id])
    judgements = _judgements_of(sources, id)
    prompts = {output["prompt_id"]} if output else set[str]()
    return ResponsePath(
        id=id,
        output=output,
        response=silver[0] if silver else None,
        feedback=tuple(feedback),
        labels=tuple(_labels_on(sources, {id})),
        judgements=tuple(judgements),
        uses=uses(sources, ids={_key(row) for row in judgements}, prompt_ids=prompts),
        unrecorded=sources.unrecorded(),
        version=version_path(sources, output["version"]) if output else None,
    )


def _judgements_of(sources: Sources, response_id: str) -> list[Row]:
    """The latest revisions of all that was concluded from a response."""
    ratings = sources.where(tables.RATINGS, pl.col("response_id") == response_id)
    either = (pl.col("chosen_response_id") == response_id) | (pl.col("rejected_response_id") == response_id)
    pairs = sources.where(tables.PREFERENCES, either)
    latest = {_key(row): row for row in sorted([*ratings, *pairs], key=lambda row: row["revision"])}
    return list(latest.values())


def _judgement(sources: Sources, table: str, id: str, revisions: list[Row]) -> JudgementPath:
    ids = {
        value
        for row in revisions
        for column in ("response_id", "chosen_response_id", "rejected_response_id")
        if (value := row.get(column))
    }
    return JudgementPath(
        id=id,
        table=table,
        revisions=tuple(revisions),
        responses=tuple(sources.current(tables.RESPONSES, "response_id", ids)),
        feedback=tuple(sources.by(tables.FEEDBACK, "response_id", ids)),
        labels=tuple(_labels_behind(sources, id, revisions[-1])),
        uses=uses(sources, ids={id}, prompt_ids=set()),
        unrecorded=sources.unrecorded(),
    )


def _labels_on(sources: Sources, response_ids: set[str]) -> list[Row]:
    either = [
        pl.col(side).struct.field("response_id").is_in(sorted(response_ids)).fill_null(value=False)
        for side in ("left", "right")
    ]
    return sources.where(tables.LABELS, either[0] | either[1])


def _labels_behind(sources: Sources, id: str, row: Row) -> list[Row]:
    """The verdicts on the task that a labelled pair came from: those on its prompt and on these two texts."""
    if row.get("source") != "label":
        return []
    texts = {row["chosen"], row["rejected"]}
    labels = sources.by(tables.LABELS, "prompt_id", [row["prompt_id"]])
    return [x for x in labels if {x["left"]["completion"], x["right"]["completion"]} == texts]


def _line(version: str, records: dict[str, VersionRecord]) -> tuple[str, ...]:
    """Parent, grandparent, and so on, to the base."""
    line: list[str] = []
    while version in records and records[version].parent not in line:
        version = records[version].parent
        line.append(version)
    return tuple(line)


def _counted(known: list[Evidence]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for item in known:
        what = (item.set, item.source or item.kind)
        counts[what] = counts.get(what, 0) + 1
    return counts


def _key(row: Row) -> str:
    return str(row["rating_id"] if "rating_id" in row else row["preference_id"])


def _unknown(id: str) -> str:
    if re.match(RESPONSE_ID_PATTERN, id):
        return (
            f"no table knows the response {id}: it was given within the last second or two, was not recorded, or"
            " belongs to another data folder (--data)"
        )
    return (
        f"nothing here has the id {id!r}; a trace begins at a response (chatcmpl-...), a feedback event's id, a rating"
        " or preference (rating-..., pair-...; see `thumbwheel tables show preferences`), or a version (base, v1, ...)"
    )


def moment(value: datetime | None) -> str:
    """A time as people read it."""
    return f"{value.astimezone():%Y-%m-%d %H:%M:%S}" if value else "-"
