import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.comparisons import BadRow, label_event
from schemas.envelope import Event, decode, encode
from schemas.labels import Label, Verdict

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def converted(row: Any) -> Event[Label]:
    return label_event(json.dumps(row).encode(), labeler="replay:file", time=NOW)


def chosen_text(label: Label) -> str:
    return label.left.completion if label.verdict is Verdict.LEFT else label.right.completion


def test_a_string_prompt_becomes_one_turn_of_a_user() -> None:
    label = converted({"prompt": "Hi?", "chosen": "Hello!", "rejected": "What."}).data
    assert [(turn.role, turn.content) for turn in label.prompt] == [("user", "Hi?")]
    assert (label.origin, label.labeler_id) == ("imported", "replay:file")


def test_a_conversation_keeps_its_turns_and_the_row_its_labeler() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    label = converted({"prompt": turns, "chosen": "x", "rejected": "y", "labeler_id": "ada"}).data
    assert [turn.content for turn in label.prompt] == ["a", "b", "c"]
    assert label.labeler_id == "ada"


def test_answers_may_be_lists_of_one_turn_as_in_trl() -> None:
    def turn(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    assert chosen_text(converted({"prompt": "p", "chosen": turn("x"), "rejected": turn("y")}).data) == "x"


def test_the_verdict_names_the_chosen_text_and_the_side_says_nothing() -> None:
    labels = [converted({"prompt": f"p{n}", "chosen": "good", "rejected": "bad"}).data for n in range(200)]
    assert {chosen_text(label) for label in labels} == {"good"}
    # 200 fair coins: 6 standard deviations are 42.
    assert 58 <= sum(label.verdict is Verdict.LEFT for label in labels) <= 142


def test_the_same_row_is_the_same_event_in_every_replay() -> None:
    row = {"prompt": "p", "chosen": "x", "rejected": "y"}
    assert converted(row).id == converted(row).id


def test_who_chooses_otherwise_judges_the_same_task_in_another_event() -> None:
    one = converted({"prompt": "p", "chosen": "x", "rejected": "y"})
    other = converted({"prompt": "p", "chosen": "y", "rejected": "x"})
    assert one.data.task_id == other.data.task_id
    assert one.data.left == other.data.left
    assert one.id != other.id


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"prompt": "", "chosen": "x", "rejected": "y"}', "prompt is empty"),
        (b'{"chosen": "x", "rejected": "y"}', "prompt is missing"),
        (b'{"prompt": "p", "rejected": "y"}', "chosen is missing"),
        (b'{"prompt": "p", "chosen": "x", "rejected": 3}', "rejected is missing"),
        (b'{"prompt": "p", "chosen": "x", "rejected": "x"}', "the same text"),
        (b'{"prompt": [{"role": "boss", "content": "p"}], "chosen": "x", "rejected": "y"}', "role"),
        (b'{"prompt": "p", "chosen": "x", "rejected": "y", "labeler_id": 3}', "labeler_id"),
        (json.dumps({"prompt": "p", "chosen": "x", "rejected": "y" * 200_001}).encode(), "completion"),
        (json.dumps({"prompt": [{"role": "user", "content": "é" * 190_000}] * 4, "chosen": "x", "rejected": "y"})
         .encode(), "longer than"),
    ],
)  # fmt: skip
def test_a_bad_row_says_why(line: bytes, why: str) -> None:
    with pytest.raises(BadRow, match=why):
        label_event(line, labeler="l", time=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("prompt", "chosen", "rejected", "labeler_id"), json_values | st.text(min_size=1)),
    )
)
def test_any_row_is_an_event_that_can_be_read_back_or_a_bad_row(row: dict[str, Any]) -> None:
    try:
        event = converted(row)
    except BadRow:
        return
    message = encode(event)
    assert decode(Label, message.value, message.headers).data == event.data
