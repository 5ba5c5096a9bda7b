"""The table definitions: layer, columns, and the topic a table is appended from.

Columns come from pydantic models by one rule, so that an event and its row can't drift apart, and are published
in Delta's own schema language (JSON), from which the lake adapters derive the Arrow schema:
`pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())`.

Bronze is appended as it came. Silver and gold rows are *revisions*: a row with the same id and a higher `revision`
replaces the earlier one, and one with `retracted` removes it. Readers take the latest revision of each id.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from schemas import topics
from schemas.envelope import Event
from schemas.labels import LabelTask
from schemas.messages import Closed, Identifier, Payload, Prompt, Text
from schemas.outputs import Output, ResponseId
from schemas.preferences import PreferenceSource


class EnvelopeColumns(Closed):
    """The columns that every table appended from a topic begins with."""

    event_id: Identifier
    event_time: datetime
    event_source: str
    traceparent: str | None = None
    kafka_partition: int
    kafka_offset: int
    ingested_at: datetime


class DeadLetterRow(Closed):
    """A message that was no event of its topic: the bytes as they came, and why."""

    dead_letter_id: Identifier
    topic: str
    kafka_partition: int
    kafka_offset: int
    reason: str
    detail: str
    key: bytes | None = None
    value: bytes | None = None
    headers: str
    failed_at: datetime


class Discount(StrEnum):
    """Why a judgement counts for nothing: one of too many in a minute, or the same one again on the same text."""

    BURST = "burst"
    DUPLICATE = "duplicate"


class Vote(Closed):
    """One rater's present thumb on a response: 1 or -1, and the event that gave it."""

    event_id: Identifier
    rater_id: Identifier | None = None
    value: int
    at: datetime
    discounted: Discount | None = None


class ResponseRow(Output):
    """Silver: an output with all that was said of it so far.

    `votes` are the thumbs that stand now; `thumb` is what they come to (1, -1, or null where there is none or they
    cancel out), and `thumb_weight` how far they agree (between 0 and 1; null in rows older than the column).
    """

    event_time: datetime
    revision: Annotated[int, Field(ge=1)]
    retracted: bool = False
    thumb: int | None = None
    rater_id: Identifier | None = None
    rated_at: datetime | None = None
    thumb_weight: float | None = None
    votes: tuple[Vote, ...] | None = None
    comment: Text | None = None
    correction: Text | None = None
    corrected_by: Identifier | None = None
    corrected_at: datetime | None = None
    correction_event_id: Identifier | None = None
    edited: Text | None = None
    flags: int = 0
    copies: int = 0
    regenerations: int = 0
    feedback_count: int = 0


class _Judgement(Closed):
    """`evidence` are the ids of the bronze events (feedback or labels) that it rests on, oldest first. `weight` is what
    the source is worth times how far its judges agree; the raters' own weights are in `gold/annotators`."""

    revision: Annotated[int, Field(ge=1)]
    retracted: bool = False
    prompt_id: Identifier
    prompt: Prompt
    weight: Annotated[float, Field(ge=0)]
    source: PreferenceSource
    rater_id: Identifier | None = None
    judged_at: datetime
    tenant: Identifier | None = None
    discounted: Discount | None = None
    evidence: tuple[Identifier, ...] | None = None


class RatingRow(_Judgement):
    """Gold, unpaired (TRL: prompt, completion, label). One row id for each response that carries a thumb."""

    rating_id: Identifier
    completion: Text
    label: bool
    response_id: ResponseId
    version: Identifier


class PreferenceRow(_Judgement):
    """Gold, paired (TRL: prompt, chosen, rejected)."""

    preference_id: Identifier
    chosen: Text
    rejected: Text
    chosen_response_id: ResponseId | None = None
    rejected_response_id: ResponseId | None = None
    chosen_version: Identifier | None = None
    rejected_version: Identifier | None = None


class LabelQueueRow(LabelTask):
    """Gold: a label task as it was queued."""

    queued_at: datetime


class ScoreRow(Closed):
    """Gold: what one reward model says of one production answer; `head_scores` has one score for each head."""

    response_id: ResponseId
    prompt_id: Identifier
    version: Identifier
    reward_model: Identifier
    head_scores: tuple[float, ...]
    scored_at: datetime


class AnnotatorRow(Closed):
    """Gold: how far one rater or labeler can be trusted, from where they judged what others judged too.

    `reliability` is the estimated chance that their judgement is right (Dawid-Skene), between `low` and `high`
    (95 %); `weight` is what their judgements are multiplied by when something learns from them. Only those of whom
    there is something to say have a row: who is not here weighs 1. `rater_id` is an `annotator_id`; `estimated_at`
    is the time of the newest judgement that the row rests on, so that a rebuild comes to the same row.
    """

    rater_id: Identifier
    revision: Annotated[int, Field(ge=1)]
    retracted: bool = False
    kind: Literal["user", "labeler"]
    judgements: int
    overlapping: int
    gold_asked: int = 0
    gold_right: int = 0
    bursts: int = 0
    duplicates: int = 0
    reliability: float
    low: float
    high: float
    weight: Annotated[float, Field(ge=0)]
    estimated_at: datetime


def annotator_id(kind: Literal["user", "labeler"], rater_id: str, tenant: str | None = None) -> str:
    """The key of a rater in `gold/annotators`. Two tenants' users, or a user and a labeler, may have the same id."""
    if kind == "labeler":
        return f"labeler:{rater_id}"
    return rater_id if tenant is None else f"{tenant}/{rater_id}"


class Layer(StrEnum):
    """Bronze: as it came. Silver: joined. Gold: what decisions are made from."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


@dataclass(frozen=True)
class Table:
    """One Delta table. `row` holds its columns, `key` is its row id, `topic` what it is appended from, if any."""

    name: str
    layer: Layer
    row: type[BaseModel]
    key: str
    topic: topics.Topic | None = None

    @property
    def path(self) -> str:
        """The table's path below the lake's root."""
        return f"{self.layer}/{self.name}"

    def columns(self) -> dict[str, tuple[Any, bool]]:
        """Name -> (annotation, nullable), in order."""
        models = (EnvelopeColumns, self.row) if self.topic else (self.row,)
        return {name: _nullable(f.annotation) for model in models for name, f in model.model_fields.items()}

    def delta_schema(self) -> str:
        """The table's schema as Delta writes it (JSON)."""
        fields = [_field(name, kind, nullable) for name, (kind, nullable) in self.columns().items()]
        return json.dumps({"type": "struct", "fields": fields})


def _appended(topic: topics.Topic, layer: Layer) -> Table:
    assert topic.table is not None
    return Table(topic.table, layer, topic.payload, "event_id", topic)


OUTPUTS = _appended(topics.OUTPUTS, Layer.BRONZE)
FEEDBACK = _appended(topics.FEEDBACK, Layer.BRONZE)
LABELS = _appended(topics.LABELS, Layer.BRONZE)
DEAD_LETTERS = Table("dead_letters", Layer.BRONZE, DeadLetterRow, "dead_letter_id")
RESPONSES = Table("responses", Layer.SILVER, ResponseRow, "response_id")
RATINGS = Table("ratings", Layer.GOLD, RatingRow, "rating_id")
PREFERENCES = Table("preferences", Layer.GOLD, PreferenceRow, "preference_id")
ANNOTATORS = Table("annotators", Layer.GOLD, AnnotatorRow, "rater_id")
LABEL_QUEUE = Table("label_queue", Layer.GOLD, LabelQueueRow, "task_id")
SCORES = Table("scores", Layer.GOLD, ScoreRow, "response_id")
VERSIONS = _appended(topics.MODEL_VERSIONS, Layer.GOLD)
CYCLES = _appended(topics.CYCLES, Layer.GOLD)
SLIS = _appended(topics.SLIS, Layer.GOLD)
ALERTS = _appended(topics.ALERTS, Layer.GOLD)
AUDIT = _appended(topics.AUDIT, Layer.GOLD)

ALL = (
    OUTPUTS, FEEDBACK, LABELS, DEAD_LETTERS, RESPONSES, RATINGS, PREFERENCES,
    ANNOTATORS, LABEL_QUEUE, SCORES, VERSIONS, CYCLES, SLIS, ALERTS, AUDIT,
)  # fmt: skip
BY_NAME = {table.name: table for table in ALL}
BY_TOPIC = {table.topic.name: table for table in ALL if table.topic}


def event_row(event: Event[Payload], *, partition: int, offset: int, ingested_at: datetime) -> dict[str, Any]:
    """The row of a table appended from a topic: envelope columns, then the payload's (enums as their texts)."""
    return {
        "event_id": event.id,
        "event_time": event.time,
        "event_source": event.source,
        "traceparent": event.traceparent,
        "kafka_partition": partition,
        "kafka_offset": offset,
        "ingested_at": ingested_at,
    } | event.data.model_dump()


_PRIMITIVES: Mapping[Any, str] = {
    str: "string", int: "long", float: "double", bool: "boolean", datetime: "timestamp", bytes: "binary",
}  # fmt: skip


def _nullable(annotation: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); anything else -> (itself, False)."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = [a for a in typing.get_args(annotation) if a is not type(None)]
        assert len(kinds) == 1, f"a column can hold one kind of value, not {annotation}"
        return kinds[0], True
    return annotation, False


def _field(name: str, annotation: Any, nullable: bool) -> dict[str, Any]:
    return {"name": name, "type": _delta_type(annotation), "nullable": nullable, "metadata": {}}


def _delta_type(annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _delta_type(arguments[0])
    if origin is typing.Literal:
        return "string"
    if origin is tuple:
        return {"type": "array", "elementType": _delta_type(arguments[0]), "containsNull": False}
    if origin is dict:
        return {
            "type": "map",
            "keyType": "string",
            "valueType": _delta_type(arguments[1]),
            "valueContainsNull": False,
        }
    if annotation in _PRIMITIVES:
        return _PRIMITIVES[annotation]
    if issubclass(annotation, StrEnum):
        return "string"
    assert issubclass(annotation, BaseModel), f"no column type for {annotation}"
    fields = [_field(n, *_nullable(f.annotation)) for n, f in annotation.model_fields.items()]
    return {"type": "struct", "fields": fields}
