"""The synchronous client: calls leave events in the outbox, and a thread sends them."""

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from thumbwheel_client.base import Base, raise_first, reopened
from thumbwheel_client.couriers import Courier, deliver
from thumbwheel_client.events import Event
from thumbwheel_client.kafka import SOURCE, KafkaTransport
from thumbwheel_client.receipts import Receipt
from thumbwheel_client.settings import Behaviour, Settings, default_redactor, http_target, settings
from thumbwheel_client.transport import HttpTransport, Transport


class Thumbwheel(Base):
    """Feedback to a Thumbwheel gateway. One for the whole application; safe to use from any thread.

        tw = Thumbwheel("https://thumbwheel.example", api_key=..., spool="/var/lib/app/thumbwheel")
        tw.thumbs_up(answer, user="u42")

    A call takes microseconds, and raises nothing unless `strict`.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, **behaviour: Unpack[Behaviour]) -> None:
        """`url` and `api_key` default to `THUMBWHEEL_URL` and `THUMBWHEEL_API_KEY`. Raises `SettingsError` or
        `SpoolError` where no client can be made; not because no gateway answers."""
        to = http_target(url, api_key, behaviour.get("timeout", 5.0))
        made = settings(to.shown, behaviour, keyless=to.api_key is None)
        self._open(made, HttpTransport(to, redactor=made.redactor))

    @classmethod
    def over_kafka(
        cls,
        bootstrap_servers: str,
        *,
        config: Mapping[str, Any] | None = None,
        source: str = SOURCE,
        pseudonym_key: bytes | None = None,
        **behaviour: Unpack[Behaviour],
    ) -> Self:
        """The same straight to Kafka, with no gateway between: `config` holds librdkafka's settings (SASL, TLS, ...).

        Personal data is taken out here, by `redactor` or else by `thumbwheel_redaction.Redactor()`. A user id
        that is an address itself becomes a hash under `pseudonym_key`, the gateway's where there is one; without a key
        it is left out.
        """
        made = settings(f"kafka://{bootstrap_servers}", behaviour, keyless=False)
        redactor = made.redactor or default_redactor()
        transport = KafkaTransport(
            bootstrap_servers,
            config=config,
            redactor=redactor,
            timeout=made.timeout,
            source=source,
            pseudonym_key=pseudonym_key,
        )
        client = cls.__new__(cls)
        client._open(made, transport)
        return client

    def _open(self, made: Settings, transport: Transport) -> None:
        super().__init__(made)
        self._transport = transport
        self._courier = Courier(self._outbox, transport, reopen=lambda: reopened(made))
        self._finalizer = weakref.finalize(self, self._courier.leave)
        self._finalizer.atexit = False  # the exit of the process has its own way
        if self._outbox.waiting:
            self._courier.wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits any more, `timeout` seconds at most; whether that came."""
        return self._courier.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Send for up to `timeout` seconds what still waits. The rest stays in the spool; without one it is lost."""
        self._finalizer.detach()
        self._courier.close(timeout)

    def _wake(self) -> None:
        self._courier.wake()

    def _nudge(self) -> None:
        self._courier.nudge()

    def _post(self, pairs: Sequence[tuple[Event, Receipt]], strict: bool) -> None:
        if not strict:
            self._enqueue(pairs)
            self._courier.wake()
            return
        outbox = self._strict_outbox(pairs)
        deliver(outbox, self._transport, self._settings.timeout)
        self._outbox.count(outbox.stats)
        raise_first(receipt for _, receipt in pairs)
