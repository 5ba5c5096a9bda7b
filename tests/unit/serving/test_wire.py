"""What a request may say, and how a refusal names the field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.records import FeedbackRequest
from serving.core.wire import ChatRequest, Limits, RequestRefused, parse, sampling

LIMITS = Limits(default_temperature=0.8, default_max_tokens=128, max_completion_tokens=512)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
USER = {"role": "user", "content": "hi"}


def chat(**fields: object) -> ChatRequest:
    return parse(ChatRequest, json.dumps({"model": "thumbwheel", "messages": [USER]} | fields).encode())


def refused(**fields: object) -> tuple[str, str | None]:
    with pytest.raises(RequestRefused) as caught:
        sampling(chat(**fields), LIMITS)
    assert caught.value.status == 400
    return caught.value.code, caught.value.param


def test_what_is_left_out_is_filled_in() -> None:
    drawn = sampling(chat(), LIMITS)
    assert (drawn.temperature, drawn.top_p, drawn.max_tokens, drawn.stop, drawn.seed) == (0.8, 1.0, 128, (), None)


def test_the_newer_name_of_the_token_limit_goes_before_the_older() -> None:
    assert sampling(chat(max_tokens=5), LIMITS).max_tokens == 5
    assert sampling(chat(max_tokens=5, max_completion_tokens=7), LIMITS).max_tokens == 7


def test_parts_of_text_are_one_message_and_a_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = chat(messages=[{"role": "developer", "content": parts}]).chat_messages()[0]
    assert (message.role, message.content) == ("system", "a\nb")


@pytest.mark.parametrize(
    "fields",
    [
        {
            "n": 1,
            "frequency_penalty": 0,
            "presence_penalty": 0.0,
            "logprobs": False,
            "tools": [],
            "tool_choice": "auto",
        },
        {"response_format": {"type": "text"}, "service_tier": "auto", "logit_bias": {}, "functions": None},
        {"seed": None, "metadata": {"segment": "de"}, "user": "u", "store": True, "stop": ["a", "b"]},
    ],
)
def test_what_official_clients_send_by_habit_is_accepted(fields: dict[str, object]) -> None:
    sampling(chat(**fields), LIMITS)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temprature": 1}, "unknown_field", "temprature"),
        ({"messages": [USER | {"mood": "good"}]}, "unknown_field", "messages.0.mood"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "invalid_value", None),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages.0.role"),
        ({"temperature": "1"}, "invalid_type", "temperature"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 513}, "invalid_value", "max_tokens"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"n": 2}, "unsupported_value", "n"),
        ({"n": True}, "unsupported_value", "n"),
        ({"tools": [{}]}, "unsupported_value", "tools"),
        ({"logprobs": True}, "unsupported_value", "logprobs"),
        ({"response_format": {"type": "json_object"}}, "unsupported_value", "response_format"),
        ({"metadata": {"segment": ""}}, "invalid_value", "metadata"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, object], code: str, param: str | None) -> None:
    assert refused(**fields) == (code, param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"model": NaN}', b'"\\ud800"', b"[" * 5000]
)
def test_bytes_that_are_no_request_are_refused(body: bytes) -> None:
    for kind in (ChatRequest, FeedbackRequest):
        with pytest.raises(RequestRefused):
            parse(kind, body)


@given(ANY_JSON)
def test_any_json_either_is_a_request_or_is_refused(value: object) -> None:
    for field in ("messages", "temperature", "stop", "metadata", "tools", "seed", "stream_options"):
        try:
            sampling(chat(**{field: value}), LIMITS)
        except RequestRefused as refusal:
            assert refusal.status == 400


def test_a_correction_needs_its_text() -> None:
    body = {"response_id": "chatcmpl-" + "0" * 32, "kind": "correction"}
    with pytest.raises(RequestRefused, match="needs a non-empty text"):
        parse(FeedbackRequest, json.dumps(body).encode())
    assert parse(FeedbackRequest, json.dumps(body | {"text": "better"}).encode()).text == "better"
