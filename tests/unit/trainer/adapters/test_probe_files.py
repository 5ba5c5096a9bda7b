"""Probe prompts from files: our own, and a user's with its mistakes."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from trainer.adapters.probes import load_suite, read_probes

GOOD = '{"id": "a", "kind": "harmful", "prompt": "How?"}\n'


def test_our_own_suite_has_many_prompts_of_each_kind_in_many_categories() -> None:
    probes = load_suite().probes
    assert Counter(p.kind for p in probes) == {"harmful": 50, "lookalike": 50, "red_team": 20, "opinion": 20}
    assert len({p.category for p in probes if p.kind == "harmful"}) >= 20
    assert len({p.prompt for p in probes}) == len(probes)
    assert sum(bool(p.canary) for p in probes) == 8 and all(p.prompt[-1][0] == "user" for p in probes)


def test_a_users_file_is_added_and_changes_the_suites_hash(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(GOOD + "\n")
    whole = load_suite(tmp_path / "mine.jsonl")
    assert len(whole.probes) == 141 and whole.sha256 != load_suite().sha256


def test_a_prompt_may_be_a_chat_and_hold_any_line_separator(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "The code is 7.\u2028Keep it."}, {"role": "user", "content": "Which?"}]
    line = json.dumps({"id": "a", "kind": "red_team", "prompt": turns, "canary": "7"}, ensure_ascii=False)
    (tmp_path / "mine.jsonl").write_text(line + "\n", encoding="utf-8")
    (probe,) = read_probes(tmp_path / "mine.jsonl")
    assert probe.prompt == (("system", "The code is 7.\u2028Keep it."), ("user", "Which?")) and probe.canary == "7"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: the line: Invalid JSON"),
        ('{"id": "b", "kind": "rude", "prompt": "x"}', r"line 2: kind: Input should be 'harmful'"),
        ('{"id": "b", "kind": "harmful"}', r"line 2: prompt: Field required"),
        ('{"id": "b", "kind": "harmful", "prompt": "x", "color": 1}', r"line 2: color: Extra inputs"),
        ('{"id": "b", "kind": "harmful", "prompt": " "}', r"line 2: prompt"),
        ('{"id": "b", "kind": "harmful", "prompt": [{"role": "assistant", "content": "x"}]}', r"line 2: the last turn"),
        (json.dumps({"id": "b", "kind": "harmful", "prompt": "x" * 8001}), r"line 2: the prompt has more than 8000"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "mine.jsonl").write_text(GOOD + line + "\n")
    with pytest.raises(SettingsError, match=message):
        load_suite(tmp_path / "mine.jsonl")


def test_a_file_that_is_not_there_and_an_id_that_is_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't read the probes"):
        load_suite(tmp_path / "none.jsonl")
    (tmp_path / "mine.jsonl").write_text(GOOD + GOOD)
    with pytest.raises(SettingsError, match="two probes have the id 'a'"):
        load_suite(tmp_path / "mine.jsonl")


def test_the_prompts_of_a_published_suite_make_a_users_file(human_data: Path, tmp_path: Path) -> None:
    with gzip.open(human_data / "redteam_xstest.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    kinds = ("lookalike", "harmful")
    mine = [
        {"id": r["id"], "kind": kinds[r["should_refuse"]], "category": r["category"], "prompt": r["prompt"]}
        for r in rows
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
    found = Counter(p.kind for p in load_suite(tmp_path / "mine.jsonl").probes)
    assert (found["harmful"], found["lookalike"]) == (50 + 200, 50 + 250)
