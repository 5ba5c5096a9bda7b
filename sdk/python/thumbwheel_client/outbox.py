"""What waits to be sent, and what is to be done with it. No network and no thread in here: a courier asks what is next,
sends it, and says what came of it.

    host's call ──put──► spool on disk ─┐
                  └────► memory ────────┴─take──► courier ──absorb──► receipts, counts, how long to wait

With a spool its files are the queue and memory only its stand-in on a full disk; without one memory is the queue.
"""

import logging
import queue
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from thumbwheel_client.errors import InvalidEvent
from thumbwheel_client.events import Event, dumps, loads
from thumbwheel_client.outcomes import Alone, Outcome, Recorded, Rejected, Retry
from thumbwheel_client.receipts import Receipt, Status
from thumbwheel_client.retry import Backoff
from thumbwheel_client.spool import Spool, Stored, sync_all
from thumbwheel_client.throttle import Throttle

logger = logging.getLogger(__name__)

TAKE_EVENTS = 100
TAKE_BYTES = 256_000
MOST_SERVER_ERRORS = 10
"""How often one event may lead to a server error of its own (500) before it is given up: it must not stop the rest."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the client was made. `retries` counts requests, the others events."""

    waiting: int = 0
    recorded: int = 0
    rejected: int = 0
    dropped: int = 0
    invalid: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may wait in memory (events, bytes), and how old anything may get (seconds)."""

    max_events: int = 10_000
    max_bytes: int = 32 << 20
    max_age: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is not settled, with its place in the spool; without one it is in memory."""

    event: Event
    stored: Stored | None
    size: int


class Outbox:
    """Thread-safe. `put` never waits for the network, and for the disk only as long as the kernel takes a line."""

    def __init__(
        self,
        *,
        bounds: Bounds,
        spool: Spool | None = None,
        backoff: Backoff | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.stats = Stats()
        self.failures = 0
        self.problem: str | None = None
        self._bounds = bounds
        self._spool = spool
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._memory: deque[Waiting] = deque()
        self._memory_bytes = 0
        self._peeked: list[Waiting] = []  # the head of the queue, as it was when something was last taken from it
        self._inbox: queue.SimpleQueue[tuple[Event, Receipt]] = queue.SimpleQueue()
        self._receipts: weakref.WeakValueDictionary[str, Receipt] = weakref.WeakValueDictionary()
        self._ahead: set[str] = set()  # settled, but behind one that is not
        self._alone: set[str] = set()  # to be sent by themselves
        self._blamed: dict[str, int] = {}  # server errors of each event that was sent by itself
        self._throttle = Throttle()
        self._lock = threading.RLock()
        self._emptied = threading.Condition(self._lock)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more."""
        return self._closed

    @property
    def spools(self) -> bool:
        """Whether what waits outlives the process."""
        return self._spool is not None and not self._memory

    @property
    def waits_for_disk(self) -> bool:
        """Whether `take` waits until the disk has confirmed what was written."""
        return self._spool is not None and self._spool.fsync

    @property
    def waiting(self) -> int:
        """Events that are not settled."""
        with self._lock:
            return self._inbox.qsize() + len(self._memory) + (self._spool.waiting if self._spool else 0)

    def snapshot(self) -> Stats:
        """The counts of this moment."""
        return replace(self.stats, waiting=self.waiting)

    def put(self, event: Event, receipt: Receipt) -> Receipt:
        """Take an event. Where the same id is waiting already it is the same event, and its receipt is followed."""
        with self._lock:
            known = self._receipts.get(event.id)
            if known is not None and known is not receipt and not known.done:
                known.tell(receipt)
                return receipt
            self._receipts[event.id] = receipt
            if self._closed:
                self._finish(event.id, Status.DROPPED, "the client is closed")
            elif not self._to_spool(event):
                self._to_memory(event)
        return receipt

    def put_later(self, event: Event, receipt: Receipt) -> None:
        """Take an event where no lock may be waited for, which is when the garbage collector calls: a thread that is in
        the middle of `put` may be the one that it borrowed. Whoever takes next puts it in its place."""
        self._inbox.put((event, receipt))

    def refuse(self, receipt: Receipt, reason: str) -> Receipt:
        """Note a mistake in a call, which is logged and goes nowhere."""
        with self._lock:
            self.stats = replace(self.stats, invalid=self.stats.invalid + 1)
        if self._throttle.allows(f"invalid {reason[:40]}"):
            logger.error("not sent: %s", reason)
        receipt.settle(Status.INVALID, reason)
        return receipt

    def take(self, run: Callable[[Sequence[Event]], int]) -> list[Waiting]:
        """What is to be sent next, in order; empty when nothing waits. `run` says how many leading events of a list can
        go in one request."""
        with self._lock:
            self._empty_inbox()
            found = self._next()
            if not found:
                self._emptied.notify_all()
                return []
            count = next((n for n, w in enumerate(found) if w.event.id in self._alone), len(found))
            batch = found[: run([w.event for w in found[:count]])] if count else found[:1]
            descriptors = self._spool.sync() if self._spool else []
        try:
            sync_all(descriptors)
        except OSError as error:
            if self._throttle.allows("fsync"):
                logger.warning("the disk does not confirm what was spooled (%s); it is sent all the same", error)
        return batch

    def absorb(self, sent: Sequence[Waiting], outcomes: Sequence[Outcome]) -> float:
        """Take in what came of a request; the seconds to wait before the next."""
        with self._lock:
            retries = [outcome for outcome in outcomes if isinstance(outcome, Retry)]
            for waiting, outcome in zip(sent, outcomes, strict=True):
                self._take_in(waiting.event.id, outcome, alone=len(sent) == 1)
            self._settle_prefix()
            if not self.waiting:
                self._emptied.notify_all()
            return self._wait_after(retries)

    def adopt(self) -> bool:
        """Look for what ended processes have left; whether there was something."""
        with self._lock:
            return self._spool is not None and not self._closed and self._spool.adopt() > 0

    def wait_empty(self, timeout: float | None) -> bool:
        """Wait until nothing waits; whether that came in time."""
        with self._emptied:
            return self._emptied.wait_for(lambda: not self.waiting, timeout)

    def count(self, other: Stats) -> None:
        """Add what another outbox has counted."""
        with self._lock:
            self.stats = Stats(
                recorded=self.stats.recorded + other.recorded,
                rejected=self.stats.rejected + other.rejected,
                dropped=self.stats.dropped + other.dropped,
                invalid=self.stats.invalid + other.invalid,
                retries=self.stats.retries + other.retries,
            )

    def close(self, reason: str = "the client was closed before it could be sent") -> int:
        """Take nothing more; how many events were lost, which without a spool is what still waited."""
        with self._lock:
            if self._closed:
                return 0
            self._empty_inbox()
            self._closed = True
            lost = [waiting.event.id for waiting in self._memory]
            self._memory.clear()
            for event_id in lost:
                self._finish(event_id, Status.DROPPED, reason)
            if self._spool is not None:
                for receipt in list(self._receipts.values()):
                    receipt.settle(Status.SPOOLED)
                self._spool.close()
                self._spool = None
            self._emptied.notify_all()
        return len(lost)

    def after_fork(self, reopen: Callable[[], Spool | None]) -> None:
        """In a forked child: everything that waits is the parent's to send, and the locks may be held by threads
        that don't exist here."""
        self._lock = threading.RLock()
        self._emptied = threading.Condition(self._lock)
        self._memory.clear()
        self._memory_bytes = 0
        self._receipts = weakref.WeakValueDictionary()
        self._ahead, self._alone, self._blamed, self._peeked = set(), set(), {}, []
        self._inbox = queue.SimpleQueue()
        self._throttle = Throttle()
        self.stats, self.failures = Stats(), 0
        if self._spool is not None:
            self._spool.abandon()
            self._spool = reopen()

    def _empty_inbox(self) -> None:
        while not self._inbox.empty():
            self.put(*self._inbox.get_nowait())

    def _to_spool(self, event: Event) -> bool:
        """Keep the event on disk; False without a spool, or where the disk takes no more."""
        if self._spool is None:
            return False
        try:
            pushed_out = self._spool.append(dumps(event))
        except OSError as error:
            if self._throttle.allows("disk"):
                logger.warning("the spool %s takes no more (%s): events wait in memory", self._spool.folder, error)
            return False
        for body in pushed_out:
            self._drop(_id_in(body), "the spool is full: the oldest events made room")
        return True

    def _to_memory(self, event: Event) -> None:
        size = len(dumps(event))
        if len(self._memory) >= self._bounds.max_events or self._memory_bytes + size > self._bounds.max_bytes:
            self._drop(event.id, "the buffer is full: events come faster than they can be sent")
            return
        self._memory.append(Waiting(event, None, size))
        self._memory_bytes += size

    def _next(self) -> list[Waiting]:
        """The first events that are neither settled nor too old."""
        while found := self._peek():
            oldest = time.time() - self._bounds.max_age
            stale = [w for w in found if w.event.at < oldest and w.event.id not in self._ahead]
            for waiting in stale:
                self._drop(waiting.event.id, f"it waited for more than {self._bounds.max_age:g} s")
                self._ahead.add(waiting.event.id)
            live = [w for w in found if w.event.id not in self._ahead]
            self._peeked = found
            self._settle_prefix()
            if live:
                return live
        return []

    def _peek(self) -> list[Waiting]:
        if self._spool is not None and self._spool.waiting > 0:
            stored = self._spool.peek(events=TAKE_EVENTS, size=TAKE_BYTES)
            if stored:
                return self._understood(stored)
        found: list[Waiting] = []
        size = 0
        for waiting in self._memory:
            if found and (len(found) >= TAKE_EVENTS or size + waiting.size > TAKE_BYTES):
                break
            found.append(waiting)
            size += waiting.size
        return found

    def _understood(self, stored: Sequence[Stored]) -> list[Waiting]:
        """The events of these lines; a line with a good checksum that is no event (another release's) is dropped."""
        found: list[Waiting] = []
        for line in stored:
            try:
                found.append(Waiting(loads(line.body), line, len(line.body)))
            except InvalidEvent as error:
                if found:
                    return found
                self._drop("", f"a line of the spool is {error}")
                if self._spool is not None:
                    self._spool.settle([line])
        return found or self._peek()

    def _take_in(self, event_id: str, outcome: Outcome, *, alone: bool) -> None:
        match outcome:
            case Recorded():
                self.stats = replace(self.stats, recorded=self.stats.recorded + 1)
                self._finish(event_id, Status.RECORDED)
            case Rejected(reason):
                self._give_up(event_id, reason)
            case Alone():
                self._alone.add(event_id)
            case Retry(reason, service=service):
                if alone and not service:
                    self._blame(event_id, reason)
        if isinstance(outcome, (Recorded, Rejected)):
            self._ahead.add(event_id)

    def _blame(self, event_id: str, reason: str) -> None:
        self._blamed[event_id] = self._blamed.get(event_id, 0) + 1
        if self._blamed[event_id] >= MOST_SERVER_ERRORS:
            self._give_up(event_id, f"{reason}, {MOST_SERVER_ERRORS} times")
            self._ahead.add(event_id)

    def _give_up(self, event_id: str, reason: str) -> None:
        self.stats = replace(self.stats, rejected=self.stats.rejected + 1)
        if self._throttle.allows(f"rejected {reason[:40]}"):
            logger.error("event %s was refused for good: %s", event_id, reason)
        self._finish(event_id, Status.REJECTED, reason)

    def _drop(self, event_id: str, reason: str) -> None:
        if self._throttle.allows(f"dropped {reason[:20]}"):
            logger.error("event dropped (%d so far): %s", self.stats.dropped + 1, reason)
        self._finish(event_id, Status.DROPPED, reason)

    def _finish(self, event_id: str, status: Status, reason: str | None = None) -> None:
        if status is Status.DROPPED:
            self.stats = replace(self.stats, dropped=self.stats.dropped + 1)
        receipt = self._receipts.pop(event_id, None)
        if receipt is not None:
            receipt.settle(status, reason)

    def _settle_prefix(self) -> None:
        """Forget the leading events whose fate is known; the others keep their place."""
        done: list[Stored] = []
        settled = 0
        for waiting in self._peeked:
            event_id = waiting.event.id
            if event_id not in self._ahead:
                break
            self._ahead.discard(event_id)
            self._alone.discard(event_id)
            self._blamed.pop(event_id, None)
            if waiting.stored is not None:
                done.append(waiting.stored)
            elif self._memory and self._memory[0] is waiting:
                self._memory.popleft()
                self._memory_bytes -= waiting.size
            settled += 1
        self._peeked = self._peeked[settled:]
        if done and self._spool is not None:
            self._spool.settle(done)

    def _wait_after(self, retries: Sequence[Retry]) -> float:
        if not retries:
            if self.failures:
                logger.info("Thumbwheel takes events again")
            self.failures = 0
            return 0.0
        self.failures += 1
        self.problem = retries[0].reason
        self.stats = replace(self.stats, retries=self.stats.retries + 1)
        if self.failures == 1 or self._throttle.allows("retry"):
            logger.warning("%d events wait for Thumbwheel: %s", self.waiting, retries[0].reason)
        asked = max((retry.after for retry in retries if retry.after is not None), default=None)
        return self._backoff.delay(self.failures, self._chance(), asked)


def _id_in(body: bytes) -> str:
    """The id of a spooled event; empty where another release wrote it in a way that this one can't read."""
    try:
        return loads(body).id
    except InvalidEvent:
        return ""
