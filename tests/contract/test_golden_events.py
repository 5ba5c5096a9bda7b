"""Events of every released schema are read forever, and today's models say the same of them."""

import json
from pathlib import Path
from typing import Any

import deltalake
import jsonschema
import pyarrow as pa
import pytest

from schemas import publish, tables, topics
from schemas.envelope import decode, encode
from tests.contract.make_golden import EXAMPLES, FOLDER, MOMENT, event_id

GOLDEN = sorted(FOLDER.glob("*.json"))
STORED = [path for path in GOLDEN if ".".join(path.stem.split(".")[:3]) in tables.BY_TOPIC]


def topic_of(path: Path) -> topics.Topic:
    return topics.BY_NAME[".".join(path.stem.split(".")[:3])]


def revision_of(path: Path) -> int:
    return int((path.stem.split(".")[3:] or ["1"])[0])


def read(path: Path) -> tuple[topics.Topic, bytes, list[tuple[str, bytes]], dict[str, Any]]:
    body = json.loads(path.read_text())
    headers = [(name, text.encode()) for name, text in body["headers"].items()]
    return topic_of(path), json.dumps(body["value"]).encode(), headers, body


def test_every_released_revision_of_every_topic_has_a_golden_event() -> None:
    released = {(name, revision) for name in topics.BY_NAME for revision in publish.released(name)}
    assert {(topic_of(path).name, revision_of(path)) for path in GOLDEN} == released
    assert {name for name, _ in released} == set(topics.BY_NAME)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_reads_as_the_example_it_was_made_from(path: Path) -> None:
    topic, value, headers, _ = read(path)
    event = decode(topic.payload, value, headers)
    assert event.data == EXAMPLES[path.stem]
    assert event.time == MOMENT


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_is_written_today_as_it_was_then(path: Path) -> None:
    topic, value, headers, body = read(path)
    message = encode(decode(topic.payload, value, headers))
    assert message.key.decode() == body["key"]
    assert json.loads(message.value) == body["value"]
    assert dict(message.headers) == dict(headers)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_satisfies_its_own_schema_and_every_later_one(path: Path) -> None:
    value = json.loads(path.read_text())["value"]
    schemas = publish.released(topic_of(path).name)
    for revision in range(revision_of(path), max(schemas) + 1):
        jsonschema.validate(value, schemas[revision])
    jsonschema.validate(value, publish.json_schema(topic_of(path).payload))


@pytest.mark.parametrize("path", [p for p in GOLDEN if revision_of(p) > 1], ids=lambda p: p.stem)
def test_a_golden_event_of_a_later_revision_says_what_the_one_before_could_not(path: Path) -> None:
    before = publish.released(topic_of(path).name)[revision_of(path) - 1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(path.read_text())["value"], before)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_read_in_structured_mode_is_the_same_event(path: Path) -> None:
    topic, value, headers, body = read(path)
    attributes = {n.removeprefix("ce_"): v for n, v in body["headers"].items() if n.startswith("ce_")}
    structured = json.dumps({**attributes, "data": body["value"]}).encode()
    content_type = [("Content-Type", b"Application/CloudEvents+JSON; charset=UTF-8")]
    assert decode(topic.payload, structured, content_type) == decode(topic.payload, value, headers)


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_a_golden_event_fits_its_tables_arrow_schema(path: Path) -> None:
    topic, value, headers, _ = read(path)
    table = tables.BY_TOPIC[topic.name]
    row = tables.event_row(decode(topic.payload, value, headers), partition=0, offset=3, ingested_at=MOMENT)
    schema = pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())
    stored = pa.Table.from_pylist([row], schema=schema)
    stored.validate(full=True)
    assert set(row) == set(schema.names)
    assert stored.column("event_id").to_pylist() == [event_id(path.stem)]


def test_every_table_that_is_appended_from_a_topic_was_tried() -> None:
    assert {topic_of(path).name for path in STORED} == set(tables.BY_TOPIC)


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)
def test_the_published_json_schema_is_what_the_code_says(topic: topics.Topic) -> None:
    published = json.loads((publish.FOLDER / f"{topic.name}.json").read_text())
    assert published == publish.json_schema(topic.payload), "run python -m schemas.publish"
