from pathlib import Path
from typing import Any

import pytest

from infra.lake.show import Found, select
from infra.lake.texts import brief, cut, lines, size, value
from schemas.errors import SettingsError
from tests.unit.infra.lake import lake_kit as kit


def found(root: Path, **more: Any) -> Found:
    return select(kit.catalog(root).open(kit.RATINGS), **{"limit": 10} | more)


def numbers(of: Found) -> list[int]:
    return [int(row["response_id"][-3:], 16) for row in of.rows]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    kit.put(tmp_path, kit.RATINGS, [kit.rating(n, rater_id="ann" if n % 2 else "bob") for n in range(1, 7)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(1, revision=2, label=False, rater_id=None)])
    kit.put(tmp_path, kit.RATINGS, [kit.rating(2, revision=2, retracted=True)])
    return tmp_path


def test_the_newest_rows_come_first_and_the_rest_is_counted(lake: Path) -> None:
    some = found(lake, limit=2)
    assert numbers(some) == [6, 5]
    assert some.total == 5


def test_conditions_are_about_the_row_that_counts(lake: Path) -> None:
    assert numbers(found(lake, where=["label=false"])) == [1]
    assert numbers(found(lake, where=["rater_id=ann"])) == [5, 3]
    assert numbers(found(lake, where=["rater_id="])) == [1]
    assert numbers(found(lake, where=["rater_id=bob", "weight=1"])) == [6, 4]
    assert numbers(found(lake, where=["judged_at=2026-11-21T12:00:04Z"])) == [4]


def test_ids_and_all_revisions(lake: Path) -> None:
    key = kit.rating(2)["rating_id"]
    assert numbers(found(lake, ids=[key])) == []
    both = found(lake, ids=[key], revisions=True)
    assert [(row["revision"], row["retracted"]) for row in both.rows] == [(2, True), (1, False)]


def test_a_condition_on_rows_whose_id_is_not_unique_chooses_among_them(tmp_path: Path) -> None:
    kit.put(tmp_path, kit.AUDIT, [kit.audit(1), kit.audit(1, actor="cli:bob")])
    rows = select(kit.catalog(tmp_path).open(kit.AUDIT), where=["actor=cli:bob"], limit=5).rows
    assert [row["actor"] for row in rows] == ["cli:bob"]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("label", "write it as column=value"),
        ("thumbs=1", "has no column thumbs; its columns are revision"),
        ("label=maybe", "holds true or false"),
        ("weight=much", "holds numbers"),
        ("revision=1.5", "holds whole numbers"),
        ("judged_at=noon", "holds times"),
        ("prompt=hello", "can't be compared"),
    ],
)
def test_a_condition_that_can_not_be_says_why(lake: Path, where: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        found(lake, where=[where])


def test_a_long_text_says_how_much_is_missing() -> None:
    assert cut("abcdefghij" * 3, 20) == "abcdefghijabcd … +16"
    assert cut("short", 20) == "short"
    assert all(len(cut("x" * 1000, width)) <= width + 1 for width in range(12, 40))


def test_values_are_one_line_and_can_not_move_the_cursor() -> None:
    assert (
        value([{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c"}])
        == "user: a b | assistant: c"
    )
    assert value("red\x1b[31m\r\n") == "red [31m"
    assert value(None) == "-"
    assert value(0.1 + 0.2) == "0.3"


def test_a_row_leaves_out_what_is_empty() -> None:
    row = {"id": "x", "text": "a" * 50, "none": None, "list": []}
    assert lines(row, width=20, aside=("id",)) == [("text", "a" * 14 + " … +36")]


def test_a_brief_row_gives_the_room_to_the_long_texts() -> None:
    row = {"prompt": "p" * 100, "completion": "c" * 100, "thumb": 1}
    shown = brief(row, width=100)
    assert "thumb: 1" in shown
    assert 80 <= len(shown) <= 100


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**3)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
