"""A disk that can be told to fail or to take its time, and a store and a coordinator on it."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.broker.coordinator import Coordinator
from infra.broker.disk import Disk
from infra.broker.flusher import Flusher
from infra.broker.group_messages import JoinRequest, JoinResult, Protocol, SyncRequest, SyncResult
from infra.broker.groups import GroupOptions
from infra.broker.log import PartitionLog
from infra.broker.offsets import CONFIG, OffsetStore

QUICK = GroupOptions(initial_rebalance_delay=0.0, min_session_timeout=0.01)


class MoodyDisk(Disk):
    """Does as it is told."""

    def __init__(self) -> None:
        self.is_full = self.loses_writes = False
        self.open = threading.Event()
        """Cleared, syncs wait."""
        self.open.set()

    def write(self, fd: int, parts: Sequence[bytes | memoryview], position: int) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().write(fd, parts, position)

    def sync(self, fd: int) -> None:
        self.open.wait(10)
        if self.loses_writes:
            raise OSError(5, "Input/output error")
        super().sync(fd)


class Broker:
    """What of the broker is about groups, on a folder; `crashed` is the next one, as after SIGKILL."""

    def __init__(
        self,
        directory: Path,
        *,
        options: GroupOptions = QUICK,
        rewrite_bytes: int = 2**22,
        now_ms: Callable[[], int] = lambda: 1000,
    ) -> None:
        self.directory, self.disk, self.flusher = directory, MoodyDisk(), Flusher()
        self.log = PartitionLog.open(directory, CONFIG, disk=self.disk)
        self.store = OffsetStore(self.log, self.flusher, now_ms=now_ms, rewrite_bytes=rewrite_bytes)
        self.groups = Coordinator(self.store, options, now_ms=now_ms)

    def crashed(self) -> "Broker":
        """Another broker on what the folder holds at this moment."""
        copy = self.directory.with_name(self.directory.name + "'")
        shutil.copytree(self.directory, copy)
        return Broker(copy)

    async def close(self) -> None:
        self.disk.open.set()
        await self.groups.close()
        await self.store.close()
        await self.flusher.close()


def joining(
    client: str = "a", member_id: str = "", instance_id: str | None = None, session: float = 10.0
) -> JoinRequest:
    return JoinRequest(
        group_id="g",
        member_id=member_id,
        instance_id=instance_id,
        client_id=client,
        protocol_type="consumer",
        protocols=(Protocol("range", b"\0\0\0\0\0\1\0\1t"),),
        session_timeout=session,
        rebalance_timeout=session,
        member_id_required=False,
    )


async def synced(groups: Coordinator, joined: JoinResult) -> SyncResult:
    """Ends the rebalance for a member; a leader assigns each one's own id to it."""
    shares = {member.member_id: member.member_id.encode() for member in joined.members}
    return await groups.sync(
        SyncRequest(group_id="g", member_id=joined.member_id, generation=joined.generation, assignments=shares)
    )


async def stable_member(groups: Coordinator, **how: str) -> JoinResult:
    """The only member of a stable group."""
    joined = await groups.join(joining(**how))
    await synced(groups, joined)
    return joined


async def turns(count: int = 20) -> None:
    """Lets everything run that is ready."""
    for _ in range(count):
        await asyncio.sleep(0)
