"""The AsyncAPI 3.0 document: every topic, what is on it, who writes it and who reads it, for people and generators.

Made from the topic table, the payload models and the envelope; `python -m schemas.publish` writes it to
`schemas/published/asyncapi.json`. https://www.asyncapi.com/docs/reference/specification/v3.0.0 and, for `bindings`,
https://github.com/asyncapi/bindings/tree/master/kafka (version 0.5.0).
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from schemas import topics
from schemas.envelope import SPEC_VERSION, data_schema
from schemas.messages import Payload
from schemas.topics import Topic

Node = dict[str, Any]

BINDING_VERSION = "0.5.0"
_STREAMS = "streams"
SENDERS: Mapping[Topic, tuple[str, ...]] = {
    topics.OUTPUTS: ("serving", "sdk"),
    topics.FEEDBACK: ("serving", "sdk"),
    topics.LABEL_TASKS: (_STREAMS,),
    topics.LABELS: ("infra",),
    topics.PREFERENCES: (_STREAMS,),
    topics.MODEL_VERSIONS: ("trainer", "serving", "infra"),
    topics.CYCLES: ("trainer",),
    topics.SLIS: (_STREAMS,),
    topics.ALERTS: (),  # nothing raises alerts yet
    topics.AUDIT: ("serving", "infra"),
}
"""Who writes a topic: a package of the project, or an SDK that publishes without the gateway."""

READERS: Mapping[Topic, tuple[str, ...]] = {topics.MODEL_VERSIONS: ("serving", "trainer", "infra")}
"""Who reads a topic beside `streams`, which stores every topic that has a table."""

_TEXT: Node = {"type": "string"}
_CLOUD_EVENT: Mapping[str, Node] = {
    "ce_specversion": _TEXT | {"const": SPEC_VERSION},
    "ce_id": _TEXT | {"minLength": 1, "maxLength": 200, "description": "Stable under retry: sent twice, counts once."},
    "ce_source": _TEXT | {"minLength": 1, "description": "The program that made the event."},
    "ce_time": _TEXT | {"format": "date-time", "description": "When it happened: RFC 3339 with a time zone."},
    "ce_subject": _TEXT | {"description": "The partition key."},
    "content-type": _TEXT | {"const": "application/json"},
    "traceparent": _TEXT
    | {"pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", "description": "W3C trace context."},
}
_ALWAYS_SENT = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"]
_DEAD_LETTER: Mapping[str, str] = {
    "thumbwheel_error_reason": "Why it is no event of its topic, in one countable word.",
    "thumbwheel_error_detail": "The same in a sentence.",
    "thumbwheel_error_topic": "Where it came from.",
    "thumbwheel_error_partition": "Its partition there.",
    "thumbwheel_error_offset": "Its offset there.",
    "thumbwheel_error_time": "When it was found to be bad.",
    "thumbwheel_dead_letter_id": "The same for the same message, however often it is found.",
}


def document(revisions: Mapping[str, int]) -> Node:
    """The whole document. `revisions` has the newest published revision of each topic's schema."""
    # Each revision after the first one was an additive change: a minor version of the whole.
    version = f"1.{sum(revision - 1 for revision in revisions.values())}.0"
    return {
        "asyncapi": "3.0.0",
        "id": "urn:thumbwheel",
        "info": _info(version),
        "defaultContentType": "application/json",
        "servers": {"kafka": _server()},
        "channels": {name: channel for topic in topics.ALL for name, channel in _channels(topic)},
        "operations": {name: operation for topic in topics.ALL for name, operation in _operations(topic)},
        "components": {
            "messages": {topic.payload.schema_name: _message(topic, revisions[topic.name]) for topic in topics.ALL}
            | {"dead-letter": _dead_letter()},
            "schemas": _schemas(),
        },
    }


def _info(version: str) -> Node:
    return {
        "title": "Thumbwheel's events",
        "version": version,
        "description": (
            "Answers of a language model, what people say of them, and what is made of that. CloudEvents 1.0 on "
            "Kafka in binary mode: the attributes are headers, the value is the JSON payload. Readers pass over "
            "fields that they don't know, and should expect new values of an enum."
        ),
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _server() -> Node:
    return {
        "host": "{bootstrap_servers}",
        "protocol": "kafka",
        "description": "Your Kafka cluster, or the embedded broker.",
        "variables": {"bootstrap_servers": {"default": "127.0.0.1:9092"}},
    }


def _ref(*path: str) -> Node:
    return {"$ref": "#/" + "/".join(path)}


def _channels(topic: Topic) -> Iterator[tuple[str, Node]]:
    name = topic.payload.schema_name
    stored = f" Stored in the table `{topic.table}`." if topic.table else ""
    yield name, _channel(topic.name, topic.partitions, topic.config(), name, _first(topic.payload) + stored)
    what = f"Messages of {topic.name} that were no events of it: the bytes as they came."
    yield f"{name}.dlq", _channel(topic.dlq, 1, topics.dlq_config(), "dead-letter", what)


def _channel(address: str, partitions: int, config: Mapping[str, str], message: str, description: str) -> Node:
    settings = {key: [value] if key == "cleanup.policy" else int(value) for key, value in config.items()}
    return {
        "address": address,
        "description": description,
        "messages": {message: _ref("components", "messages", message)},
        "bindings": {
            "kafka": {
                "topic": address,
                "partitions": partitions,
                "topicConfiguration": settings,
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _operations(topic: Topic) -> Iterator[tuple[str, Node]]:
    channel, stored = topic.payload.schema_name, (_STREAMS,) if topic.table else ()
    for sender in SENDERS[topic]:
        yield _operation("send", sender, channel, channel)
    for reader in stored + READERS.get(topic, ()):
        yield _operation("receive", reader, channel, channel)
    if topic.table:
        yield _operation("send", _STREAMS, f"{channel}.dlq", "dead-letter")


def _operation(action: str, application: str, channel: str, message: str) -> tuple[str, Node]:
    return f"{application}.{action}.{channel}", {
        "action": action,
        "channel": _ref("channels", channel),
        "messages": [_ref("channels", channel, "messages", message)],
        "tags": [{"name": application}],
    }


def _message(topic: Topic, revision: int) -> Node:
    headers = {"ce_type": {"const": topic.name}, "ce_dataschema": {"const": data_schema(topic.payload)}}
    return {
        "name": topic.name,
        "title": topic.payload.__name__,
        "summary": _first(topic.payload),
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": dict(_CLOUD_EVENT) | {name: _TEXT | value for name, value in headers.items()},
            "required": _ALWAYS_SENT,
        },
        "payload": _ref("components", "schemas", topic.payload.__name__),
        "bindings": {"kafka": {"key": _TEXT | {"description": topic.key}, "bindingVersion": BINDING_VERSION}},
        "x-schema-revision": revision,
    }


def _dead_letter() -> Node:
    headers = {name: _TEXT | {"description": meaning} for name, meaning in _DEAD_LETTER.items()}
    return {
        "name": "thumbwheel.dead-letter",
        "title": "DeadLetter",
        "summary": "Key, value and headers as they came, with the reason in further headers behind them.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"description": "Any bytes, or none."},
    }


def _schemas() -> Node:
    models: list[tuple[type[Payload], Any]] = [(topic.payload, "validation") for topic in topics.ALL]
    _, together = models_json_schema(models, ref_template="#/components/schemas/{model}")
    return together["$defs"]


def _first(payload: type[Payload]) -> str:
    return " ".join((inspect.getdoc(payload) or "").split("\n\n")[0].split())
