"""What the one node of the cluster holds, opened and closed as a whole."""

import fcntl
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from infra.broker.coordinator import Coordinator
from infra.broker.flusher import Flusher
from infra.broker.groups import GroupOptions
from infra.broker.metrics import BrokerMetrics
from infra.broker.offsets import OffsetStore
from infra.broker.options import BrokerOptions
from infra.broker.producer_ids import ProducerIds
from infra.broker.topics import Topics
from schemas.errors import SettingsError

NODE_ID = 0
LEADER_EPOCH = 0


class DataFolder:
    """A data folder that this process alone may use, for as long as it lives."""

    def __init__(self, path: Path) -> None:
        """Raises `SettingsError` where another broker has it or it can't be written."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SettingsError(f"can't use {path} as a data folder: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._fd, 20).decode(errors="replace")
            raise SettingsError(
                f"another broker (process {holder or 'unknown'}) works in {path}; stop it or name another folder"
            ) from error
        os.truncate(self._fd, 0)
        os.write(self._fd, str(os.getpid()).encode())
        self.path = path


@dataclass
class Node:
    """The parts that requests are answered from."""

    options: BrokerOptions
    topics: Topics
    coordinator: Coordinator
    store: OffsetStore
    flusher: Flusher
    producer_ids: ProducerIds
    metrics: BrokerMetrics = field(default_factory=BrokerMetrics)

    @classmethod
    def open(cls, options: BrokerOptions) -> "Node":
        """Recover everything that the data folder holds. To be called inside the event loop, with the folder locked."""
        flusher = Flusher()
        store = OffsetStore.open(options.data / "groups", flusher)
        return cls(
            options=options,
            topics=Topics.open(options.data),
            coordinator=Coordinator(store, _group_options(options)),
            store=store,
            flusher=flusher,
            producer_ids=ProducerIds(options.data),
        )

    async def close(self) -> None:
        """Sync what is in flight and close every file."""
        await self.coordinator.close()
        await self.store.close()
        await self.flusher.close()
        self.topics.close()


def _group_options(options: BrokerOptions) -> GroupOptions:
    return GroupOptions(
        initial_rebalance_delay=options.initial_rebalance_delay_ms / 1000,
        min_session_timeout=options.min_session_timeout_ms / 1000,
        max_session_timeout=options.max_session_timeout_ms / 1000,
    )


def now_ms() -> int:
    """Milliseconds of Unix time, as records carry them."""
    return time.time_ns() // 1_000_000
