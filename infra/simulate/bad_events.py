"""Messages that are no events, sent on purpose: each must end as a dead letter with its reason, and stop nothing."""

import json

from confluent_kafka import Producer

from schemas import topics
from schemas.connection import KafkaConnection
from schemas.envelope import Message, encode, new_event
from schemas.feedback import Feedback, FeedbackKind

_GOOD = Feedback(response_id="chatcmpl-" + "0" * 32, kind=FeedbackKind.FLAG)


def bad_messages() -> tuple[tuple[str, Message], ...]:
    """(topic, message) pairs, each bad in its own way."""
    good = encode(new_event(_GOOD, source="infra/simulate/bad_events"))
    unknown_kind = json.dumps({"response_id": _GOOD.response_id, "kind": "applause"}).encode()
    feedback = topics.FEEDBACK.name
    return (
        (feedback, good._replace(value=b'{"response_id": "chatcmpl-')),
        (feedback, good._replace(value=b"\xff\xfe not text")),
        (feedback, good._replace(value=unknown_kind)),
        (feedback, good._replace(headers=[h for h in good.headers if h[0] != "ce_id"])),
        (topics.OUTPUTS.name, good),
        (topics.LABELS.name, good._replace(value=b"")),
    )


def send(kafka: KafkaConnection) -> int:
    """Send them all, straight to the log; how many."""
    producer = Producer(dict(kafka.client_config()) | {"acks": "all", "log_level": "0"})
    messages = bad_messages()
    for topic, message in messages:
        producer.produce(topic, value=message.value, key=message.key, headers=dict(message.headers))
    return len(messages) - producer.flush(10)
