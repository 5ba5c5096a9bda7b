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
from tests.contract.make_golden import EXAMPLES, FOLDER, MOMENT

GOLDEN = sorted(FOLDER.glob("*.json"))


def read(path: Path) -> tuple[topics.Topic, bytes, list[tuple[str, bytes]], dict[str, Any]]:
    body = json.loads(path.read_text())
    headers = [(name, text.encode()) for name, text in body["headers"].items()]
    return topics.BY_NAME[path.stem], json.dumps(body["value"]).encode(), headers, body


def test_every_topic_has_a_golden_event() -> None:
    assert {path.stem for path in GOLDEN} == set(topics.BY_NAME)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_reads_as_the_example_it_was_made_from(path: Path) -> None:
    topic, value, headers, _ = read(path)
    example = next(e for e in EXAMPLES if type(e) is topic.payload)
    event = decode(topic.payload, value, headers)
    assert event.data == example
    assert event.time == MOMENT


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_is_written_today_as_it_was_then(path: Path) -> None:
    topic, value, headers, body = read(path)
    message = encode(decode(topic.payload, value, headers))
    assert message.key.decode() == body["key"]
    assert json.loads(message.value) == body["value"]
    assert dict(message.headers) == dict(headers)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_satisfies_the_published_json_schema(path: Path) -> None:
    schema = json.loads((publish.FOLDER / path.name).read_text())
    jsonschema.validate(json.loads(path.read_text())["value"], schema)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_a_golden_event_read_in_structured_mode_is_the_same_event(path: Path) -> None:
    topic, value, headers, body = read(path)
    attributes = {n.removeprefix("ce_"): v for n, v in body["headers"].items() if n.startswith("ce_")}
    structured = json.dumps({**attributes, "data": body["value"]}).encode()
    content_type = [("Content-Type", b"Application/CloudEvents+JSON; charset=UTF-8")]
    assert decode(topic.payload, structured, content_type) == decode(topic.payload, value, headers)


@pytest.mark.parametrize("table", [t for t in tables.ALL if t.topic], ids=lambda t: t.name)
def test_a_golden_event_fits_its_tables_arrow_schema(table: tables.Table) -> None:
    assert table.topic is not None
    _, value, headers, _ = read(FOLDER / f"{table.topic.name}.json")
    row = tables.event_row(decode(table.topic.payload, value, headers), partition=0, offset=3, ingested_at=MOMENT)
    schema = pa.schema(deltalake.Schema.from_json(table.delta_schema()).to_arrow())
    stored = pa.Table.from_pylist([row], schema=schema)
    stored.validate(full=True)
    assert set(row) == set(schema.names)
    assert stored.column("event_id").to_pylist() == [f"golden-{table.topic.payload.schema_name}"]


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)
def test_the_published_json_schema_is_what_the_code_says(topic: topics.Topic) -> None:
    published = json.loads((publish.FOLDER / f"{topic.name}.json").read_text())
    assert published == publish.json_schema(topic.payload), "run python -m schemas.publish"
