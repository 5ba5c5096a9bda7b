"""Files of answers, labelled safe or unsafe or not at all."""

import gzip
import json
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from trainer.adapters.answers_file import read_answers, read_safety_file


def written(folder: Path, *rows: object) -> Path:
    file = folder / "safety.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def test_prompts_are_texts_or_chats_and_answers_completions_or_responses(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    file = written(
        tmp_path,
        {"prompt": "Hello", "response": "Go away", "unsafe": 1, "id": "more is ignored"},
        {"prompt": chat, "completion": "Welcome", "unsafe": False},
    )
    first, second = read_safety_file(file, limit=10)
    assert (first.prompt, first.completion, first.unsafe) == ((("user", "Hello"),), "Go away", True)
    assert (second.prompt, second.unsafe) == ((("system", "Be kind."), ("user", "Hi")), False)
    packed = tmp_path / "safety.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_safety_file(packed, limit=10) == [first, second]


def test_a_limit_takes_rows_evenly_from_the_whole_file(tmp_path: Path) -> None:
    file = written(tmp_path, *({"prompt": "p", "completion": str(n), "unsafe": n >= 6} for n in range(9)))
    assert [e.completion for e in read_safety_file(file, limit=3)] == ["0", "3", "6"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({"prompt": "p", "unsafe": True}, "completion"),
        ({"prompt": "p", "completion": None, "unsafe": True}, "completion"),
        ({"prompt": "p", "completion": "c"}, "unsafe must be"),
        ({"prompt": "p", "completion": "c", "unsafe": "yes"}, "unsafe must be"),
        ({"prompt": [{"role": "user"}], "completion": "c", "unsafe": True}, "prompt must be"),
        ({"completion": "c", "unsafe": True}, "prompt must be"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, row: object, why: str) -> None:
    good = {"prompt": "p", "completion": "c", "unsafe": True}
    with pytest.raises(SettingsError, match=f"line 2: .*{why}"):
        read_safety_file(written(tmp_path, good, row), limit=10)


def test_a_file_that_is_empty_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no examples"):
        read_safety_file(written(tmp_path), limit=10)
    with pytest.raises(SettingsError, match="can't be read"):
        read_safety_file(tmp_path / "none.jsonl", limit=10)


def test_answers_to_score_come_from_the_top_with_who_gave_them(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": f"c{n}", "version": "v2" if n else None} for n in range(3)]
    found = read_answers(written(tmp_path, *rows), limit=2)
    assert [(a.completion, a.version) for a in found] == [("c0", "file"), ("c1", "v2")]


def test_an_empty_answer_is_passed_over(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": text, "unsafe": False} for text in ("a", " ", "b")]
    assert [e.completion for e in read_safety_file(written(tmp_path, *rows), limit=10)] == ["a", "b"]
