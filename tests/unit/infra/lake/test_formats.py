"""Rows of TRL's formats and of thumbs logs, as drafts and as events."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.lake import formats, label_studio
from infra.lake.drafts import Compared, Rated
from infra.lake.events import Origin, events, response_id
from infra.lake.mapping import Mapping
from infra.local.comparisons import BadRow
from schemas import topics
from schemas.consent import Purpose
from schemas.envelope import decode, encode
from schemas.labels import Label, Verdict
from schemas.outputs import Output
from tests.unit.infra.lake.lake_kit import prompt

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ORIGIN = Origin("log.jsonl", NOW)
PLAIN = Mapping()


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def compared(row: dict[str, Any]) -> Compared:
    (draft,) = formats.preference(row, PLAIN, now=NOW)
    assert isinstance(draft, Compared)
    return draft


def rated(row: dict[str, Any], mapping: Mapping = PLAIN) -> Rated:
    (draft,) = formats.rated(row, mapping, now=NOW)
    assert isinstance(draft, Rated)
    return draft


def test_a_preference_with_strings_and_one_with_messages_say_the_same() -> None:
    strings = compared({"prompt": "Hi", "chosen": "a", "rejected": "b"})
    messages = compared(
        {"prompt": [turn("user", "Hi")], "chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}
    )
    assert strings == messages == Compared(prompt("Hi"), "a", "b", Verdict.LEFT)


def test_an_implicit_prompt_is_what_both_sides_begin_with() -> None:
    begin = [turn("system", "s"), turn("user", "Hi")]
    row = {"chosen": [*begin, turn("assistant", "a")], "rejected": [*begin, turn("assistant", "b")]}
    assert compared(row).left == "a"
    assert [t.content for t in compared(row).prompt] == ["s", "Hi"]


def test_an_implicit_prompt_needs_something_to_share() -> None:
    with pytest.raises(BadRow, match="prompt is missing"):
        compared({"chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]})


def test_who_and_when_come_from_the_columns_of_an_export() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "rater_id": "ada", "judged_at": "2026-11-20T12:00:00Z"}
    assert (compared(row).rater, compared(row).time) == ("ada", datetime(2026, 11, 20, 12, tzinfo=UTC))


def test_turns_may_note_more_than_role_and_content() -> None:
    row = {"prompt": [turn("user", "Hi") | {"id": "7"}], "completion": "a", "label": True}
    assert rated(row).prompt == prompt("Hi")


def test_a_rated_answer_with_all_that_is_known_of_it() -> None:
    row = {
        "prompt": "Hi", "completion": "Hello", "label": False, "user": "ann", "time": 1795176000, "model": "gpt-x",
        "comment": "rude", "correction": "Good day", "id": 17,
    }  # fmt: skip
    assert rated(row) == Rated(
        prompt("Hi"), "Hello", False, "ann", datetime(2026, 11, 20, 12, tzinfo=UTC), "gpt-x", "rude", "Good day", "17"
    )


def test_a_row_that_says_nothing_of_the_answer_is_passed_over() -> None:
    assert formats.rated({"prompt": "Hi", "completion": "a", "thumb": ""}, PLAIN, now=NOW) == []
    assert rated({"prompt": "Hi", "completion": "a", "comment": "hm"}).thumb is None


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"completion": "a", "label": 1}, "prompt is missing"),
        ({"prompt": " ", "completion": "a", "label": 1}, "prompt is empty"),
        ({"prompt": [turn("user", " ")], "completion": "a", "label": 1}, "prompt is empty"),
        ({"prompt": [turn("tool", "x")], "completion": "a", "label": 1}, "role"),
        ({"prompt": "p", "label": 1}, "completion is missing"),
        ({"prompt": "p", "completion": "a\ud800", "label": 1}, "half a character"),
        ({"prompt": "p", "completion": "a", "label": "well"}, "neither up nor down"),
        ({"prompt": "p", "completion": "a", "label": 1, "user": "u" * 201}, "longer than 200"),
        ({"prompt": "p", "completion": "a", "label": 1, "user": {"id": 1}}, "user is no text"),
        ({"prompt": "p", "completion": "a", "label": 1, "time": "noon"}, "time"),
    ],
)
def test_a_bad_row_says_why(row: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        rated(row)


def test_a_rated_answer_is_an_output_and_the_feedback_on_it() -> None:
    draft = Rated(prompt("Hi"), "Hello", False, "ann", NOW, "gpt-x", "rude", "Good day")
    (topic, output), *said = events(draft, Origin("log", NOW, (Purpose.TRAINING,)))
    assert topic is topics.OUTPUTS
    assert isinstance(output.data, Output)
    assert (output.data.version, output.data.segment, output.data.completion) == ("imported/gpt-x", "imported", "Hello")
    assert (output.time, output.source, output.data.purposes) == (NOW, "infra/import/log", (Purpose.TRAINING,))
    assert [(t.payload.schema_name, e.data.kind, e.data.text) for t, e in said] == [  # type: ignore[attr-defined]
        ("feedback", "thumbs_down", "rude"),
        ("feedback", "correction", "Good day"),
    ]
    assert {e.data.response_id for _, e in said} == {output.data.response_id}  # type: ignore[attr-defined]


def test_a_prompt_alone_is_an_output_with_an_empty_answer() -> None:
    (draft,) = formats.prompts({"prompt": "Hi"}, PLAIN, now=NOW)
    ((topic, event),) = events(draft, ORIGIN)
    assert topic is topics.OUTPUTS
    assert isinstance(event.data, Output)
    assert (event.data.completion, event.data.version) == ("", "imported/log.jsonl")


def test_the_same_row_is_the_same_events_whenever_it_is_imported() -> None:
    draft = rated({"prompt": "Hi", "completion": "a", "label": 1, "user": "ann"})
    later = Origin("renamed.jsonl", datetime(2027, 1, 1, tzinfo=UTC))
    assert [e.id for _, e in events(draft, ORIGIN)] == [e.id for _, e in events(draft, later)]


def test_an_answer_id_is_ordered_by_its_time() -> None:
    early = Rated(prompt("z"), "a", True, time=datetime(2025, 1, 1, tzinfo=UTC))
    late = Rated(prompt("a"), "a", True, time=datetime(2026, 1, 1, tzinfo=UTC))
    assert response_id(early) < response_id(late)


def test_rows_about_one_answer_meet_by_its_id_and_others_stay_apart() -> None:
    up = Rated(prompt("p"), "a", True, "ann", NOW, id="7")
    changed = Rated(prompt("p"), "a", False, "ann", datetime(2026, 11, 20, tzinfo=UTC), id="7")
    other = Rated(prompt("p"), "a", True, "ann", NOW, id="8")
    assert response_id(up) == response_id(changed) != response_id(other)
    assert response_id(Rated(prompt("p"), "a", user="ann")) != response_id(Rated(prompt("p"), "a", user="bob"))


def test_a_user_who_comes_back_to_the_first_thumb_has_said_three_things() -> None:
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]
    drafts = [Rated(prompt("p"), "a", n % 2 == 0, "ann", time, id="7") for n, time in enumerate(moments)]
    assert len({events(draft, ORIGIN)[1][1].id for draft in drafts}) == 3


def test_an_id_of_ours_stays() -> None:
    ours = "chatcmpl-" + "a1" * 16
    assert response_id(Rated(prompt("p"), "a", id=ours)) == ours


def test_a_comparison_without_a_name_is_the_files() -> None:
    ((topic, event),) = events(compared({"prompt": "p", "chosen": "a", "rejected": "b"}), ORIGIN)
    assert topic is topics.LABELS
    assert isinstance(event.data, Label)
    assert (event.data.labeler_id, event.data.origin) == ("import:log.jsonl", "imported")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = ("prompt", "completion", "label", "thumb", "user", "time", "model", "comment", "correction", "id", "chosen",
         "rejected", "data", "annotations")  # fmt: skip


@given(
    row=st.fixed_dictionaries({}, optional=dict.fromkeys(names, json_values | st.text(min_size=1))),
    read=st.sampled_from([formats.preference, formats.rated, formats.prompts, label_studio.task]),
)
def test_any_row_is_events_that_can_be_read_back_or_a_bad_row(row: dict[str, Any], read: Any) -> None:
    try:
        found = [pair for draft in read(row, PLAIN, now=NOW) for pair in events(draft, ORIGIN)]
    except BadRow:
        return
    for topic, event in found:
        message = encode(event)
        assert decode(topic.payload, message.value, message.headers).data == event.data
