"""The contract of the way over Kafka: what the SDK writes is what the platform's own code writes and reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import envelope, feedback, outputs, topics
from schemas.consent import Purpose
from serving.core import pseudonyms
from thumbwheel_client import Feedback, Kind, Message, Output, SettingsError, Thumbwheel
from thumbwheel_client.kafka import KafkaTransport, encode
from thumbwheel_client.outcomes import Rejected, Retry
from thumbwheel_client.privacy import redacted
from thumbwheel_client.pseudonyms import protected
from thumbwheel_redaction import Redactor

ANSWER = "chatcmpl-" + "0" * 32
PUBLISHED = Path(__file__).parents[3] / "schemas" / "published"
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def validator(topic: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((PUBLISHED / f"{topic}.json").read_text()))


SAID = validator("thumbwheel.feedback.v1")
GIVEN = validator("thumbwheel.outputs.v1")


def test_the_kinds_and_topics_are_the_platforms() -> None:
    assert [kind.value for kind in Kind] == [kind.value for kind in feedback.FeedbackKind]
    event = Feedback(response_id=ANSWER, kind=Kind.FLAG)
    answer = Output(model="m", messages=(Message("user", "hi"),), completion="x")
    assert [encode(event).topic, encode(answer).topic] == [topics.FEEDBACK.name, topics.OUTPUTS.name]


@given(
    kind=st.sampled_from(Kind),
    text=WORDS.filter(str.strip),
    user=st.none() | WORDS,
    purposes=st.none() | st.lists(st.sampled_from(["training", "labeling"]), unique=True),
    trace=st.sampled_from([None, TRACE]),
)
def test_feedback_is_byte_for_byte_what_the_platform_writes(
    kind: Kind, text: str, user: str | None, purposes: list[str] | None, trace: str | None
) -> None:
    agreed = None if purposes is None else tuple(purposes)
    event = Feedback(response_id=ANSWER, kind=kind, text=text, user=user, purposes=agreed, traceparent=trace)
    message = encode(event)
    payload = feedback.Feedback(
        response_id=ANSWER,
        kind=feedback.FeedbackKind(kind.value),
        text=text,
        user_id=user,
        purposes=None if agreed is None else tuple(Purpose(p) for p in agreed),
    )
    time = datetime.fromtimestamp(event.at, UTC)
    whole = envelope.new_event(payload, source="thumbwheel-client", id=event.id, time=time, traceparent=trace)
    assert message[1:] == tuple(envelope.encode(whole))
    assert envelope.decode(feedback.Feedback, message.value, message.headers) == whole
    SAID.validate(json.loads(message.value))


@given(
    turns=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), WORDS), min_size=1, max_size=4),
    completion=WORDS,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    tokens=st.none() | st.integers(0, 10_000),
    metadata=st.none() | st.dictionaries(st.sampled_from(["segment", "regenerates", "x"]), st.text(max_size=250)),
    reason=st.sampled_from([None, "stop", "length"]),
)
def test_any_answer_is_one_that_the_platform_reads(
    turns: list[tuple[Any, str]],
    completion: str,
    temperature: float | None,
    top_p: float | None,
    tokens: int | None,
    metadata: dict[str, str] | None,
    reason: Any,
) -> None:
    event = Output(
        model="m-1",
        messages=tuple(Message(role, content) for role, content in turns),
        completion=completion,
        temperature=temperature,
        top_p=top_p,
        completion_tokens=tokens,
        metadata=metadata,
        finish_reason=reason,
        request_id="r-1",
    )
    message = encode(event)
    GIVEN.validate(json.loads(message.value))
    read = envelope.decode(outputs.Output, message.value, message.headers)
    assert read.data.completion == completion
    assert (read.data.version, read.data.base_model, read.data.request_id) == ("external/m-1", "m-1", "r-1")
    assert read.data.temperature == (1.0 if temperature is None else temperature)
    assert message.key.decode() == event.response_id


def test_personal_data_is_taken_out_of_all_texts_consistently() -> None:
    talk = (Message("user", "I am ann@example.org"), Message("assistant", "Hello ann@example.org"))
    event = Output(model="m", messages=talk, completion="bye ann@example.org", metadata={"segment": "ann@example.org"})
    kept = redacted(event, Redactor())
    assert isinstance(kept, Output)
    assert [m.content for m in kept.messages] == ["I am [EMAIL_1]", "Hello [EMAIL_1]"]
    assert (kept.completion, dict(kept.metadata or {})) == ("bye [EMAIL_1]", {"segment": "[EMAIL_1]"})
    said = redacted(Feedback(response_id=ANSWER, kind=Kind.COMMENT, text="mail ann@example.org"), Redactor())
    assert isinstance(said, Feedback)
    assert said.text == "mail [EMAIL_1]"


@given(
    st.text(max_size=40)
    | st.sampled_from(["ann@example.org", " Ann@Example.org", "+49 170 1234567", "10.0.0.1", "::1", "u42"])
)
def test_a_personal_user_id_gets_the_gateways_pseudonym_and_none_without_a_key(user: str) -> None:
    assert protected(user, b"key") == pseudonyms.protected(user, b"key")
    assert protected(user, None) == (None if pseudonyms.is_personal(user) else user)


def test_settings_that_no_producer_takes_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match="no Kafka producer"):
        Thumbwheel.over_kafka("127.0.0.1:9", config={"no.such.setting": 1})


def test_a_broker_that_does_not_answer_is_tried_again_and_an_event_too_large_is_not() -> None:
    transport = KafkaTransport("127.0.0.1:9", redactor=None, timeout=0.2, config={"log_level": 0})
    small = Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP)
    messages = tuple(Message("user", "x" * 200_000) for _ in range(6))
    large = Output(model="m", messages=messages, completion="x")
    fates = transport.send([small, large])
    assert [type(fate) for fate in fates] == [Retry, Rejected]
    transport.close()
