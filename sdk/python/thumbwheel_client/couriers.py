"""Who carries events from an outbox to a transport: a thread for the synchronous client, a task for the other.

Both do the same: take what is next, send it, take in what came of it, wait as long as that asks for.
"""

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from thumbwheel_client.lifecycle import look_after
from thumbwheel_client.outbox import Outbox, Waiting
from thumbwheel_client.outcomes import Alone, Outcome, Rejected, Retry
from thumbwheel_client.spool import Spool
from thumbwheel_client.transport import AsyncTransport, Transport

logger = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""How long nothing happens before a courier looks for what ended processes have left in the spool."""
EXIT_SECONDS = 2.0
"""How long the exit of the host's process may take for events that are not sent yet."""
STUMBLE_SECONDS = 5.0
"""The wait after a bug of our own outside of sending."""


def unsendable(sent: Sequence[Waiting], error: Exception) -> list[Outcome]:
    """What came of a request in which our own code failed: whichever event is to blame must not hold up the rest."""
    logger.error("can't send: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
    if len(sent) > 1:
        return [Alone() for _ in sent]
    return [Rejected(f"it can't be sent: {type(error).__name__}")]


def deliver(outbox: Outbox, transport: Transport, timeout: float) -> None:
    """Send all of an outbox from this thread, with retries for up to `timeout` seconds, and close it."""
    deadline = time.monotonic() + timeout
    while batch := outbox.take(transport.run):
        delay = outbox.absorb(batch, transport.send([waiting.event for waiting in batch]))
        if time.monotonic() + delay >= deadline:
            break
        time.sleep(delay)
    outbox.close(outbox.problem or "not sent")


async def deliver_async(outbox: Outbox, transport: AsyncTransport, timeout: float) -> None:
    """The same in a task."""
    deadline = time.monotonic() + timeout
    while batch := outbox.take(transport.run):
        delay = outbox.absorb(batch, await transport.send([waiting.event for waiting in batch]))
        if time.monotonic() + delay >= deadline:
            break
        await asyncio.sleep(delay)
    outbox.close(outbox.problem or "not sent")


class Courier:
    """A daemon thread, started with the first event. Ends with `close`, or once its client is gone and all is sent."""

    def __init__(self, outbox: Outbox, transport: Transport, *, reopen: Callable[[], Spool | None]) -> None:
        """`reopen` gives a forked child a spool of its own."""
        self._outbox = outbox
        self._transport = transport
        self._reopen = reopen
        self._reset()
        look_after(self)

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._work: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._closed = False
        self._leaving = False

    def nudge(self) -> None:
        """There is something to send; without a lock, for where the garbage collector calls."""
        if self._work.empty():
            self._work.put(None)

    def wake(self) -> None:
        """There is something to send."""
        self.nudge()
        if self._thread is None and not self._closed:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="thumbwheel-courier", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is ending; what is spooled is sent at the next start
                logger.warning("no thread to send events with: %s", error)
                return
            self._thread = thread

    def flush(self, timeout: float | None) -> bool:
        """Try now, whatever wait was on, until nothing waits; whether that came within `timeout` seconds."""
        if not self._outbox.waiting:
            return True
        self.wake()
        self._hurry.set()
        return self._outbox.wait_empty(timeout)

    def close(self, timeout: float) -> None:
        """Send for up to `timeout` seconds; then let go. The rest stays in the spool; without one it is lost."""
        if self._closed:
            return
        deadline = time.monotonic() + timeout
        if timeout > 0 and not self._outbox.closed:
            self.flush(timeout)
        self._closed = True
        self.nudge()
        self._hurry.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, min(deadline - time.monotonic(), EXIT_SECONDS)))
        report_lost(self._outbox.close())
        self._transport.close()

    def leave(self) -> None:
        """The client is gone: end once everything is sent."""
        self._leaving = True
        self.nudge()
        if self._thread is None:
            self.close(0.0)

    def at_exit(self) -> None:
        spooled_and_offline = self._outbox.spools and self._outbox.failures > 0
        self.close(0.0 if spooled_and_offline else EXIT_SECONDS)

    def after_fork(self) -> None:
        """In the child: an empty outbox, a spool and connections of its own, and a thread when there is work."""
        closed = self._closed
        self._reset()
        self._closed = closed
        self._transport.after_fork()
        self._outbox.after_fork(self._reopen)

    def _run(self) -> None:
        while not self._closed:
            try:
                delay = self._step()
            except Exception as error:  # noqa: BLE001 - a courier that dies sends nothing any more
                delay = stumbled(error)
            if delay is None:
                if self._leaving:
                    self.close(0.0)
                    return
                try:
                    self._work.get(timeout=IDLE_SECONDS)
                except queue.Empty:
                    self._outbox.adopt()
            elif delay > 0:
                self._hurry.wait(delay)
                self._hurry.clear()

    def _step(self) -> float | None:
        """Send what is next; the seconds to wait then, or None where nothing was waiting."""
        batch = self._outbox.take(self._transport.run)
        if not batch:
            return None
        try:
            outcomes = self._transport.send([waiting.event for waiting in batch])
        except Exception as error:  # noqa: BLE001 - a courier that dies sends nothing any more
            outcomes = [Retry("the client was closed")] * len(batch) if self._closed else unsendable(batch, error)
        return self._outbox.absorb(batch, outcomes)


class AsyncCourier:
    """A task in the loop that the first event came from; in the next loop, should that one end, another task."""

    def __init__(self, outbox: Outbox, transport: AsyncTransport, *, reopen: Callable[[], Spool | None]) -> None:
        self._outbox = outbox
        self._transport = transport
        self._reopen = reopen
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._closed = False
        self._leaving = False
        look_after(self)

    def wake(self) -> None:
        """There is something to send. From any thread; outside every loop it waits for a call from inside one."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            there = task.get_loop()
            if here is there:
                self._work.set()
            else:
                with contextlib.suppress(RuntimeError):  # it was closed at this moment
                    there.call_soon_threadsafe(self._work.set)
        elif here is not None and not self._closed:
            self._start(here)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._work, self._hurry, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # A context of its own: the span of the request that happened to be first is not the courier's.
        self._task = loop.create_task(self._run(), name="thumbwheel-courier", context=contextvars.Context())

    async def flush(self, timeout: float | None) -> bool:
        """Try now, whatever wait was on, until nothing waits; whether that came within `timeout` seconds."""
        if not self._outbox.waiting:
            return True
        self.wake()
        if self._task is None or self._task.get_loop() is not asyncio.get_running_loop():
            return await asyncio.to_thread(self._outbox.wait_empty, timeout)
        self._idle.clear()
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        return not self._outbox.waiting

    async def close(self, timeout: float) -> None:
        """Send for up to `timeout` seconds; then let go. The rest stays in the spool; without one it is lost."""
        if self._closed:
            return
        if timeout > 0:
            await self.flush(timeout)
        self._closed = True
        task = self._task
        if task is not None and task.get_loop() is asyncio.get_running_loop() and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task}, timeout=EXIT_SECONDS)
        report_lost(self._outbox.close())
        await self._transport.close()

    def leave(self) -> None:
        """The client is gone: end once everything is sent."""
        self._leaving = True
        self.wake()
        if self._task is None:
            self.at_exit()

    def at_exit(self) -> None:
        """No loop runs any more: what was not sent stays in the spool; without one it is lost."""
        self._closed = True
        report_lost(self._outbox.close())

    def after_fork(self) -> None:
        """In the child: an empty outbox, and a spool of its own."""
        self._task = None
        self._transport.after_fork()
        self._outbox.after_fork(self._reopen)

    def nudge(self) -> None:
        """There is something to send."""
        self.wake()

    async def _run(self) -> None:
        try:
            await self._work_through()
        finally:
            await self._transport.close()  # its connections end with this loop

    async def _work_through(self) -> None:
        while not self._closed:
            try:
                delay = await self._step()
            except Exception as error:  # noqa: BLE001 - a courier that dies sends nothing any more
                delay = stumbled(error)
            if delay is None:
                self._idle.set()
                if self._leaving:
                    await self.close(0.0)
                    return
                try:
                    await asyncio.wait_for(self._work.wait(), IDLE_SECONDS)
                except TimeoutError:
                    self._outbox.adopt()
                self._work.clear()
            elif delay > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), delay)
                self._hurry.clear()

    async def _step(self) -> float | None:
        if self._outbox.waits_for_disk:
            batch = await asyncio.to_thread(self._outbox.take, self._transport.run)
        else:
            batch = self._outbox.take(self._transport.run)
        if not batch:
            return None
        try:
            outcomes = await self._transport.send([waiting.event for waiting in batch])
        except Exception as error:  # noqa: BLE001 - a courier that dies sends nothing any more
            outcomes = unsendable(batch, error)
        return self._outbox.absorb(batch, outcomes)


def stumbled(error: Exception) -> float:
    """Log a bug of ours; the seconds to wait before going on."""
    logger.error("a bug in the SDK, please report it: %s", type(error).__name__, exc_info=error)
    return STUMBLE_SECONDS


def report_lost(count: int) -> None:
    """Say that events were lost because there is no spool."""
    if count:
        logger.error("%d events were not sent and are lost: give the client a spool= folder to keep them", count)
