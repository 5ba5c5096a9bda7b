"""What can be sent, and what is refused before it is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from thumbwheel_client import Feedback, InvalidEvent, Kind, Message, Output
from thumbwheel_client.events import dumps, loads
from thumbwheel_client.ids import new_event_id, prompt_id, uuid7
from thumbwheel_client.transport import feedback_body, output_body

ANSWER = "chatcmpl-" + "0" * 32
TEXTS = st.text(st.characters(), max_size=30)  # halves of surrogate pairs included
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    text=st.none() | TEXTS,
    user=st.none() | WORDS,
    purposes=st.none() | st.lists(st.sampled_from(["training", "labeling"])),
    at=st.floats(0, 4e9),
)
def test_feedback_comes_back_from_the_spool_as_it_was(
    text: str | None, user: str | None, purposes: list[str] | None, at: float
) -> None:
    event = Feedback(
        response_id=ANSWER,
        kind=Kind.FLAG,
        text=text,
        user=user,
        purposes=None if purposes is None else tuple(purposes),
        at=at,
    )
    line = dumps(event)
    assert loads(line) == event
    assert b"\n" not in line


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), min_size=1, max_size=5), TEXTS)
def test_an_answer_comes_back_from_the_spool_as_it_was(turns: list[tuple[str, str]], completion: str) -> None:
    messages = tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
    event = Output(model="m", messages=messages, completion=completion, metadata={"a": "b"}, temperature=0.5)
    assert loads(dumps(event)) == event


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
def test_a_line_that_is_no_event_is_refused_in_one_way(line: bytes) -> None:
    with pytest.raises(InvalidEvent):
        loads(line)


def test_a_line_of_a_newer_release_is_read_without_what_this_one_does_not_know() -> None:
    line = dumps(Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP, id="x"))
    newer = line.replace(b'"kind"', b'"mood":"calm","kind"')
    assert loads(newer) == loads(line)


def test_half_a_surrogate_pair_becomes_a_replacement_character_and_a_whole_one_a_character() -> None:
    event = Feedback(response_id=ANSWER, kind=Kind.COMMENT, text="a\ud83d b\ud83d\ude00")
    assert event.text == "a\ufffd b\U0001f600"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"response_id": "7"}, "no response id"),
        ({"kind": "applause"}, "unknown kind"),
        ({"kind": "comment"}, "non-empty text"),
        ({"kind": "edit", "text": "  "}, "non-empty text"),
        ({"text": "x" * 200_001}, "200001 characters"),
        ({"text": b"bytes"}, "must be a text"),
        ({"user": ""}, "1 to 200"),
        ({"id": "x" * 201}, "1 to 200"),
        ({"purposes": ("fun",)}, "unknown purpose"),
        ({"at": float("nan")}, "Unix seconds"),
        ({"at": 1e18}, "Unix seconds"),
        ({"at": "now"}, "Unix seconds"),
    ],
)
def test_mistakes_are_refused_with_words_that_help(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidEvent, match=words):
        Feedback(**({"response_id": ANSWER, "kind": "thumbs_up"} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ()},
        {"messages": (Message("tool", "x"),)},  # type: ignore[arg-type]
        {"model": ""},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"prompt_tokens": -1},
        {"completion_tokens": True},
    ],
)
def test_an_answer_that_the_gateway_would_refuse_is_refused_here(change: dict[str, object]) -> None:
    good = {"model": "m", "messages": (Message("user", "hi"),), "completion": "x"}
    with pytest.raises(InvalidEvent):
        Output(**(good | change))  # type: ignore[arg-type]


def test_metadata_keeps_what_the_gateway_takes() -> None:
    labels = {f"k{n:02}": "v" for n in range(20)} | {"segment": "de", "long": "x" * 513, "regenerates": "what?"}
    output = Output(model="m", messages=(Message("user", "hi"),), completion="x", metadata=labels, purposes=())
    sent = output_body(output)["metadata"]
    assert isinstance(sent, dict)
    assert len(sent) == 16
    assert (sent["segment"], sent["purposes"], sent.get("long"), sent.get("regenerates")) == ("de", "none", None, None)


def test_what_is_not_said_is_not_sent() -> None:
    event = Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP, id="x", purposes=(), at=0)
    said = {
        "response_id": ANSWER,
        "kind": "thumbs_up",
        "id": "x",
        "purposes": (),
        "occurred_at": "1970-01-01T00:00:00Z",
    }
    assert feedback_body(event) == said


def test_a_moment_is_sent_in_utc_to_the_microsecond() -> None:
    event = Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP, at=1_795_255_200.25)  # 2026-11-21, 10 o'clock
    assert feedback_body(event)["occurred_at"] == "2026-11-21T10:00:00.250000Z"


def test_a_token_is_not_in_the_repr() -> None:
    assert "hush" not in repr(Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP, token="hush"))


def test_events_are_frozen() -> None:
    event = Feedback(response_id=ANSWER, kind=Kind.THUMBS_UP)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.user = "u"  # type: ignore[misc]


def test_ids_sort_by_time_and_prompts_hash_as_the_gateways_do() -> None:
    assert uuid7(1).hex < uuid7(2).hex
    assert uuid7(0xABC).int >> 80 == 0xABC
    assert new_event_id() != new_event_id()
    turns = [("system", "Be brief — 短く."), ("user", "hi\n")]
    from schemas.messages import ChatMessage

    messages = [ChatMessage(role=role, content=content) for role, content in turns]  # type: ignore[arg-type]
    assert prompt_id(turns) == ids.prompt_id(messages)
