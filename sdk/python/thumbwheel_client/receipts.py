"""What a call returns at once: a handle on what becomes of the event."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from enum import StrEnum

from thumbwheel_client.errors import Rejected, ThumbwheelError, Unavailable


class Status(StrEnum):
    """`waiting` turns into one of the others, once."""

    WAITING = "waiting"
    RECORDED = "recorded"  # acknowledged: Thumbwheel has it for good
    REJECTED = "rejected"  # refused by the service; the reason was logged
    DROPPED = "dropped"  # pushed out by a bound (number, bytes or age), or lost at close without a spool
    INVALID = "invalid"  # a mistake in the call; never sent
    SPOOLED = "spooled"  # closed before it could be sent: it lies in the spool for the next start


class Receipt:
    """Follows one event. `wait` blocks a thread, `await receipt` a task; nobody has to do either."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_changed",
        "_patience",
        "_strict",
        "id",
        "reason",
        "response_id",
        "status",
    )

    def __init__(
        self, id: str, response_id: str | None, *, patience: float | None = 10.0, strict: bool = False
    ) -> None:
        """`patience`: the seconds that `await receipt` waits at most; `strict`: it raises what went wrong."""
        self.id = id
        self.response_id = response_id
        self.status = Status.WAITING
        self.reason: str | None = None
        self._patience = patience
        self._strict = strict
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        reason = f", reason={self.reason!r}" if self.reason else ""
        return f"Receipt(id={self.id!r}, status={self.status.value!r}{reason})"

    @property
    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self.status is not Status.WAITING

    @property
    def recorded(self) -> bool:
        """Whether Thumbwheel has acknowledged the event."""
        return self.status is Status.RECORDED

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is known what became of the event, `timeout` seconds at most. True: it was recorded."""
        with self._changed:
            self._changed.wait_for(lambda: self.done, timeout)
        return self.recorded

    def settle(self, status: Status, reason: str | None = None) -> None:
        """Say what became of the event; only the first time counts."""
        with self._changed:
            if self.done:
                return
            self.status, self.reason = status, reason
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback()

    def tell(self, other: "Receipt") -> None:
        """Settle another receipt of the same event as this one is, now or later."""
        with self._changed:
            if not self.done:
                self._callbacks.append(lambda: other.settle(self.status, self.reason))
                return
        other.settle(self.status, self.reason)

    def error(self) -> ThumbwheelError | None:
        """What went wrong, as the error that strict mode raises; None where nothing did, or it isn't known yet."""
        if self.status in (Status.WAITING, Status.RECORDED):
            return None
        if self.status in (Status.REJECTED, Status.INVALID):
            return Rejected(self.reason or "refused")
        return Unavailable(self.reason or "not sent")

    def __await__(self) -> Generator[object, None, "Receipt"]:
        return self._settled().__await__()

    async def _settled(self) -> "Receipt":
        loop = asyncio.get_running_loop()
        known = loop.create_future()

        def wake() -> None:
            if not known.done():
                known.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(wake)

        with self._changed:
            if not self.done:
                self._callbacks.append(tell)
        if not self.done:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(known, self._patience)
        error = self.error() if self._strict else None
        if error is not None:
            raise error
        return self
