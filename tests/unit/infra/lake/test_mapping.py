from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.lake.mapping import Mapping, dig, load
from infra.local.comparisons import BadRow
from schemas.errors import SettingsError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MAPPING = """
[columns]
prompt = "request.messages"
completion = "response.0.text"
thumb = "stars"

[thumb]
up_from = 4
down_to = 2

[time]
format = "%d.%m.%Y %H:%M"
zone = "Europe/Berlin"
"""


def loaded(tmp_path: Path, text: str, name: str = "map.toml") -> Mapping:
    file = tmp_path / name
    file.write_text(text)
    return load(file)


def test_columns_are_found_inside_objects_and_lists(tmp_path: Path) -> None:
    mapping = loaded(tmp_path, MAPPING)
    row = {"request": {"messages": "Hi"}, "response": [{"text": "Hello"}], "stars": 5, "user": "ann"}
    assert mapping.get(row, "prompt") == "Hi"
    assert mapping.get(row, "completion") == "Hello"
    assert mapping.get(row, "user") == "ann"
    assert mapping.get({}, "prompt") is None


def test_a_name_with_a_dot_goes_before_a_path() -> None:
    assert dig({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert dig({"a": {"b": 2}}, "a.b") == 2
    assert dig({"a": [1, 2]}, "a.5") is None
    assert dig({"a": 1}, "a.b") is None


@pytest.mark.parametrize(
    ("value", "purposes"),
    [
        (None, None), ("", None), ("none", ()), ([], ()), ("training", ("training",)),
        (" Labeling, training", ("training", "labeling")), (["labeling"], ("labeling",)),
    ],
)  # fmt: skip
def test_what_a_person_agreed_to(value: Any, purposes: tuple[str, ...] | None) -> None:
    assert Mapping(columns={"purposes": "consent"}).purposes_of({"consent": value}) == purposes


@pytest.mark.parametrize("value", ["marketing", "none,training", 7, {"training": True}, [None]])
def test_what_is_no_purpose_is_no_consent(value: Any) -> None:
    with pytest.raises(BadRow, match="purposes"):
        Mapping().purposes_of({"purposes": value})


@pytest.mark.parametrize(
    ("value", "thumb"),
    [
        (1, True), (1.0, True), ("1", True), (True, True), ("true", True), ("UP", True), (" Thumbs_Up ", True),
        ("👍", True), (0, False), (-1, False), ("down", False), (False, False), ("👎", False), (None, None), ("", None),
    ],
)  # fmt: skip
def test_the_usual_ways_to_write_a_thumb(value: Any, thumb: bool | None) -> None:
    assert Mapping().thumb_of(value) is thumb


def test_a_thumb_that_nobody_knows_is_a_bad_row() -> None:
    with pytest.raises(BadRow, match="'maybe' is neither up nor down"):
        Mapping().thumb_of("maybe")


def test_numbers_meet_the_bounds(tmp_path: Path) -> None:
    mapping = loaded(tmp_path, MAPPING)
    assert [mapping.thumb_of(n) for n in (5, "4", 3, 2.0, 1)] == [True, True, None, False, False]


def test_own_words_for_a_thumb(tmp_path: Path) -> None:
    mapping = loaded(tmp_path, '{"thumb": {"up": ["super"], "down": [3]}}', "map.json")
    assert (mapping.thumb_of("Super"), mapping.thumb_of("3")) == (True, False)
    with pytest.raises(BadRow):
        mapping.thumb_of("up")


def test_times_in_every_usual_form(tmp_path: Path) -> None:
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for value in ("2026-11-20T12:00:00Z", "2026-11-20 12:00", "2026-11-20T13:00:00+01:00", 1795176000, 1795176000000):
        assert Mapping().moment(value, now=NOW) == noon
    assert loaded(tmp_path, MAPPING).moment("20.11.2026 13:00", now=NOW) == noon
    assert Mapping().moment("", now=NOW) is None


@pytest.mark.parametrize("value", ["yesterday", "2036-01-01", -5, 1e300, [1], "1e400", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_can_not_be_is_a_bad_row(value: Any) -> None:
    with pytest.raises(BadRow, match="time"):
        Mapping().moment(value, now=NOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[columns", "is not TOML"),
        ('[columns]\nprompts = "x"', "columns.prompts"),
        ('[time]\nzone = "Mars/Base"', "no time zone Mars/Base"),
        ("[thumbs]\n", "thumbs: Extra inputs"),
    ],
)
def test_a_mapping_that_can_not_be_used_says_what_to_mend(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        loaded(tmp_path, text)
