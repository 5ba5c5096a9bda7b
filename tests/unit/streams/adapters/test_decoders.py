"""The fast way and the slow way of an event: what the fast one accepts, the slow one accepts, as the same row.

Nothing is asked of the fast way where it passes: the slow way judges then. What it must never do is to accept what
pydantic refuses, or to read something else in it.
"""

import json
import random
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from schemas import tables, topics
from schemas.envelope import Event, decode, encode, new_event
from schemas.errors import InvalidEvent
from schemas.feedback import Feedback, FeedbackKind
from schemas.labels import Candidate, Label, Verdict
from schemas.messages import Closed, Payload
from schemas.outputs import Output
from streams.adapters.columns import event_table
from streams.adapters.decoders import Decoder, Record, Underivable, derive, headers_of, matcher, python_pattern
from streams.adapters.lake import arrow_schema
from tests.integration.ingest_fuzz import KINDS, Mutator, hostile_values, sample

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DECODERS = {topic.name: Decoder(topic.payload) for topic in topics.ALL}
SCHEMAS = {name: arrow_schema(table) for name, table in tables.BY_TOPIC.items()}
RESPONSE = "chatcmpl-" + "0123456789abcdef" * 2


def the_same(topic: str, value: bytes | None, headers: Any) -> Record | None:
    """Hold both ways to the same verdict and row; what the fast way made of it."""
    decoder = DECODERS[topic]
    fast = decoder.fast(value, headers, 7)
    if fast is not None:
        slow = decoder.slow(value, headers_of(headers), 7)
        assert row(topic, fast) == row(topic, slow)
    return fast


def row(topic: str, record: Record) -> dict[str, Any] | str:
    try:
        return event_table(SCHEMAS[topic], [record], partition=3, ingested_at=NOON).to_pylist()[0]
    except (pa.ArrowException, OverflowError):
        return "unstorable"


def message(data: Payload, **more: Any) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    made = encode(new_event(data, source="test", **more))
    return topics.BY_NAME[made.headers[3][1].decode()].name, made.value, made.headers


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@settings(deadline=None)
@given(st.integers(0, 2**63), st.datetimes(timezones=st.just(UTC)))
def test_an_event_of_ours_goes_the_fast_way_and_is_the_row_of_its_table(
    kind: type[Payload], seed: int, time: datetime
) -> None:
    event = new_event(sample(kind, random.Random(seed)), source="test", time=time)
    value, headers = encode(event)[1:]
    topic = f"thumbwheel.{kind.schema_name}.v1"
    fast = the_same(topic, value, headers)
    assert fast is not None
    assert row(topic, fast) == _by_event_row(topic, event)


def _by_event_row(topic: str, event: Event[Payload]) -> dict[str, Any] | str:
    """The definition of a row (`schemas.tables`), without any column builder of ours."""
    made = tables.event_row(event, partition=3, offset=7, ingested_at=NOON)
    try:
        return pa.Table.from_pylist([made], schema=SCHEMAS[topic]).to_pylist()[0]
    except (pa.ArrowException, OverflowError):
        return "unstorable"


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**63), st.sampled_from(KINDS))
def test_a_mutated_message_gets_one_verdict(seed: int, kind: type[Payload]) -> None:
    mutator = Mutator(seed)
    value, headers = mutator.message(sample(kind, mutator.random))
    the_same(f"thumbwheel.{kind.schema_name}.v1", value, headers)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_hostile_value_in_every_field_gets_one_verdict(kind: type[Payload]) -> None:
    topic, value, headers = message(sample(kind))
    plain = json.loads(value)
    for name in [*kind.model_fields, "unheard_of"]:
        for raw in hostile_values():
            others = b",".join(json.dumps({k: v})[1:-1].encode() for k, v in plain.items() if k != name)
            field = json.dumps(name).encode() + b":" + raw
            for text in (b"{" + others + b"," + field + b"}", b"{" + field + b"," + others + b"," + field + b"}"):
                the_same(topic, text, headers)
                the_same(topic, text + b"\n", headers)
                the_same(topic, text + b"x", headers)


TIMES = (
    "2026-11-21T12:00:00.123456Z", "2026-11-21T12:00:00Z", "2026-11-21T12:00:00.5+02:00", "20261121T120000Z",
    "2026-W47-6T12:00:00.123456Z", "2026-11-21 12:00:00.123456Z", "2026-11-21T12:00:00,123456Z", "2026-11-21",
    "2026-11-21T12:00:00.123456", "0001-01-01T00:00:00.000000Z", "0000-01-01T00:00:00.000000Z", "2026-02-30T00:00:00Z",
    "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999-10:00", "0001-01-01T00:00:00.000000+10:00",
    "2026-11-21T24:00:00.000000Z", "2026-11-21T12:60:00.000000Z", "2026-11-21T12:00:60.000000Z", "", "now", "１２",
    "2026-11-21T12:00:00.123456z", "2026-11-21T12:00:00.1234567Z", "2026-11-21T12:00:00.123456Z\n", " 2026-11-21T12Z",
)  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_a_time_gets_one_verdict(text: str) -> None:
    topic, value, headers = message(Feedback(response_id=RESPONSE, kind=FeedbackKind.COPY))
    the_same(topic, value, [(n, text.encode() if n == "ce_time" else v) for n, v in headers])


@settings(deadline=None)
@example([("id", b"other")])
@example([("CE_ID", b"other")])
@example([("ce_traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")])
@example([("tracestate", b"a=b"), ("x-odd", b"\xff")])
@example([("content-type", b"application/cloudevents+json")])
@example([("ce_id", None)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["id", "time", "CE_Type", "ce_id", "ce_source", "traceparent", "Content-Type", "x", "ce_x"]
            ),
            st.none() | st.binary(max_size=12) | st.text(max_size=12).map(str.encode),
        ),
        max_size=4,
    )
)
def test_further_headers_get_one_verdict(more: list[tuple[str, bytes | None]]) -> None:
    topic, value, headers = message(Feedback(response_id=RESPONSE, kind=FeedbackKind.COPY))
    the_same(topic, value, [*headers, *more])
    the_same(topic, value, [*more, *headers])


def test_a_later_schema_is_read_tolerantly() -> None:
    topic, value, headers = message(Feedback(response_id=RESPONSE, kind=FeedbackKind.COPY))
    later = value[:-1] + b',"mood":{"joy":[1,2,{"deep":null}]}}'
    named = [(n, b"urn:thumbwheel:schema:feedback:v2" if n == "ce_dataschema" else v) for n, v in headers]
    record = DECODERS[topic].decode(later, named, 7)
    assert (record.data.response_id, record.data.kind) == (RESPONSE, FeedbackKind.COPY)
    assert the_same(topic, value, named) is not None


def test_a_comment_without_text_is_refused_with_the_models_own_words() -> None:
    topic, value, headers = message(Feedback(response_id=RESPONSE, kind=FeedbackKind.COMMENT, text="well"))
    for text in (b'" \\n"', b'""', b"null"):
        with pytest.raises(InvalidEvent, match="feedback of kind comment needs a non-empty text"):
            DECODERS[topic].decode(value.replace(b'"well"', text), headers, 7)
    assert the_same(topic, value, headers) is not None


def test_a_response_id_with_a_line_feed_behind_it_is_refused() -> None:
    topic, value, headers = message(Feedback(response_id=RESPONSE, kind=FeedbackKind.COPY))
    for odd in (RESPONSE + "\\n", RESPONSE[:-1], RESPONSE + "a", RESPONSE[:-1] + "g", RESPONSE.upper()):
        assert the_same(topic, value.replace(RESPONSE.encode(), odd.encode()), headers) is None


def test_the_busy_topics_have_a_fast_way() -> None:
    fast = {name for name, decoder in DECODERS.items() if decoder.has_fast_way}
    assert {t.name for t in (topics.OUTPUTS, topics.FEEDBACK, topics.LABELS)} <= fast
    assert topics.SLIS.name not in fast  # its times are pydantic's to read


class Odd(Payload):
    schema_name: ClassVar[str] = "odd"


class WithFieldValidator(Odd):
    name: str

    @field_validator("name")
    @classmethod
    def _lower(cls, name: str) -> str:
        return name.lower()


class WithBefore(Odd):
    name: str

    @model_validator(mode="before")
    @classmethod
    def _any(cls, data: Any) -> Any:
        return data


class WithPostInit(Odd):
    name: str

    def model_post_init(self, _context: Any) -> None:
        raise ValueError


class WithAlias(Odd):
    name: str = Field(alias="Name")


class WithChoice(Odd):
    name: int | str


class WithOddPattern(Odd):
    name: Annotated[str, Field(pattern=r"^\d+$")]


@pytest.mark.parametrize(
    "kind",
    [WithFieldValidator, WithBefore, WithPostInit, WithAlias, WithChoice, WithOddPattern],
    ids=lambda k: k.__name__,
)
def test_a_model_that_does_more_than_we_can_promise_has_no_fast_way(kind: type[Payload]) -> None:
    with pytest.raises(Underivable):
        derive(kind)
    assert not Decoder(kind).has_fast_way


class Inner(Closed):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Outer(Payload):
    schema_name: ClassVar[str] = "outer"

    inner: tuple[Inner, ...]
    share: Annotated[float, Field(ge=0, gt=0, le=1, lt=1)]
    kind: Literal["a", "b"] = "a"


def test_validators_of_nested_models_run_and_the_tighter_of_two_bounds_holds() -> None:
    decoder = Decoder(Outer)
    headers = [
        ("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"thumbwheel.outer.v1"),
        ("ce_time", b"2026-11-21T12:00:00Z"),
    ]  # fmt: skip
    good = b'{"inner":[{"low":1,"high":2}],"share":0.5}'
    record = decoder.fast(good, headers, 0)
    assert record is not None
    assert (record.data.inner[0].high, record.data.share, record.data.kind) == (2.0, 0.5, "a")
    for wrong in (
        b'{"inner":[{"low":3,"high":2}],"share":0.5}',
        good.replace(b"0.5", b"0"),
        good.replace(b"0.5", b"1"),
    ):
        assert decoder.fast(wrong, headers, 0) is None
        with pytest.raises(InvalidEvent):
            decode(Outer, wrong, headers)


def test_a_pattern_ends_where_the_text_ends() -> None:
    fits = matcher(python_pattern("^id-[0-9a-f]{4}$"))
    assert [fits(t) for t in ("id-09af", "id-09af\n", "id-09a", "id-09ag", "ID-09af", "id-09aff")] == [True] + [
        False
    ] * 5
    other = matcher(python_pattern("^[a-z]{2,3}-[0-9]{1}$"))
    assert [other(t) for t in ("ab-1", "abcd-1", "ab-1\n")] == [True, False, False]


def test_columns_hold_what_the_models_hold() -> None:
    label = Label(
        task_id="t", labeler_id="l", verdict=Verdict.LEFT, prompt_id="p", prompt=sample(Output).prompt,
        left=Candidate(completion="a", version="v1"), right=Candidate(completion="b"), reasons=("short", "kind"),
        seconds_taken=2.0,
    )  # fmt: skip
    topic, value, headers = message(label)
    record = the_same(topic, value, headers)
    assert record is not None
    made = row(topic, record)
    assert isinstance(made, dict)
    assert (made["left"], made["reasons"], made["verdict"]) == (
        {"completion": "a", "response_id": None, "version": "v1"}, ["short", "kind"], "left",
    )  # fmt: skip
