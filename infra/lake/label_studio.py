"""Tasks of a Label Studio project, as it exports them (format JSON), as drafts. Pure.

A task holds `data` (what was shown) and `annotations`, each by one person (`completed_by`) with a `result`: a list of
{type, from_name, to_name, value}. Read are

    Pairwise   {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "left"}}      a comparison
    Rating     {"type": "rating", "to_name": "answer", "value": {"rating": 4}}                       a thumb, by bounds
    Choices    {"type": "choices", "value": {"choices": ["Good"]}}                a thumb, or a verdict by the mapping
    TextArea   {"type": "textarea", "value": {"text": ["..."]}}                   a comment, or a correction by its name

What is compared lies in `data` under the names that `to_name` lists, unless the mapping's `left` and `right` (for
ratings `completion`) say otherwise. Annotations that were cancelled (skipped) say nothing.
https://labelstud.io/guide/task_format and https://labelstud.io/tags/pairwise
"""

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from infra.lake.drafts import Compared, Draft, Prompt, Rated
from infra.lake.mapping import Mapping
from infra.local.comparisons import BadRow, bad_row, read_prompt, read_text
from schemas.labels import Verdict

Row = AnyMapping[str, Any]
PROMPT_NAMES = ("question", "instruction", "messages", "dialogue", "text")
ANSWER_NAMES = ("answer", "response", "output")
SIDES = (("answer1", "answer2"), ("answer_a", "answer_b"), ("response_a", "response_b"), ("text1", "text2"))
RATING_UP_FROM, RATING_DOWN_TO = 4.0, 2.0
"""For ratings without bounds in the mapping: of five stars (the tag's default), four are up and two are down."""


def task(row: Row, mapping: Mapping, *, now: datetime) -> list[Draft]:
    """What the people who annotated a task have said; raises `BadRow` where it is none, or is not understood."""
    data, annotations = row.get("data"), row.get("annotations", row.get("completions"))
    if not isinstance(data, AnyMapping) or not isinstance(annotations, list):
        raise BadRow("no task of Label Studio: it needs data and annotations (export as JSON, not as JSON-MIN or CSV)")
    found: list[Draft] = []
    for annotation in annotations:
        if not isinstance(annotation, AnyMapping) or not isinstance(annotation.get("result"), list):
            raise BadRow("an annotation has no result")
        if not annotation.get("was_cancelled"):
            found += _annotation(data, annotation, mapping, now)
    return found


def _annotation(data: Row, annotation: Row, mapping: Mapping, now: datetime) -> list[Draft]:
    results = [r for r in annotation["result"] if isinstance(r, AnyMapping) and isinstance(r.get("value"), AnyMapping)]
    prompt = _prompt(mapping.get(data, "prompt", *PROMPT_NAMES))
    rater, time = _rater(annotation), mapping.moment(annotation.get("created_at"), now=now)
    for result in results:
        verdict = _verdict(result, mapping)
        if verdict is not None:
            left, right = _sides(data, result, mapping)
            seconds = _seconds(annotation.get("lead_time"))
            return [Compared(prompt, left, right, verdict, rater=rater, time=time, seconds=seconds)]
    said = _said(results, mapping)
    if said is None:
        raise BadRow("an annotation holds neither a pairwise choice nor a rating, a choice or a text")
    if not said:
        return []
    completion = _completion(data, results, mapping)
    return [Rated(prompt, completion, user=rater, time=time, model=mapping.words(data, "model"), **said)]


def _verdict(result: Row, mapping: Mapping) -> Verdict | None:
    if result.get("type") == "pairwise":
        return _selected(result)
    if result.get("type") == "choices" and {"left", "right"} <= mapping.columns.keys():
        choices = result["value"].get("choices")
        if isinstance(choices, list) and len(choices) == 1:
            verdict = mapping.verdict_of(str(choices[0]))
            if verdict is None:
                raise BadRow(f"the choice {str(choices[0])[:40]!r} is no verdict; name it in the mapping's [verdict]")
            return verdict
    return None


def _selected(result: Row) -> Verdict:
    """`left` or `right`, or the name of a side where the project gives them names (`leftChoiceValue`)."""
    selected = result["value"].get("selected")
    first, second = _names(result) or ("left", "right")
    for verdict, words in ((Verdict.LEFT, ("left", first)), (Verdict.RIGHT, ("right", second))):
        if selected in words:
            return verdict
    raise BadRow(f"the pairwise choice {str(selected)[:40]!r} is neither left nor right")


def _sides(data: Row, result: Row, mapping: Mapping) -> tuple[str, str]:
    if {"left", "right"} <= mapping.columns.keys():
        sides = {"left": mapping.get(data, "left"), "right": mapping.get(data, "right")}
        return read_text(sides, "left"), read_text(sides, "right")
    named = _names(result)
    for left, right in (*((named,) if named else ()), *SIDES):
        if left in data and right in data:
            return read_text(data, left), read_text(data, right)
    raise BadRow(
        f"the two answers are not in the task's data ({', '.join(map(str, data))}); name them by the mapping's"
        " columns left and right"
    )


def _names(result: Row) -> tuple[str, str] | None:
    to_name = result.get("to_name")
    names = to_name if isinstance(to_name, list) else str(to_name or "").split(",")
    return (str(names[0]).strip(), str(names[1]).strip()) if len(names) == 2 else None


def _said(results: Sequence[Row], mapping: Mapping) -> dict[str, Any] | None:
    """Thumb, comment and correction of one annotation; None where it holds nothing that could be one."""
    said: dict[str, Any] = {}
    for result in results:
        value, kind = result["value"], result.get("type")
        if kind == "rating" and value.get("rating") is not None:
            said["thumb"] = _rating(value["rating"], mapping)
        elif kind == "choices" and isinstance(value.get("choices"), list) and len(value["choices"]) == 1:
            said["thumb"] = mapping.thumb_of(value["choices"][0])
        elif kind == "textarea" and value.get("text"):
            text = value["text"]
            name = "correction" if "correct" in str(result.get("from_name", "")).lower() else "comment"
            said[name] = "\n".join(map(str, text)) if isinstance(text, list) else str(text)
    return {name: what for name, what in said.items() if what is not None} if said else None


def _rating(value: Any, mapping: Mapping) -> bool | None:
    if mapping.thumb.up_from is None and mapping.thumb.down_to is None:
        bounds = mapping.thumb.model_copy(update={"up_from": RATING_UP_FROM, "down_to": RATING_DOWN_TO})
        mapping = mapping.model_copy(update={"thumb": bounds})
    return mapping.thumb_of(value)


def _completion(data: Row, results: Sequence[Row], mapping: Mapping) -> str:
    found = mapping.get(data, "completion", *ANSWER_NAMES)
    if found is None:
        named = [str(r.get("to_name")) for r in results if str(r.get("to_name")) in data]
        found = data[named[0]] if named else None
    return read_text({"completion": found}, "completion")


def _prompt(value: Any) -> Prompt:
    try:
        return read_prompt(value)
    except ValidationError as error:
        raise bad_row(error) from error


def _rater(annotation: Row) -> str:
    """By number: a person's address is not needed to tell them apart."""
    by = annotation.get("completed_by")
    number = by.get("id") if isinstance(by, AnyMapping) else by
    return f"label-studio:{number if isinstance(number, int | str) else 'unknown'}"[:200]


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0
