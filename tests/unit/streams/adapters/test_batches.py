"""Many at once, and each by itself: what is taken in a batch is taken one by one, as the same rows."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import tables, topics
from schemas.envelope import MAX_VALUE_BYTES, encode, new_event
from schemas.feedback import Feedback, FeedbackKind
from schemas.messages import Payload
from streams.adapters.batches import FEWEST, BatchDecoder, all_matcher
from streams.adapters.columns import event_table
from streams.adapters.decoders import Decoder, headers_of, matcher
from streams.adapters.lake import arrow_schema
from tests.integration.ingest_fuzz import KINDS, Mutator, hostile_values, sample
from tests.unit.streams.adapters.test_decoders import RESPONSE, TIMES

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
SCHEMAS = {name: arrow_schema(table) for name, table in tables.BY_TOPIC.items()}
BATCHES = {t.name: BatchDecoder(t.payload, SCHEMAS[t.name]) for t in topics.ALL if t.name in SCHEMAS}
DECODERS = {t.name: Decoder(t.payload) for t in topics.ALL}
FEEDBACK = topics.FEEDBACK.name

Message = tuple[bytes | None, Any]


def name_of(kind: type[Payload]) -> str:
    return f"thumbwheel.{kind.schema_name}.v1"


def good(kind: type[Payload] = Feedback, count: int = FEWEST, seed: int = 0, **more: Any) -> list[Message]:
    random_ = random.Random(seed)
    return [encode(new_event(sample(kind, random_), source="test", **more))[1:] for _ in range(count)]


def at_once(topic: str, messages: Sequence[Message]) -> pa.Table | None:
    """What the batch is; where it is something, it is held against each message by the slow way."""
    values, headers = [value for value, _ in messages], [pairs for _, pairs in messages]
    offsets = range(100, 100 + len(messages))
    found = BATCHES[topic].decode(values, headers, offsets, partition=3, ingested_at=NOON)
    if found is None:
        return None
    ids, rows = found
    slow = DECODERS[topic].slow
    records = [slow(v, headers_of(h), n) for v, h, n in zip(values, headers, offsets, strict=True)]
    assert ids == [record.id for record in records]
    assert rows.equals(event_table(SCHEMAS[topic], records, partition=3, ingested_at=NOON))
    return rows


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**63), st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))
def test_plain_events_go_at_once(kind: type[Payload], seed: int, time: datetime) -> None:
    # A whole second is written without its fraction, and is left to the slow way.
    rows = at_once(name_of(kind), good(kind, seed=seed, time=time.replace(microsecond=time.microsecond or 1)))
    assert rows is not None
    assert rows.num_rows == FEWEST


def test_events_with_and_without_a_trace_go_together() -> None:
    rows = at_once(FEEDBACK, good() + good(seed=1, traceparent=TRACE))
    assert rows is not None
    assert rows.column("traceparent").to_pylist() == [None] * FEWEST + [TRACE] * FEWEST


def test_few_are_left_to_the_other_way() -> None:
    assert at_once(FEEDBACK, good(count=FEWEST - 1)) is None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**63), st.sampled_from(KINDS), st.integers(0, FEWEST))
def test_one_mutated_message_in_a_batch_gets_the_verdict_that_it_gets_alone(
    seed: int, kind: type[Payload], place: int
) -> None:
    mutator = Mutator(seed)
    messages = good(kind, seed=seed)
    messages.insert(place, mutator.message(sample(kind, mutator.random)))
    at_once(name_of(kind), messages)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_a_hostile_value_in_a_batch_gets_the_verdict_that_it_gets_alone(kind: type[Payload]) -> None:
    others = good(kind)
    (value, headers), *_ = good(kind, count=1, seed=5)
    assert value is not None
    for raw in hostile_values():
        for name in [*kind.model_fields, "unheard_of"]:
            for text in (value[:-1] + b',"' + name.encode() + b'":' + raw + b"}", b"{" + raw + b"}", raw):
                at_once(name_of(kind), [*others, (text, headers)])


WHOLE = '{"response_id":"%s","kind":"copy"}'
CUTS: list[list[str]] = [
    ['{"response_id":"%s"', ',"kind":"copy"}'],
    [WHOLE[:-1], "}"],
    ['{"response_id":"%s","kind":"copy","text":"}', '{"}'],
    ['{"response_id":"%s","kind":"copy","unknown":{}', "{}}"],
    [WHOLE + WHOLE, ""],
    [WHOLE + WHOLE, " "],
    [WHOLE + "\n" + WHOLE, ""],
    ["", WHOLE + " " + WHOLE],
    [WHOLE + WHOLE],
    # A line feed too many here, one too few there.
    [WHOLE + "\n" + WHOLE, '{"response_id":"%s"', ',"kind":"copy"}'],
]


@pytest.mark.parametrize("texts", CUTS, ids=" / ".join)
@pytest.mark.parametrize("at", [0, 7, FEWEST])
def test_lines_are_never_mixed_up(texts: list[str], at: int) -> None:
    messages = good()
    odd = [(text.replace("%s", RESPONSE).encode(), messages[0][1]) for text in texts]
    assert at_once(FEEDBACK, [*messages[:at], *odd, *messages[at:]]) is None


def test_a_value_that_is_too_large_is_no_part_of_a_batch() -> None:
    (value, headers), *others = good(count=FEWEST + 1)
    assert value is not None
    large = value[:-1] + b" " * MAX_VALUE_BYTES + b"}"
    assert at_once(FEEDBACK, [*others, (large, headers)]) is None


@pytest.mark.parametrize("text", [*TIMES, "2026-11-21T12:00:00.12345Z6", "2026-11-21T12:00:00.123456"])
def test_a_time_in_a_batch_gets_the_verdict_that_it_gets_alone(text: str) -> None:
    (value, headers), *others = good()
    odd = [(n, text.encode() if n == "ce_time" else v) for n, v in headers]
    at_once(FEEDBACK, [*others, (value, odd), others[0]])


def test_two_times_of_other_lengths_that_make_up_for_each_other_are_seen() -> None:
    messages = good(count=FEWEST + 2)
    for at, text in ((3, b"2026-11-21T12:00:00.123456"), (4, b"Z2026-11-21T12:00:00.123456Z")):
        value, headers = messages[at]
        messages[at] = (value, [(n, text if n == "ce_time" else v) for n, v in headers])
    assert at_once(FEEDBACK, messages) is None


ODD_HEADERS: dict[str, Any] = {
    "none": None,
    "empty": (),
    "no time": ("ce_time", None),
    "no source": ("ce_source", None),
    "an empty source": ("ce_source", b""),
    "a source that is no text": ("ce_source", b"\xff"),
    "an id over two lines": ("ce_id", b"a\nb"),
    "an empty id": ("ce_id", b""),
    "a long id": ("ce_id", b"a" * 201),
    "an id that is no text": ("ce_id", b"\xff"),
    "a subject that is no text": ("ce_subject", b"\xff"),
    "a schema that is no text": ("ce_dataschema", b"\xff"),
    "another type": ("ce_type", b"thumbwheel.output.v1"),
    "another version": ("ce_specversion", b"0.3"),
    "another content": ("content-type", b"application/cloudevents+json"),
}


@pytest.mark.parametrize("odd", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_in_a_batch_get_the_verdict_that_they_get_alone(odd: Any) -> None:
    (value, headers), *others = good(count=FEWEST + 1)
    if isinstance(odd, tuple) and odd:
        odd = [(n, odd[1] if n == odd[0] else v) for n, v in headers]
    assert at_once(FEEDBACK, [*others, (value, odd)]) is None


@pytest.mark.parametrize("more", [("x", b"1"), ("traceparent", b"\xff"), ("ce_id", b"other"), ("TraceParent", b"")])
def test_a_further_header_gets_the_verdict_that_it_gets_alone(more: tuple[str, bytes]) -> None:
    (value, headers), *others = good(count=FEWEST + 1)
    assert at_once(FEEDBACK, [*others, (value, [*headers, more])]) is None
    assert at_once(FEEDBACK, [*others, (value, [more, *headers[1:]])]) is None


def test_a_comment_without_text_is_no_part_of_a_batch() -> None:
    (_, headers), *others = good(count=FEWEST + 1)
    empty = Feedback.model_construct(response_id=RESPONSE, kind=FeedbackKind.COMMENT, text=" ")
    assert at_once(FEEDBACK, [*others, (empty.model_dump_json(exclude_none=True).encode(), headers)]) is None


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_time", "ce_subject", "content-type"])
def test_a_header_by_another_name_is_not_taken_for_one_of_ours(name: str) -> None:
    (value, headers), *others = good(count=FEWEST + 1)
    assert at_once(FEEDBACK, [*others, (value, [(n + "x" if n == name else n, v) for n, v in headers])]) is None


def test_one_text_beside_a_pattern_is_seen_among_many() -> None:
    fit = all_matcher(r"^ax-[0-9a-f]{3}\Z")
    right: list[str | None] = ["ax-0f9", None, "ax-aaa"]
    assert fit(right)
    assert fit([])
    assert fit([None])
    for wrong in ("ax-0f", "ax-0f90", "ax-0fg", "ax-0f-", "aax-0f", "0ax-0f", "xa-0f9", "ax-0fü", "", "ax-0f\n"):
        assert not fit([*right, wrong])
        assert not fit([wrong, *right])
    assert not fit([*right, "ax-0f", "ax-0f99"])
    assert not fit([*right, "ax-0f", "aax-0ff"])


@given(st.lists(st.none() | st.from_regex(r"\Ax-[0-9a-f]{4}\Z") | st.text("x-0af\n\u00fc", max_size=7)))
def test_a_pattern_of_many_texts_is_that_of_each(texts: list[str | None]) -> None:
    for pattern in (r"^x-[0-9a-f]{4}\Z", r"^x-?[0-9a-f]+\Z"):
        one = matcher(pattern)
        assert all_matcher(pattern)(texts) == all(text is None or one(text) for text in texts)
