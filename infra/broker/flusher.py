"""Group commit: whoever waits for a log while it is synced shares the next sync with all the others who do.

append; durable() -> future ..... one sync a log at a time, on a thread ..... high watermark moves -> futures settle
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from kio.schema.errors import ErrorCode

from infra.broker.errors import BrokerError
from infra.broker.log import PartitionLog

THREADS = 8  # syncs of several files at once are merged into one commit of the file system's journal


@dataclass(slots=True, eq=False)
class _Waiters:
    """Who waits for one log, by the end offset that must be durable. It is called when the log has something to say."""

    log: PartitionLog
    generation: int
    futures: list[tuple[int, "asyncio.Future[None]"]] = field(default_factory=list[tuple[int, "asyncio.Future[None]"]])

    def __call__(self) -> None:
        lost = self.log.closed or self.generation != self.log.generation
        self.generation = self.log.generation
        waiting, self.futures = self.futures, []
        for end_offset, future in waiting:
            if future.done():  # whoever waited has given up
                continue
            if end_offset <= self.log.high_watermark:
                future.set_result(None)
            elif lost:
                future.set_exception(_lost(self.log))
            else:
                self.futures.append((end_offset, future))


class Flusher:
    """Makes logs durable. Belongs to one event loop; only the syncs themselves run on threads."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sync")
        self._waiting: dict[PartitionLog, _Waiters] = {}
        self._running: dict[PartitionLog, asyncio.Task[None]] = {}

    def durable(self, log: PartitionLog, end_offset: int) -> "asyncio.Future[None]":
        """Done when all below `end_offset` is on the disk; BrokerError if it never will be.

        To be called right after the append, without an await in between: only then is it known which records are meant.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if log.high_watermark >= end_offset:
            future.set_result(None)
        elif log.closed:
            future.set_exception(_lost(log))
        else:
            self._waiters(log).futures.append((end_offset, future))
            self.schedule(log)
        return future

    def schedule(self, log: PartitionLog) -> None:
        """Syncs soon; nobody waits (acks=0)."""
        if log not in self._running:
            self._running[log] = asyncio.get_running_loop().create_task(self._sync(log))

    async def close(self) -> None:
        """When all syncs that were begun or asked for are done."""
        while self._running:
            await asyncio.gather(*self._running.values())
        self._threads.shutdown()

    def _waiters(self, log: PartitionLog) -> _Waiters:
        waiters = self._waiting.get(log)
        if waiters is None:
            waiters = self._waiting[log] = _Waiters(log, log.generation)
            log.subscribe(waiters)
        return waiters

    async def _sync(self, log: PartitionLog) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (sync := log.begin_sync()) is not None:
                failure = None
                try:
                    await loop.run_in_executor(self._threads, sync.run)
                except OSError as error:
                    failure = error
                log.finish_sync(sync, failure)
        finally:
            del self._running[log]
            if log.closed:
                self._waiting.pop(log, None)


def _lost(log: PartitionLog) -> BrokerError:
    return BrokerError(ErrorCode.kafka_storage_error, f"{log.directory.name}: the records could not be made durable")
