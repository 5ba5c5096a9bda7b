"""The evaluation counts right, and the documentation says what it prints."""

import gzip
import json
import re
from pathlib import Path

import pytest

from thumbwheel_redaction import Kind, Redactor
from thumbwheel_redaction.evaluation import __main__ as command
from thumbwheel_redaction.evaluation.generate import Sentence, sentences
from thumbwheel_redaction.evaluation.score import Share, scores
from thumbwheel_redaction.evaluation.templates import HELD_OUT, SEEN
from thumbwheel_redaction.evaluation.texts import census, strings
from thumbwheel_redaction.findings import Finding

DOCUMENT = Path(__file__).parents[3] / "docs" / "redaction.md"


def test_wilsons_interval_is_the_published_one():
    # Newcombe (1998), table I: 81 of 263 has 0.2553 to 0.3662, 0 of 20 has 0 to 0.1611.
    assert Share(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Share(0, 20).interval == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert Share(20, 20).interval == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_a_label_counts_only_if_it_is_covered_whole_and_a_finding_if_it_touches_one():
    text = "ann@example.org 203.0.113.7 bob@example.org"
    labels = (Finding(0, 15, Kind.EMAIL), Finding(16, 43, Kind.IP))  # the second reaches too far, on purpose
    counted = scores([Sentence(text, labels)], Redactor(), [Kind.EMAIL, Kind.IP])
    assert counted[Kind.EMAIL].precision == Share(1, 2)  # bob's address bears no label of its kind
    assert counted[Kind.EMAIL].recall == Share(1, 1)
    assert counted[Kind.IP].precision == Share(1, 1)
    assert counted[Kind.IP].recall == Share(0, 1)


def test_the_same_seed_makes_the_same_sentences_and_another_one_others():
    assert list(sentences(SEEN, 100, 1)) == list(sentences(SEEN, 100, 1))
    assert list(sentences(SEEN, 100, 1)) != list(sentences(SEEN, 100, 2))


def test_labels_lie_on_what_fills_the_holes():
    made = list(sentences(["mail {email} now", "{decoy}"], 40, 3))
    for sentence in made[::2]:
        (label,) = sentence.labels
        assert sentence.text == f"mail {sentence.text[label.start : label.end]} now"
        assert label.kind is Kind.EMAIL
    assert all(sentence.labels == () for sentence in made[1::2])


def test_the_two_halves_of_the_templates_share_nothing():
    assert not set(SEEN) & set(HELD_OUT)
    assert abs(len(SEEN) - len(HELD_OUT)) <= 2


def test_every_kind_but_names_is_in_both_halves():
    for half in (SEEN, HELD_OUT):
        assert {label.kind for s in sentences(half, 200, 5) for label in s.labels} == set(Kind)


def test_texts_are_counted(tmp_path: Path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": "x", "prompt": [{"role": "user", "content": "ask ann@example.org"}]}) + "\n")
        file.write(json.dumps({"text": "nothing in here"}) + "\n")
    (tmp_path / "b.txt").write_text("from 203.0.113.7\nand so on\n")
    counted = census(strings([tmp_path / "a.jsonl.gz", tmp_path / "b.txt"]), Redactor())
    assert counted.texts == 4
    assert counted.found == {Kind.EMAIL: 1, Kind.IP: 1}
    assert counted.per_thousand(Kind.EMAIL) == 250
    assert counted.samples == [(Kind.EMAIL, "ask ⟦ann@example.org⟧"), (Kind.IP, "from ⟦203.0.113.7⟧")]


def test_the_table_in_the_documentation_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]):
    assert command.main([]) == 0
    assert capsys.readouterr().out in DOCUMENT.read_text()


def test_the_documentation_names_every_kind_and_recogniser_module():
    document = DOCUMENT.read_text()
    from thumbwheel_redaction.recognisers import RECOGNISERS

    assert not [kind for kind in Kind if f"[{kind.upper()}_1]" not in document]
    assert not [r.name for r in RECOGNISERS if not re.search(rf"`{r.name}`", document)]
