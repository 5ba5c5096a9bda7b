"""The compatibility check must refuse each kind of change that breaks somebody."""

import json
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from schemas import publish
from schemas.compatibility import findings, incompatibilities, meaning, notes
from schemas.messages import Closed


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Red(StrEnum):
    RED = "red"


class Inner(Closed):
    size: int


class InnerText(Closed):
    size: str


class Before(Closed):
    name: str
    note: str | None = None
    colour: Colour = Colour.RED
    inner: tuple[Inner, ...] = ()


def changes(after: type[Closed]) -> list[str]:
    return incompatibilities(Before.model_json_schema(), after.model_json_schema())


def test_the_same_schema_is_compatible() -> None:
    assert changes(Before) == []


def test_a_new_optional_field_is_compatible() -> None:
    class After(Before):
        more: int = 0

    assert changes(After) == []


def test_a_new_required_field_is_refused() -> None:
    class After(Before):
        more: int

    assert changes(After) == ["more: is required now, and was not"]


def test_a_field_that_becomes_required_is_refused() -> None:
    class After(Before):
        note: str | None

    assert changes(After) == ["note: is required now, and was not"]


def test_a_removed_field_is_refused() -> None:
    class After(Closed):
        note: str | None = None
        colour: Colour = Colour.RED
        inner: tuple[Inner, ...] = ()

    assert changes(After) == ["name: the field is gone"]


def test_a_changed_type_is_refused() -> None:
    class After(Before):
        name: int  # type: ignore[assignment]

    assert changes(After) == ["name: was string, now integer"]


def test_a_null_no_longer_allowed_is_refused() -> None:
    class After(Before):
        note: str = ""  # type: ignore[assignment]

    assert changes(After) == ["note: was null, now string"]


def test_a_withdrawn_enum_value_is_refused() -> None:
    class After(Before):
        colour: Red = Red.RED  # type: ignore[assignment]

    assert changes(After) == ["colour: the values blue are gone"]


def test_a_change_inside_a_list_is_refused() -> None:
    class After(Before):
        inner: tuple[InnerText, ...] = ()  # type: ignore[assignment]

    assert changes(After) == ["inner[].size: was integer, now string"]


def schema(field: dict[str, Any], *, required: bool = True, **definitions: Any) -> dict[str, Any]:
    """An object with the one field `x`."""
    return {
        "type": "object",
        "properties": {"x": field},
        "required": ["x"] if required else [],
        "additionalProperties": False,
        "$defs": definitions,
    }


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"], "title": "Cat"}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"], "title": "Dog"}
TAGGED = {"oneOf": [CAT, DOG], "discriminator": {"propertyName": "kind"}}

BREAKS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a lower upper bound": ({"maximum": 5}, {"maximum": 4}, "x: upper bound is tighter: 5 before, 4 now"),
    "a new lower bound": ({}, {"minimum": -1}, "x: lower bound is tighter: none before, -1 now"),
    "a bound that leaves itself out": (
        {"type": "number", "minimum": 0},
        {"type": "number", "exclusiveMinimum": 0},
        "x: lower bound is tighter: 0 before, 0 (exclusive) now",
    ),
    "a shorter text": ({"maxLength": 9}, {"maxLength": 8}, "x: maxLength is tighter: 9 before, 8 now"),
    "a text that can't be empty": ({}, {"minLength": 1}, "x: minLength is tighter: 0 before, 1 now"),
    "a list that can't be empty": ({}, {"minItems": 1}, "x: minItems is tighter: 0 before, 1 now"),
    "a shorter list": ({}, {"maxItems": 3}, "x: maxItems is tighter: none before, 3 now"),
    "a list without repeats": ({}, {"uniqueItems": True}, "x: uniqueItems changed"),
    "another pattern": ({"pattern": "^a"}, {"pattern": "^b"}, "x: pattern was ^a, now ^b"),
    "a new pattern": ({}, {"pattern": "^b"}, "x: pattern was any, now ^b"),
    "a format withdrawn": ({"format": "date-time"}, {}, "x: format was date-time, now any"),
    "another constant": ({"const": "a"}, {"const": "b"}, "x: the values a are gone"),
    "a constant where any value was": ({}, {"const": "a"}, "x: took any value, now only a"),
    "an enum that became a constant": ({"enum": ["a", "b"]}, {"const": "a"}, "x: the values b are gone"),
    "an enum value withdrawn inside a list": (
        {"type": "array", "items": {"enum": ["a", "b"]}},
        {"type": "array", "items": {"enum": ["b"]}},
        "x[]: the values a are gone",
    ),
    "another kind of item": (
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        "x[]: was string, now integer",
    ),
    "items where any item was": ({"type": "array"}, {"type": "array", "items": {"type": "string"}}, "x[]: was any"),
    "an open object that closes": (
        {"type": "object"},
        {"type": "object", "additionalProperties": False},
        "x.*: can't be there any more",
    ),
    "a map of another type": (
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        "x.*: was number, now string",
    ),
    "a field of another type where a map could hold it": (
        {"type": "object", "additionalProperties": {"type": "number"}},
        {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "properties": {"a": {"type": "string"}},
        },
        "x.a: was number, now string",
    ),
    "a type that grew": ({"type": "integer"}, {"type": "number"}, "x: was integer, now number"),
    "a null that readers don't expect": (
        {"type": "string"},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "x: may be null now; readers of today expect string",
    ),
    "a change in a definition": (
        {"$ref": "#/$defs/Old"},
        {"$ref": "#/$defs/New"},
        "x: maxLength is tighter: 5 before, 4 now",
    ),
    "a changed alternative": (TAGGED, {**TAGGED, "oneOf": [CAT]}, "x.kind: the values dog are gone"),
    "another tag": (TAGGED, {**TAGGED, "discriminator": {"propertyName": "sort"}}, "x: `oneOf` changed"),
    "a keyword that the check doesn't know": ({}, {"not": {"const": 1}}, "x: `not` changed"),
}  # fmt: skip


@pytest.mark.parametrize("case", BREAKS)
def test_what_breaks_an_old_event_or_every_reader_is_refused(case: str) -> None:
    before, after, line = BREAKS[case]
    definitions = {"Old": {"type": "string", "maxLength": 5}, "New": {"type": "string", "maxLength": 4}}
    found = incompatibilities(schema(before, **definitions), schema(after, **definitions))
    assert found[0].startswith(line)


NOTED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a new enum value": ({"enum": ["a"]}, {"enum": ["a", "b"]}, ["x: the values b are new"]),
    "a new enum value inside a list": (
        {"type": "array", "items": {"enum": ["a"]}},
        {"type": "array", "items": {"enum": ["b", "a"]}},
        ["x[]: the values b are new"],
    ),
    "a wider bound": ({"maximum": 4}, {"maximum": 5}, ["x: upper bound is wider: 4 before, 5 now"]),
    "no bound any more": ({"minLength": 1}, {}, ["x: minLength is wider: 1 before, 0 now"]),
    "a pattern withdrawn": ({"pattern": "^a"}, {}, ["x: pattern was ^a, now any"]),
    "another alternative under the same tag": (
        {**TAGGED, "oneOf": [CAT]},
        TAGGED,
        ["x: has another form of object now"],
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_values_that_a_reader_does_not_know_yet_are_noted(case: str) -> None:
    before, after, lines = NOTED[case]
    assert incompatibilities(schema(before), schema(after)) == []
    assert notes(schema(before), schema(after)) == lines


def test_another_default_is_refused_where_the_field_may_be_left_out() -> None:
    before, after = {"type": "integer", "default": 1}, {"type": "integer", "default": 2}
    said = incompatibilities(schema(before, required=False), schema(after, required=False))
    assert said == ["x: where left out it was 1, now 2"]
    assert incompatibilities(schema(before), schema(after)) == []


def test_a_field_that_may_be_left_out_from_now_on_is_refused() -> None:
    text = {"type": "string"}
    assert incompatibilities(schema(text), schema(text, required=False)) == [
        "x: may be left out now; readers of today need it"
    ]


def test_above_nought_and_at_least_one_are_the_same_for_whole_numbers() -> None:
    before, after = {"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}
    assert findings(schema(before), schema(after)) == []
    assert findings(schema(after), schema(before)) == []


def test_words_and_the_order_of_alternatives_mean_nothing() -> None:
    before = {"description": "a", "anyOf": [{"type": "string"}, {"type": "null"}]}
    after = {"title": "X", "anyOf": [{"type": "null"}, {"type": "string", "description": "b"}]}
    assert findings(schema(before), schema(after)) == []


def test_a_definition_that_holds_itself_is_compared_once() -> None:
    def tree(size: int) -> dict[str, Any]:
        node = {"type": "object", "properties": {"size": {"maximum": size}, "next": {"$ref": "#/$defs/Node"}}}
        return schema({"$ref": "#/$defs/Node"}, Node=node)

    assert incompatibilities(tree(5), tree(4)) == ["x.size: upper bound is tighter: 5 before, 4 now"]


def test_meaning_drops_words_and_keeps_fields_that_are_called_like_them() -> None:
    described = {"title": "T", "properties": {"title": {"type": "string", "description": "d"}}}
    assert meaning(described) == {"properties": {"title": {"type": "string"}}}


def test_what_is_published_in_the_repository_is_what_the_code_says() -> None:
    assert publish.main(["--check"]) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of published schemas of its own, in which nothing is amiss."""
    return Path(shutil.copytree(publish.FOLDER, tmp_path / "published"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2) + "\n")


def test_the_check_refuses_what_breaks_any_released_revision_not_only_the_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder / "released" / "thumbwheel.audit.v1" / "1.json"
    edit(first, lambda document: document["properties"]["action"]["enum"].append("coronation"))
    assert publish.main(["--check"], folder) == 1
    expected = "thumbwheel.audit.v1 revision 1: action: the values coronation are gone\n"
    assert capsys.readouterr().err == expected


def test_nothing_is_written_while_a_change_is_incompatible(folder: Path) -> None:
    edit(
        folder / "released" / "thumbwheel.slis.v1" / "1.json",
        lambda document: document["properties"].update(gone={"type": "string"}),
    )
    (folder / "thumbwheel.audit.v1.json").unlink()
    assert publish.main([], folder) == 1
    assert not (folder / "thumbwheel.audit.v1.json").exists()


def test_a_topic_that_was_published_can_not_disappear(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "released" / "thumbwheel.votes.v1").mkdir()
    assert publish.main(["--check"], folder) == 1
    assert capsys.readouterr().err == "thumbwheel.votes.v1: was published and is no topic any more\n"


def test_an_additive_change_is_published_as_the_next_revision_with_a_note_for_readers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revisions = folder / "released" / "thumbwheel.audit.v1"
    (revisions / "3.json").unlink()  # as if today's code had just grown what revision 3 has
    assert publish.main(["--check"], folder) == 1
    assert publish.main([], folder) == 0
    assert publish.main(["--check"], folder) == 0
    today = json.loads((revisions / "3.json").read_text())
    assert today == json.loads((publish.FOLDER / "thumbwheel.audit.v1.json").read_text())
    said = capsys.readouterr().err
    assert "thumbwheel.audit.v1 has a new revision 3" in said
    assert "note for readers: action: the values version_approval, version_decline are new" in said


def test_a_change_of_words_makes_no_revision(folder: Path) -> None:
    latest = folder / "released" / "thumbwheel.audit.v1" / "3.json"
    edit(latest, lambda document: document.update(description="An act, in other words."))
    (folder / "thumbwheel.audit.v1.json").unlink()
    assert publish.main([], folder) == 0
    assert sorted(path.name for path in latest.parent.iterdir()) == ["1.json", "2.json", "3.json"]
    assert json.loads(latest.read_text())["description"] == "An act, in other words."
