import asyncio
import threading
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode

from infra.broker.errors import BrokerError
from infra.broker.flusher import Flusher
from infra.broker.log import LogConfig
from tests.unit.infra.broker.storage_kit import BrokenDisk, batch, everything, numbered, opened

ONE = len(batch("a"))


class SlowDisk(BrokenDisk):
    """Its syncs wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def sync(self, fd: int) -> None:
        assert self.gate.wait(10)
        super().sync(fd)


async def test_durable_is_done_when_the_records_can_be_read(tmp_path: Path):
    log, flusher = opened(tmp_path / "p"), Flusher()
    appended = log.append(batch("a"), now_ms=1)
    await flusher.durable(log, appended.last_offset + 1)
    assert everything(log) == [(0, "a")]
    await flusher.durable(log, 1)  # at once
    await flusher.close()


async def test_many_who_wait_share_one_sync(tmp_path: Path):
    disk = SlowDisk()
    log, flusher = opened(tmp_path / "p", disk=disk), Flusher()
    first = [flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)]
    await asyncio.sleep(0.01)  # its sync is under way
    rest = [flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1) for _ in range(100)]
    assert not any(future.done() for future in first + rest)
    disk.gate.set()
    await asyncio.gather(*first, *rest)
    assert disk.syncs == 2
    await flusher.close()


async def test_unacknowledged_producers_are_synced_too(tmp_path: Path):
    log, flusher = opened(tmp_path / "p"), Flusher()
    log.append(batch("a"), now_ms=1)
    flusher.schedule(log)
    await flusher.close()
    assert log.high_watermark == 1


async def test_a_failed_sync_fails_all_who_waited_and_the_log_goes_on(tmp_path: Path):
    disk = BrokenDisk()
    log, flusher = opened(tmp_path / "p", disk=disk), Flusher()
    await flusher.durable(log, log.append(numbered(0), now_ms=1).last_offset + 1)
    disk.fails = True
    waiting = [flusher.durable(log, log.append(numbered(i), now_ms=1).last_offset + 1) for i in (1, 2)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [result.code for result in results if isinstance(result, BrokerError)] == [ErrorCode.kafka_storage_error] * 2
    disk.fails = False
    appended = log.append(numbered(1), now_ms=1)
    assert (appended.base_offset, appended.duplicate) == (1, False)
    await flusher.durable(log, 2)
    assert everything(log) == [(0, "0"), (1, "1")]
    await flusher.close()


async def test_who_comes_after_a_cut_is_not_mistaken_for_who_came_before(tmp_path: Path):
    disk = SlowDisk()
    log, flusher = opened(tmp_path / "p", LogConfig(segment_bytes=2 * ONE), disk=disk), Flusher()
    lost = flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)
    await asyncio.sleep(0.01)  # its sync is under way
    log.append(batch("b"), now_ms=1)
    disk.fails = True
    disk.gate.set()
    with pytest.raises(BrokerError):
        log.append(batch("c"), now_ms=1)  # needs a roll, which can't sync
    disk.fails = False
    kept = flusher.durable(log, log.append(batch("x"), now_ms=1).last_offset + 1)
    with pytest.raises(BrokerError):
        await lost
    await kept
    assert everything(log) == [(0, "x")]
    await flusher.close()


async def test_a_log_closed_meanwhile_fails_only_what_it_could_not_sync(tmp_path: Path):
    disk, flusher = SlowDisk(), Flusher()
    log = opened(tmp_path / "p", disk=disk)
    deleted = opened(tmp_path / "q", disk=disk)
    kept = flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)
    gone = flusher.durable(deleted, deleted.append(batch("a"), now_ms=1).last_offset + 1)
    await asyncio.sleep(0.01)
    disk.gate.set()
    log.close()
    deleted.close(discard=True)
    await kept
    with pytest.raises(BrokerError):
        await gone
    with pytest.raises(BrokerError):
        await flusher.durable(deleted, 1)
    await flusher.close()


async def test_rolling_and_deleting_under_load_never_syncs_a_closed_descriptor(tmp_path: Path):
    config = LogConfig(segment_bytes=3 * ONE, retention_bytes=5 * ONE, retention_ms=-1)
    flusher = Flusher()
    logs = [opened(tmp_path / str(i), config) for i in range(4)]

    async def produce(log_index: int) -> None:
        log = logs[log_index]
        for i in range(60):
            await flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)
            if i % 10 == 0:
                log.enforce_retention(1)

    await asyncio.gather(*(produce(i % 4) for i in range(12)))
    assert [log.high_watermark for log in logs] == [180] * 4
    for log in logs:
        log.close()
    await flusher.close()


async def test_who_gives_up_waiting_disturbs_nobody(tmp_path: Path):
    disk = SlowDisk()
    log, flusher = opened(tmp_path / "p", disk=disk), Flusher()
    gone = flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)
    stays = flusher.durable(log, log.append(batch("a"), now_ms=1).last_offset + 1)
    gone.cancel()
    disk.gate.set()
    await stays
    await flusher.close()
