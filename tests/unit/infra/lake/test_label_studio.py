"""Exports of Label Studio, written by hand after its documented task format."""

from datetime import UTC, datetime
from typing import Any

import pytest

from infra.lake.drafts import Compared, Rated
from infra.lake.label_studio import task
from infra.lake.mapping import Mapping, Thumbs, Verdicts
from infra.local.comparisons import BadRow
from schemas.labels import Verdict
from tests.unit.infra.lake.lake_kit import prompt

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MADE = "2026-11-20T10:15:00.250000Z"
WHEN = datetime(2026, 11, 20, 10, 15, 0, 250000, tzinfo=UTC)


def annotation(result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": 1001, "completed_by": 10, "result": result, "was_cancelled": False, "ground_truth": False,
        "created_at": MADE, "updated_at": MADE, "lead_time": 4.288, "result_count": 1, "task": 1,
    } | more  # fmt: skip


def exported(data: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 1, "data": data, "annotations": list(annotations), "predictions": [], "drafts": [], "meta": {},
        "created_at": MADE, "updated_at": MADE, "inner_id": 1, "total_annotations": len(annotations), "project": 83,
    }  # fmt: skip


def pairwise(selected: str, to_name: Any = "answer1,answer2") -> dict[str, Any]:
    return {
        "id": "Dx_aB91ISN", "type": "pairwise", "from_name": "comparison", "to_name": to_name, "origin": "manual",
        "value": {"selected": selected},
    }  # fmt: skip


def choice(*names: str, **more: Any) -> dict[str, Any]:
    value = {"choices": list(names)}
    return {"id": "x", "type": "choices", "from_name": "q", "to_name": "answer", "value": value} | more


def stars(number: int) -> dict[str, Any]:
    return {"id": "r", "type": "rating", "from_name": "stars", "to_name": "answer", "value": {"rating": number}}


PAIR = {"prompt": "Capital of France?", "answer1": "Paris.", "answer2": "Lyon."}
ONE = {"prompt": "Capital of France?", "answer": "Lyon.", "model": "m1"}


def read(row: dict[str, Any], mapping: Mapping | None = None) -> list[Any]:
    return task(row, mapping or Mapping(), now=NOW)


def test_a_pairwise_project_compares() -> None:
    assert read(exported(PAIR, annotation([pairwise("right")]))) == [
        Compared(prompt("Capital of France?"), "Paris.", "Lyon.", Verdict.RIGHT, "label-studio:10", WHEN, seconds=4.288)
    ]


def test_each_annotator_has_a_voice_and_a_cancelled_annotation_none() -> None:
    row = exported(
        PAIR,
        annotation([pairwise("left")]),
        annotation([pairwise("right")], completed_by={"id": 11, "email": "ann@example.org", "first_name": "Ann"}),
        annotation([], was_cancelled=True, completed_by=12),
    )
    assert [(d.verdict, d.rater) for d in read(row)] == [("left", "label-studio:10"), ("right", "label-studio:11")]


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (pairwise("left", ["answer1", "answer2"]), Verdict.LEFT),
        (pairwise("answer2"), Verdict.RIGHT),
    ],
)
def test_sides_may_be_listed_or_have_names(result: dict[str, Any], verdict: Verdict) -> None:
    assert read(exported(PAIR, annotation([result])))[0].verdict is verdict


def test_texts_that_are_called_otherwise_are_named_by_the_mapping() -> None:
    data = {"q": "?", "one": "a", "two": "b"}
    row = exported(data, annotation([pairwise("left", "txt-1,txt-2")]))
    with pytest.raises(BadRow, match="prompt is missing"):
        read(row)
    mapping = Mapping(columns={"prompt": "q", "left": "one", "right": "two"})
    assert (read(row, mapping)[0].left, read(row, mapping)[0].right) == ("a", "b")
    with pytest.raises(BadRow, match=r"not in the task's data \(q, one, two\)"):
        read(row, Mapping(columns={"prompt": "q"}))


def test_a_comparison_by_choices_needs_a_mapping() -> None:
    row = exported({"prompt": "?", "a": "x", "b": "y"}, annotation([choice("Same")]))
    mapping = Mapping(columns={"left": "a", "right": "b"}, verdict=Verdicts(tie=("same",)))
    assert read(row, mapping)[0].verdict is Verdict.TIE
    with pytest.raises(BadRow, match="'Same' is no verdict"):
        read(row, Mapping(columns={"left": "a", "right": "b"}))


@pytest.mark.parametrize(("number", "thumb"), [(5, True), (4, True), (2, False), (1, False)])
def test_stars_are_thumbs(number: int, thumb: bool) -> None:
    assert read(exported(ONE, annotation([stars(number)]))) == [
        Rated(prompt("Capital of France?"), "Lyon.", thumb, "label-studio:10", WHEN, "m1")
    ]


def test_three_stars_say_nothing_unless_the_mapping_says_what() -> None:
    row = exported(ONE, annotation([stars(3)]))
    assert read(row) == []
    assert read(row, Mapping(thumb=Thumbs(up_from=3)))[0].thumb is True


def test_choices_and_texts_are_thumb_comment_and_correction() -> None:
    text = {
        "id": "t",
        "type": "textarea",
        "from_name": "why",
        "to_name": "answer",
        "value": {"text": ["wrong", "city"]},
    }
    better = {
        "id": "c",
        "type": "textarea",
        "from_name": "Correction",
        "to_name": "answer",
        "value": {"text": "Paris."},
    }
    (draft,) = read(exported(ONE, annotation([choice("Bad"), text, better])))
    assert (draft.thumb, draft.comment, draft.correction) == (False, "wrong\ncity", "Paris.")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "comparison": "left"}, "export as JSON, not as JSON-MIN"),
        (exported(PAIR, {"id": 1}), "an annotation has no result"),
        (exported(PAIR, annotation([pairwise("both")])), "neither left nor right"),
        (exported(PAIR, annotation([])), "neither a pairwise choice nor a rating"),
        (exported({"prompt": "p"}, annotation([stars(5)])), "completion is missing"),
        (exported(PAIR | {"answer1": 7}, annotation([pairwise("left")])), "answer1 is missing, or no string"),
    ],
)
def test_a_task_that_is_not_understood_says_why(row: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        read(row)
