import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import MAX_VALUE_BYTES, Message, decode, encode, new_event
from schemas.errors import InvalidEvent
from schemas.feedback import Feedback, FeedbackKind
from schemas.outputs import Output

RESPONSE = "chatcmpl-" + "0" * 32
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def message(**changes: str) -> Message:
    """A thumb in binary mode, with some header replaced."""
    event = new_event(Feedback(response_id=RESPONSE, kind=FeedbackKind.THUMBS_UP), source="test", traceparent=TRACE)
    key, value, headers = encode(event)
    return Message(key, value, [(n, changes.get(n, v.decode()).encode()) for n, v in headers])


def reason_of(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> str:
    with pytest.raises(InvalidEvent) as caught:
        decode(Feedback, value, headers)
    return caught.value.reason


@given(
    text=st.none() | st.text(max_size=50),
    user=st.none() | st.text(min_size=1, max_size=200),
    time=st.datetimes(timezones=st.just(UTC)),
)
def test_what_is_written_is_read_back(text: str | None, user: str | None, time: datetime) -> None:
    data = Feedback(response_id=RESPONSE, kind=FeedbackKind.FLAG, text=text, user_id=user)
    event = new_event(data, source="test", time=time, traceparent=TRACE)
    written = encode(event)
    assert decode(Feedback, written.value, written.headers) == event


@given(
    value=st.binary(max_size=200), content_type=st.sampled_from(["application/json", "application/cloudevents+json"])
)
def test_any_bytes_are_an_event_or_an_invalid_event(value: bytes, content_type: str) -> None:
    headers = message(**{"content-type": content_type}).headers
    with pytest.raises(InvalidEvent):
        decode(Feedback, value, headers)


def test_a_field_of_a_later_release_is_passed_over() -> None:
    written = message()
    value = json.dumps({**json.loads(written.value), "mood": "sunny"}).encode()
    assert decode(Feedback, value, written.headers).data.kind is FeedbackKind.THUMBS_UP


def test_a_nested_field_of_a_later_release_is_passed_over() -> None:
    prompt = [{"role": "user", "content": "hi", "name": "ada"}]
    value = {
        "response_id": RESPONSE, "prompt_id": "p", "prompt": prompt, "completion": "hello", "version": "base",
        "base_model": "tiny", "temperature": 1, "max_completion_tokens": 4, "finish_reason": "stop",
        "input_tokens": 1, "output_tokens": 1, "latency_seconds": 0.1,
    }  # fmt: skip
    headers = message(ce_type="thumbwheel.outputs.v1").headers
    assert decode(Output, json.dumps(value).encode(), headers).data.prompt[0].content == "hi"


@pytest.mark.parametrize(
    ("header", "text", "reason"),
    [
        ("ce_id", "", "missing_attribute"),
        ("ce_id", "x" * 201, "bad_id"),
        ("ce_specversion", "2.0", "spec_version"),
        ("ce_type", "thumbwheel.outputs.v1", "wrong_type"),
        ("ce_time", "yesterday", "bad_time"),
        ("ce_time", "2026-11-21T10:00:00", "bad_time"),
    ],
)
def test_a_wrong_attribute_is_named_by_its_reason(header: str, text: str, reason: str) -> None:
    written = message(**{header: text})
    assert reason_of(written.value, list(written.headers)) == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty_value"),
        (b"", "empty_value"),
        (b"{", "malformed_json"),
        (b'{"response_id": "nope", "kind": "thumbs_up"}', "invalid_payload"),
        (b'{"response_id": "' + RESPONSE.encode() + b'", "kind": "comment"}', "invalid_payload"),
        (b'{"response_id": "' + RESPONSE.encode() + b'", "kind": "thumbs_up", "text": "\xff"}', "malformed_json"),
        (b" " * (MAX_VALUE_BYTES + 1), "oversize"),
    ],
)
def test_a_wrong_value_is_named_by_its_reason(value: bytes | None, reason: str) -> None:
    assert reason_of(value, list(message().headers)) == reason


def test_a_header_that_is_not_utf8_is_named_by_its_reason() -> None:
    assert reason_of(b"{}", [("ce_id", b"\xff")]) == "not_utf8"


def test_a_malformed_traceparent_is_left_out_rather_than_refused() -> None:
    written = message(traceparent="nonsense")
    assert decode(Feedback, written.value, written.headers).traceparent is None


def test_times_are_read_in_any_zone_as_utc() -> None:
    written = message(ce_time="2026-11-21T12:30:00+02:00")
    assert decode(Feedback, written.value, written.headers).time == datetime(2026, 11, 21, 10, 30, tzinfo=UTC)


def test_a_not_a_number_in_a_payload_is_refused() -> None:
    written = message(ce_type="thumbwheel.outputs.v1")
    with pytest.raises(InvalidEvent):
        decode(Output, b'{"temperature": NaN}', written.headers)
