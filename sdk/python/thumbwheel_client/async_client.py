"""The asynchronous client: the same calls, which need no `await`; a task sends."""

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from thumbwheel_client.base import Base, reopened
from thumbwheel_client.couriers import AsyncCourier, deliver_async
from thumbwheel_client.events import Event
from thumbwheel_client.kafka import SOURCE, AsyncKafkaTransport, KafkaTransport
from thumbwheel_client.outbox import Outbox
from thumbwheel_client.receipts import Receipt
from thumbwheel_client.settings import Behaviour, Settings, default_redactor, http_target, settings
from thumbwheel_client.transport import AsyncHttpTransport, AsyncTransport


class AsyncThumbwheel(Base):
    """Feedback to a Thumbwheel gateway from an asyncio application.

        tw = AsyncThumbwheel("https://thumbwheel.example", api_key=...)
        tw.thumbs_up(answer, user="u42")             # returns at once
        await tw.thumbs_up(answer, user="u42")       # waits until it is recorded, `timeout` seconds at most

    With `strict` the `await` raises what went wrong.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, **behaviour: Unpack[Behaviour]) -> None:
        """`url` and `api_key` default to `THUMBWHEEL_URL` and `THUMBWHEEL_API_KEY`. Raises `SettingsError` or
        `SpoolError` where no client can be made; not because no gateway answers."""
        to = http_target(url, api_key, behaviour.get("timeout", 5.0))
        made = settings(to.shown, behaviour, keyless=to.api_key is None)
        self._open(made, AsyncHttpTransport(to, redactor=made.redactor))

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
        """The same straight to Kafka: see `Thumbwheel.over_kafka`."""
        made = settings(f"kafka://{bootstrap_servers}", behaviour, keyless=False)
        redactor = made.redactor or default_redactor()
        inner = KafkaTransport(
            bootstrap_servers,
            config=config,
            redactor=redactor,
            timeout=made.timeout,
            source=source,
            pseudonym_key=pseudonym_key,
        )
        client = cls.__new__(cls)
        client._open(made, AsyncKafkaTransport(inner))
        return client

    def _open(self, made: Settings, transport: AsyncTransport) -> None:
        super().__init__(made)
        self._transport = transport
        self._courier = AsyncCourier(self._outbox, transport, reopen=lambda: reopened(made))
        self._strict_tasks: set[asyncio.Task[None]] = set()
        self._finalizer = weakref.finalize(self, self._courier.leave)
        self._finalizer.atexit = False  # the exit of the process has its own way
        if self._outbox.waiting:
            self._courier.wake()

    async def __aenter__(self) -> Self:
        self._courier.wake()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits any more, `timeout` seconds at most; whether that came."""
        return await self._courier.flush(timeout)

    async def close(self, timeout: float = 5.0) -> None:
        """Send for up to `timeout` seconds what still waits. The rest stays in the spool; without one it is lost."""
        self._finalizer.detach()
        await self._courier.close(timeout)

    def _wake(self) -> None:
        self._courier.wake()

    def _nudge(self) -> None:
        self._courier.nudge()

    def _post(self, pairs: Sequence[tuple[Event, Receipt]], strict: bool) -> None:
        if not strict:
            self._enqueue(pairs)
            self._courier.wake()
            return
        task = asyncio.get_running_loop().create_task(self._deliver(self._strict_outbox(pairs)))
        self._strict_tasks.add(task)
        task.add_done_callback(self._strict_tasks.discard)

    async def _deliver(self, outbox: Outbox) -> None:
        try:
            await deliver_async(outbox, self._transport, self._settings.timeout)
        finally:
            outbox.close("it could not be sent")  # whoever awaits a receipt must hear of it
            self._outbox.count(outbox.stats)
