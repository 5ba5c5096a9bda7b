"""The compatibility check and a validator must agree, whatever somebody does to a schema."""

import json
from typing import Any

import jsonschema
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from schemas.compatibility import findings, incompatibilities, notes
from tests.unit.schemas.schema_strategies import events, mutated, places, related, schemas

PATIENT = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def takes(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def drawn_events(data: st.DataObject, schema: dict[str, Any]) -> list[Any]:
    every = events(schema, schema)
    values = [] if every.is_empty else data.draw(st.lists(every, min_size=8, max_size=8), label="events")
    kept = [value for value in values if takes(schema, value)]  # a mutation adds what the generator passes over
    assume(kept)
    return kept


def opened(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as a program of its day reads it: it passes over fields that it doesn't know."""
    copy = json.loads(json.dumps(schema))
    for place in places(copy):
        if place.get("additionalProperties") is False:
            del place["additionalProperties"]
    return copy


@PATIENT
@given(st.data())
def test_an_old_event_is_valid_under_every_schema_that_the_check_lets_pass(data: st.DataObject) -> None:
    old = data.draw(schemas(), label="old")
    new = data.draw(mutated(old), label="new")
    passes = incompatibilities(old, new) == []
    event(f"lets pass: {passes}")
    if passes:
        assert all(takes(new, value) for value in drawn_events(data, old))


@PATIENT
@given(st.data())
def test_a_program_of_the_old_schema_reads_new_events_where_the_check_finds_nothing(data: st.DataObject) -> None:
    old = data.draw(schemas(), label="old")
    new = data.draw(mutated(old), label="new")
    nothing = findings(old, new) == []
    event(f"finds nothing: {nothing}")
    if nothing:
        assert all(takes(opened(old), value) for value in drawn_events(data, new))


@PATIENT
@given(related(), st.data())
def test_the_check_agrees_with_a_validator_about_two_schemas_of_one_kind(
    pair: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    old, new = pair
    if incompatibilities(old, new) == []:
        assert all(takes(new, value) for value in drawn_events(data, old))
    if findings(old, new) == []:
        assert all(takes(opened(old), value) for value in drawn_events(data, new))


@PATIENT
@given(schemas())
def test_a_schema_is_compatible_with_itself_and_there_is_nothing_to_note(schema: dict[str, Any]) -> None:
    assert findings(schema, json.loads(json.dumps(schema))) == []


@PATIENT
@given(st.data())
def test_what_is_an_incompatibility_is_not_a_note_as_well(data: st.DataObject) -> None:
    old = data.draw(schemas())
    new = data.draw(mutated(old))
    assert not set(incompatibilities(old, new)) & set(notes(old, new))
