"""The broker's acknowledgements, and the requests that wait for them on the event loop.

producer.poll on the loop   ── put ───────────────────────► Expected ──► its request
producer.poll on a thread   ── put ──► queue, one wake-up ──► Expected ──► its request

While a request waits, the loop asks the producer itself: a thread would have to take the interpreter's lock away from
the loop for each single acknowledgement. The thread is there for the time when nobody waits.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

Settle = Callable[[str | None], None]
"""Told what became of one event: None where the broker has it, else why not."""


class Handover:
    """Calls functions on an event loop, for any thread. To wake a loop costs a system call: one wakes for many.

    To be made on the loop's own thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._queue: deque[tuple[Settle, str | None]] = deque()
        self._woken = False
        self._thread = threading.get_ident()
        self.asking = False
        self.waiting = 0

    def turn(self, ask: Callable[[], object], every: float) -> None:
        """Call `ask` on the loop every so many seconds, as long as `waiting` isn't 0."""
        if not self.asking:
            self.asking = True
            self._next(ask, every)

    def _next(self, ask: Callable[[], object], every: float) -> None:
        if self.waiting:
            ask()
            self.loop.call_later(every, self._next, ask, every)
        else:
            self.asking = False

    def put(self, settle: Settle, problem: str | None) -> None:
        """Have `settle(problem)` called: now, if this is the loop's thread, else soon."""
        if threading.get_ident() == self._thread:
            settle(problem)
            return
        self._queue.append((settle, problem))
        # No lock: `_drain` clears the mark before it empties the queue, so what is put after that wakes again.
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False
        while self._queue:
            settle, problem = self._queue.popleft()
            settle(problem)


class Expected:
    """The events of one request whose fate is not known yet. On one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = 0
        self._problem: str | None = None
        self._done: asyncio.Future[None] = loop.create_future()

    def one_more(self) -> None:
        self._left += 1

    def one_less(self) -> None:
        """One was counted and not sent after all."""
        self._left -= 1

    def settle(self, problem: str | None) -> None:
        """One has arrived, or has not."""
        self._left -= 1
        self._problem = self._problem or problem
        if self._left == 0 and not self._done.done():
            self._done.set_result(None)

    async def all_settled(self, timeout: float) -> str | None:
        """Wait for all of them; what was wrong with one, if anything was. Raises `TimeoutError`."""
        if self._left:
            # A timer of its own costs a tenth of what asyncio.wait_for does, at every request.
            timer = self._loop.call_later(timeout, self._give_up)
            try:
                await self._done
            finally:
                timer.cancel()
        return self._problem

    def _give_up(self) -> None:
        if not self._done.done():
            self._done.set_exception(TimeoutError())
