"""The same events straight to Kafka, as CloudEvents in binary mode: what the gateway would have written.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
Nothing stands between this and the log, so personal data is taken out here.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from thumbwheel_client.errors import SettingsError
from thumbwheel_client.events import Event, Feedback, Output, to_json
from thumbwheel_client.ids import prompt_id
from thumbwheel_client.outcomes import Outcome, Recorded, Rejected, Retry
from thumbwheel_client.privacy import Redacting, redacted
from thumbwheel_client.pseudonyms import protected
from thumbwheel_client.throttle import Throttle

logger = logging.getLogger(__name__)

FEEDBACK_TOPIC = "thumbwheel.feedback.v1"
OUTPUTS_TOPIC = "thumbwheel.outputs.v1"
SOURCE = "thumbwheel-client"
MAX_VALUE_BYTES = 1_000_000
DEFAULT_TEMPERATURE = 1.0
"""What the chat completions interface defines where a request doesn't say."""


class Message(NamedTuple):
    """What goes to Kafka."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def encode(event: Event, *, source: str = SOURCE) -> Message:
    """The event as a Kafka message in binary mode; the key, and so the partition, is the response id."""
    topic = FEEDBACK_TOPIC if isinstance(event, Feedback) else OUTPUTS_TOPIC
    name = topic.split(".")[1]
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event.id,
        "ce_source": source,
        "ce_type": topic,
        "ce_time": event.occurred_at,
        "ce_subject": event.response_id,
        "ce_dataschema": f"urn:thumbwheel:schema:{name}:v1",
        "content-type": "application/json",
    }
    if event.traceparent:
        attributes["traceparent"] = event.traceparent
    payload = feedback_payload(event) if isinstance(event, Feedback) else output_payload(event)
    value = to_json({name: value for name, value in payload.items() if value is not None})
    return Message(topic, event.response_id.encode(), value, [(n, v.encode()) for n, v in attributes.items()])


def feedback_payload(event: Feedback) -> dict[str, object]:
    """The data of `thumbwheel.feedback.v1`."""
    return {
        "response_id": event.response_id,
        "kind": event.kind.value,
        "text": event.text,
        "user_id": event.user,
        "purposes": event.purposes,
    }


def output_payload(event: Output) -> dict[str, object]:
    """The data of `thumbwheel.outputs.v1`. The schema wants to know more than a provider says: a temperature that was
    not given is the interface's default, unknown token counts are 0, and a limit that wasn't given is what was used."""
    metadata = event.metadata or {}
    used = event.completion_tokens or 0
    return {
        "response_id": event.response_id,
        "prompt_id": prompt_id((m.role, m.content) for m in event.messages),
        "prompt": [{"role": m.role, "content": m.content} for m in event.messages],
        "completion": event.completion,
        "version": f"external/{event.model}",
        "base_model": event.model,
        "temperature": float(DEFAULT_TEMPERATURE if event.temperature is None else event.temperature),
        "top_p": 1.0 if event.top_p is None else float(event.top_p),
        "max_completion_tokens": event.max_completion_tokens or max(used, 1),
        "routing_probability": 1.0,
        "finish_reason": event.finish_reason or "stop",
        "input_tokens": event.prompt_tokens or 0,
        "output_tokens": used,
        "latency_seconds": float(event.latency_seconds or 0.0),
        "segment": metadata.get("segment", "default"),
        "user_id": event.user,
        "regenerates": metadata.get("regenerates"),
        "request_id": event.request_id,
        "purposes": event.purposes,
    }


class KafkaTransport:
    """One idempotent producer with acks=all. Events that the broker has not acknowledged in time are tried again."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        config: Mapping[str, Any] | None = None,
        redactor: Redacting | None,
        pseudonym_key: bytes | None = None,
        timeout: float,
        source: str = SOURCE,
    ) -> None:
        """Raises `SettingsError` for settings that librdkafka doesn't know; not because no broker answers."""
        try:
            import confluent_kafka
        except ImportError as error:
            raise SettingsError("Kafka needs an extra: pip install 'thumbwheel-client[kafka]'") from error
        self._kafka = confluent_kafka
        self._settings = {
            "client.id": "thumbwheel-client",
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": max(1, int(timeout * 1000)),
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            "logger": logging.getLogger("thumbwheel_client.librdkafka"),
            **dict(config or {}),
            "bootstrap.servers": bootstrap_servers,
        }
        self._servers = bootstrap_servers
        self._redactor = redactor
        self._pseudonym_key = pseudonym_key
        self._timeout = timeout
        self._source = source
        self._throttle = Throttle()
        self._one_at_a_time = threading.Lock()
        self._producer: Any = self._new_producer()

    def run(self, events: Sequence[Event]) -> int:
        return len(events)

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        """Produce all and wait for their acknowledgements. After a time-out an event may yet arrive: ids count once."""
        fates: list[Outcome | None] = [None] * len(events)
        with self._one_at_a_time:
            producer = self._producer = self._producer or self._new_producer()
            for index, event in enumerate(events):
                fates[index] = self._produce(producer, event, fates, index)
            deadline = time.monotonic() + self._timeout + 1.0  # librdkafka's own time-out comes first
            while any(fate is None for fate in fates) and time.monotonic() < deadline:
                producer.poll(0.1)
        late = Retry(f"the broker at {self._servers} did not acknowledge within {self._timeout:g} s")
        return [fate or late for fate in fates]

    def close(self) -> None:
        if self._producer is not None:
            self._producer.flush(0)

    def after_fork(self) -> None:
        self._producer = None  # librdkafka's threads are the parent's
        self._one_at_a_time = threading.Lock()

    def _new_producer(self) -> Any:
        try:
            return self._kafka.Producer(self._settings)
        except (self._kafka.KafkaException, TypeError, ValueError) as error:
            raise SettingsError(f"no Kafka producer with these settings: {error}") from error

    def _produce(self, producer: Any, event: Event, fates: list[Outcome | None], index: int) -> Outcome | None:
        """Hand one event to the producer; its fate if that is known at once."""
        message = encode(self._without_personal_data(event), source=self._source)
        if len(message.value) > MAX_VALUE_BYTES:
            return Rejected(f"it has {len(message.value)} bytes, more than the {MAX_VALUE_BYTES} of an event")

        def delivered(error: Any, _: Any) -> None:
            fates[index] = self._fate(error)

        try:
            producer.produce(message.topic, message.value, message.key, headers=message.headers, on_delivery=delivered)
        except BufferError:
            return Retry("the producer's buffer is full")
        except self._kafka.KafkaException as error:
            return self._fate(error.args[0])
        return None

    def _without_personal_data(self, event: Event) -> Event:
        user = None if event.user is None else protected(event.user, self._pseudonym_key)
        if user is None and event.user is not None and self._throttle.allows("user"):
            logger.warning("a user id is an address itself and is left out: pass pseudonym_key= to keep users apart")
        event_id = protected(event.id, self._pseudonym_key or event.response_id.encode(), prefix="id") or event.id
        return replace(redacted(event, self._redactor), user=user, id=event_id)

    def _fate(self, error: Any) -> Outcome:
        if error is None:
            return Recorded()
        code = self._kafka.KafkaError
        if error.code() in (code.MSG_SIZE_TOO_LARGE, code.INVALID_RECORD, code._INVALID_ARG):
            return Rejected(f"the broker does not take it: {error.str()}")
        return Retry(f"the broker at {self._servers} did not take it: {error.str()}")


class AsyncKafkaTransport:
    """The same for a task: the producer's waiting happens in a thread."""

    def __init__(self, inner: KafkaTransport) -> None:
        self._inner = inner

    def run(self, events: Sequence[Event]) -> int:
        return self._inner.run(events)

    async def send(self, events: Sequence[Event]) -> list[Outcome]:
        return await asyncio.to_thread(self._inner.send, events)

    async def close(self) -> None:
        self._inner.close()

    def after_fork(self) -> None:
        self._inner.after_fork()
