"""The AsyncAPI document is valid, and says of every topic what the code does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas import asyncapi, publish, topics
from schemas.envelope import encode, new_event
from streams.adapters.dead_letters import Letter
from tests.contract.make_golden import EXAMPLES, MOMENT, stem

ROOT = Path(__file__).parent.parent.parent
OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0.json"
BY_TOPIC = pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads((publish.FOLDER / publish.ASYNCAPI).read_text())


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref" and isinstance(value, str))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from references(child)


def standalone(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_the_document_satisfies_the_official_schema(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).validate(document)


def test_the_official_schema_would_refuse_a_document_with_a_mistake(document: dict[str, Any]) -> None:
    channel = {**document["channels"]["outputs"], "adress": "misspelt"}
    wrong = document | {"channels": {"outputs": channel}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).validate(wrong)


def test_every_reference_leads_to_something(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > len(topics.ALL)
    for reference in found:
        assert isinstance(resolve(document, reference), dict), reference


def test_every_topic_and_its_dead_letters_are_channels_as_they_are_made(document: dict[str, Any]) -> None:
    said = {}
    for channel in document["channels"].values():
        kafka = channel["bindings"]["kafka"]
        settings = {n: v[0] if isinstance(v, list) else str(v) for n, v in kafka["topicConfiguration"].items()}
        said[channel["address"]] = (kafka["partitions"], settings)
        assert kafka["topic"] == channel["address"]
    assert said == topics.plan()


@BY_TOPIC
def test_a_message_as_it_is_written_satisfies_what_its_channel_says(
    document: dict[str, Any], topic: topics.Topic
) -> None:
    example = EXAMPLES[stem(next(e for e in EXAMPLES.values() if type(e) is topic.payload), 1)]
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    written = encode(new_event(example, source="test", time=MOMENT, traceparent=traceparent))
    [reference] = document["channels"][topic.payload.schema_name]["messages"].values()
    message = resolve(document, reference["$ref"])
    headers = {name: value.decode() for name, value in written.headers}
    assert set(headers) == set(message["headers"]["properties"])
    jsonschema.validate(headers, message["headers"])
    jsonschema.validate(json.loads(written.value), standalone(document, message["payload"]))
    jsonschema.validate(written.key.decode(), message["bindings"]["kafka"]["key"])


@BY_TOPIC
def test_a_header_that_is_not_the_topics_own_is_refused(document: dict[str, Any], topic: topics.Topic) -> None:
    headers = document["components"]["messages"][topic.payload.schema_name]["headers"]
    example = next(e for e in EXAMPLES.values() if type(e) is topic.payload)
    right = {name: value.decode() for name, value in encode(new_event(example, source="test")).headers}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(right | {"ce_type": "thumbwheel.other.v1"}, headers)


def test_a_dead_letter_has_the_headers_that_the_document_names(document: dict[str, Any]) -> None:
    letter = Letter("thumbwheel.outputs.v1", 0, 7, "malformed_json", "no JSON", None, b"x", ())
    _, _, headers = letter.message(MOMENT)
    said = document["components"]["messages"]["dead-letter"]["headers"]
    assert {name for name, _ in headers} == set(said["properties"])


@BY_TOPIC
def test_who_is_said_to_use_a_topic_knows_its_payload(document: dict[str, Any], topic: topics.Topic) -> None:
    channel = f"#/channels/{topic.payload.schema_name}"
    users = {
        operation["tags"][0]["name"]
        for operation in document["operations"].values()
        if operation["channel"]["$ref"] == channel
    }
    stored = {"streams"} if topic.table else set()  # ingest reads these by the topic table, without naming them
    for package in users - {"sdk"} - stored:
        sources = "\n".join(path.read_text() for path in (ROOT / package).rglob("*.py"))
        assert re.search(rf"\b{topic.payload.__name__}\b", sources), package


def test_the_version_counts_the_revisions_after_the_first() -> None:
    revisions = dict.fromkeys(topics.BY_NAME, 1) | {"thumbwheel.outputs.v1": 3, "thumbwheel.audit.v1": 2}
    assert asyncapi.document(revisions)["info"]["version"] == "1.3.0"
