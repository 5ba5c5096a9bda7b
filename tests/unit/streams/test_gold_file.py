"""The gold file: what its lines say, and what is told of a line that says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SettingsError
from streams.gold import Gold, read_gold

SPELT = {"prompt": "Where?", "left": "Here.", "right": "No.", "chosen": "Here."}


def written(tmp_path: Path, *lines: Any) -> Path:
    file = tmp_path / "gold.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_without_a_file_nothing_is_known() -> None:
    assert read_gold(None) == Gold()


def test_a_line_spells_a_question_out_or_names_a_task(tmp_path: Path) -> None:
    side = {"completion": "Here.", "response_id": f"chatcmpl-{'0' * 32}", "version": "v1"}
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where?"}]
    named = {"task_id": "task-1", "chosen": None, "note": "from last week"}
    gold = read_gold(written(tmp_path, SPELT, "", SPELT | {"prompt": turns, "left": side}, named))
    plain, served = gold.questions
    assert (plain.prompt[0].role, plain.sides[0].completion, plain.chosen) == ("user", "Here.", "Here.")
    assert served.response_ids == {side["response_id"]}
    assert (gold.answers, gold.named) == ({plain.id: "Here.", served.id: "Here.", "task-1": None}, ("task-1",))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "is no JSON"),
        ("[]", "dictionary"),
        ({"task_id": "task-1"}, "chosen: Field required"),
        ({"chosen": "Here."}, "it names no question"),
        ({"chosen": "Here.", "prompt": "Where?", "left": "Here."}, "it names no question"),
        (SPELT | {"chosen": "here"}, "chosen is neither"),
        (SPELT | {"right": "Here."}, "the same text"),
        (SPELT | {"prompt": []}, "prompt: "),
        (SPELT | {"left": {"text": "Here."}}, "left.completion: "),
        ({"task_id": 7, "chosen": None}, "task_id: "),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number(tmp_path: Path, line: Any, why: str) -> None:
    with pytest.raises(SettingsError, match="line 2") as refused:
        read_gold(written(tmp_path, SPELT, line))
    assert why in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        read_gold(tmp_path / "none.jsonl")
