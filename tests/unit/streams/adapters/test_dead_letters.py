"""Dead letters: whatever bytes came, the row gives them back."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import tables
from schemas.tables import DeadLetterRow
from streams.adapters.dead_letters import FOUND_LATER, Letter, pack_headers, unpack_headers
from streams.adapters.lake import open_table

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATIN = "grüße".encode("latin-1")

names = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.none() | st.binary(max_size=40) | st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode)
headers = st.lists(st.tuples(names, values), max_size=6).map(tuple)
letters = st.builds(
    Letter,
    topic=st.just("thumbwheel.feedback.v1"),
    partition=st.integers(0, 9),
    offset=st.integers(0, 2**62),
    reason=st.sampled_from(["malformed_json", "not_utf8", *sorted(FOUND_LATER)]),
    detail=names,
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=headers,
    timestamp_ms=st.none() | st.integers(0, 2**62),
)


@given(letter=letters)
def test_a_row_gives_back_the_letter_byte_for_byte(letter: Letter) -> None:
    assert Letter.of(DeadLetterRow.model_validate(letter.row(NOON))) == letter


def test_bytes_survive_the_table_itself(tmp_path: Path) -> None:
    odd = Letter(
        "thumbwheel.feedback.v1",
        1,
        7,
        "not_utf8",
        "why",
        b"\xff\x00",
        b"\x80{",
        (("a", LATIN), ("a", b""), ("b", None)),
    )
    table = open_table(tmp_path, tables.DEAD_LETTERS)
    table.append(table.arrow([odd.row(NOON)]), {})
    (row,) = table.all().collect().to_dicts()
    assert Letter.of(DeadLetterRow.model_validate(row)) == odd


def test_headers_are_written_as_text_where_they_are_text_and_in_base64_where_not() -> None:
    packed = json.loads(pack_headers((("a", "ü".encode()), ("b", b"\xff"), ("c", None)), 1_764_000_000_000))
    assert packed == {
        "timestamp_ms": 1_764_000_000_000,
        "headers": [["a", {"utf8": "ü"}], ["b", {"base64": "/w=="}], ["c", None]],
    }


def test_rows_of_the_first_release_stay_readable() -> None:
    old = json.dumps([["ce_id", "x"], ["odd", "\\xff"], ["gone", None]])
    assert unpack_headers(old) == ((("ce_id", b"x"), ("odd", b"\\xff"), ("gone", None)), None)


def test_the_message_carries_the_original_first_and_tells_its_reason_and_time_behind_it() -> None:
    letter = Letter("t", 0, 3, "not_utf8", "a \udcff detail", b"k", b"v", (("a", b"\xff"),), timestamp_ms=5)
    key, value, told = letter.message(NOON)
    assert (key, value, told[0]) == (b"k", b"v", ("a", b"\xff"))
    behind = dict(told[1:])
    assert behind["thumbwheel_error_reason"] == b"not_utf8"
    assert behind["thumbwheel_error_detail"] == b"a \\udcff detail"
    assert behind["thumbwheel_error_timestamp_ms"] == b"5"
    assert behind["thumbwheel_dead_letter_id"] == letter.id.encode()


@pytest.mark.parametrize("reason", sorted(FOUND_LATER))
def test_an_event_that_is_reported_later_is_a_letter_beside_the_one_it_may_have_been(reason: str) -> None:
    def at(why: str) -> str:
        return Letter("t", 0, 3, why, "", None, None, ()).id

    assert at("malformed_json") == at("wrong_type")
    assert len({at("malformed_json"), *map(at, FOUND_LATER)}) == 1 + len(FOUND_LATER)
    assert at(reason) == at(reason)
