"""Sends messages as they are and tells of each whether the log has it."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.cli.letter_edit import Outgoing
from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable

TIMEOUT_SECONDS = 15.0
MAX_MESSAGE_BYTES = 16_000_000  # the client lets it through; how large a message may be is for the log to say

_SILENCE = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,  # pyright: ignore[reportPrivateUsage] - its public name
        KafkaError._TRANSPORT,  # pyright: ignore[reportPrivateUsage] - its public name
        KafkaError._ALL_BROKERS_DOWN,  # pyright: ignore[reportPrivateUsage] - its public name
    }
)


class Resender:
    """One producer for messages that are no encoded events."""

    def __init__(self, kafka: KafkaConnection) -> None:
        self._servers = kafka.bootstrap_servers
        options = {
            "acks": "all",
            "enable.idempotence": "true",
            "linger.ms": "5",
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "message.timeout.ms": str(int(TIMEOUT_SECONDS * 1000)),
            "log_level": "0",
        }
        self._producer = Producer(dict(kafka.client_config()) | options)

    def send(self, messages: Mapping[str, tuple[str, Outgoing]]) -> dict[str, str]:
        """Send (topic, message) by id, and wait: the refused ones, with the reason; the others are acknowledged.

        Raises `BrokerUnavailable` where the log doesn't answer; some may have arrived then.
        """
        errors: dict[str, KafkaError] = {}
        for key, (topic, message) in messages.items():
            self._produce(key, topic, message, errors)
        left = self._producer.flush(TIMEOUT_SECONDS + 1)
        silent = [error.str() for error in errors.values() if error.code() in _SILENCE]
        if left or silent:
            raise BrokerUnavailable(
                f"the broker at {self._servers} did not acknowledge {left + len(silent)} of {len(messages)} messages"
                f" ({silent[0] if silent else 'no answer'}); try again, what did arrive counts once"
            )
        return {key: error.str() for key, error in errors.items()}

    def _produce(self, key: str, topic: str, message: Outgoing, errors: dict[str, KafkaError]) -> None:
        def told(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors[key] = error

        headers = list[tuple[str, str | bytes | None]](message.headers)
        while True:
            try:
                self._producer.produce(topic, message.value, message.key, headers=headers, on_delivery=told)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                errors[key] = error.args[0]
                return
            else:
                self._producer.poll(0)
                return
