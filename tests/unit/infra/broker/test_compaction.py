import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode

from infra.broker import compaction, recovery
from infra.broker.batches import HEADER_BYTES, Record, assemble, build, check, read_header
from infra.broker.compaction import clean, planned
from infra.broker.disk import Disk
from infra.broker.errors import BrokerError
from infra.broker.log import LogConfig, PartitionLog
from infra.broker.records import compress, records_of
from tests.unit.infra.broker.storage_kit import (
    BrokenDisk,
    batch,
    crashed,
    everything,
    keyed,
    numbered,
    opened,
    stored,
)

CONFIG = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.0, delete_retention_ms=1000)
Pair = tuple[str, str | None]


def filled(directory: Path, *segments: Iterable[Pair], config: LogConfig = CONFIG) -> PartitionLog:
    """One batch a record, one closed segment an argument."""
    log = opened(directory, config)
    fill(log, *segments)
    return log


def fill(log: PartitionLog, *segments: Iterable[Pair]) -> None:
    for segment in segments:
        for pair in segment:
            stored(log, keyed(pair))
        log.roll()


def files(log: PartitionLog) -> list[str]:
    return sorted(path.name.lstrip("0") or "0" for path in log.directory.iterdir())


async def test_the_latest_record_of_each_key_stays_at_its_offset(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1"), ("a", "2")], [("c", "1"), ("b", "2")])
    stored(log, keyed(("a", "3")))  # in the last segment, which does not count
    await clean(log, 5000)
    assert everything(log) == [(2, "2"), (3, "1"), (4, "2"), (5, "3")]
    assert log.end_offset == 6


async def test_small_segments_become_one(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1")], [("a", "2")], [("b", "1")])
    await clean(log, 5000)
    assert [(segment.base, end) for segment, end in log.closed_segments()] == [(0, 3)]
    assert [name for name in files(log) if name.endswith(".log")] == [".log", "3.log"]
    assert everything(log) == [(1, "2"), (2, "1")]
    assert everything(opened(tmp_path / "p")) == [(1, "2"), (2, "1")]


async def test_segments_that_do_not_fit_together_stay_apart(tmp_path: Path):
    size = len(keyed(("a", "1")))
    config = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.0, segment_bytes=2 * size)
    log = filled(tmp_path / "p", [("a", "1")], [("b", "1")], [("c", "1")], config=config)
    await clean(log, 5000)
    assert [(segment.base, end) for segment, end in log.closed_segments()] == [(0, 2), (2, 3)]


async def test_a_log_whose_closed_part_is_empty_is_read_and_found_again(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1")], [("a", "2")])
    fill(log, [("a", "3")])
    await clean(log, 5000)
    stored(log, keyed(("a", "4")))
    fill(log, [("b", "1")])
    await clean(log, 5000)
    assert everything(log) == [(3, "4"), (4, "1")]
    assert log.read(0, 10**6, minimum_one=True)[:8] == (3).to_bytes(8, "big")
    assert log.offset_at(0) == (3, 1000)
    log.close()
    log = opened(tmp_path / "p", CONFIG)
    assert (log.log_start, log.end_offset, everything(log)) == (0, 5, [(3, "4"), (4, "1")])


async def test_a_tombstone_outlives_its_key_for_a_while_from_its_first_cleaning(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1")], [("a", None)])
    await clean(log, 5000)
    assert everything(log) == [(1, "1"), (2, None)]
    assert records_of(log.read(2, 1000, minimum_one=True)) == [Record(2, 1000, b"a", None)]
    fill(log, [("c", "1")])
    await clean(log, 5999)
    assert everything(log) == [(1, "1"), (2, None), (3, "1")]
    fill(log, [("c", "2")])
    await clean(log, 6000)
    assert everything(log) == [(1, "1"), (4, "2")]


async def test_a_tombstone_that_is_written_over_is_gone_at_once(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", None)], [("a", "1")])
    await clean(log, 5000)
    assert everything(log) == [(1, "1")]


@pytest.mark.parametrize("codec", range(5))
async def test_batches_of_every_codec_lose_only_their_old_records(tmp_path: Path, codec: int):
    records = [Record(0, 100 + i, b"k%d" % (i % 3), b"v%d" % i, ((b"h", b"%d" % i),)) for i in range(7)]
    records.append(Record(0, 108, b"gone", None))
    plain = build(records)
    packed = assemble(read_header(plain)._replace(attributes=codec), compress(plain[HEADER_BYTES:], codec))
    log = opened(tmp_path / "p", CONFIG)
    stored(log, packed)
    log.roll()
    await clean(log, 5000)
    data = log.read(0, 10**6, minimum_one=True)
    header = read_header(data)
    check(data, 0, header)
    assert (header.base_offset, header.last_offset, header.count, header.codec) == (0, 7, 4, codec)
    assert header.max_timestamp == 108
    assert records_of(data) == [
        Record(4, 104, b"k1", b"v4", ((b"h", b"4"),)),
        Record(5, 105, b"k2", b"v5", ((b"h", b"5"),)),
        Record(6, 106, b"k0", b"v6", ((b"h", b"6"),)),
        Record(7, 108, b"gone", None),
    ]


async def test_batches_that_stay_whole_are_not_touched(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1")])
    before = log.read(0, 10**6, minimum_one=True)
    await clean(log, 5000)
    assert log.read(0, 10**6, minimum_one=True) == before


async def test_times_are_those_of_the_records_that_stay(tmp_path: Path):
    log = opened(tmp_path / "p", CONFIG)
    stored(log, build([Record(0, 9000, b"a", b"1"), Record(0, 50, b"b", b"1")]))
    stored(log, keyed(("a", "2"), at=70))
    log.roll()
    await clean(log, 10_000)
    assert log.max_timestamp() == (2, 70)
    assert log.offset_at(60) == (2, 70)


async def test_log_append_time_stays(tmp_path: Path):
    config = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.0, log_append_time=True)
    log = opened(tmp_path / "p", config)
    stored(log, keyed(("a", "1"), ("a", None), ("b", "1")), now_ms=4000)
    log.roll()
    await clean(log, 5000)
    data = log.read(0, 1000, minimum_one=True)
    assert [(record.offset, record.timestamp) for record in records_of(data)] == [(1, 4000), (2, 4000)]


async def test_records_without_a_key_from_before_are_dropped(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig())
    stored(log, batch("x"))
    stored(log, keyed(("a", "1")))
    log.roll()
    log.config = CONFIG
    await clean(log, 5000)
    assert everything(log) == [(1, "1")]


async def test_a_batch_that_cannot_be_read_is_kept(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig())
    noise = assemble(read_header(keyed(("a", "0")))._replace(attributes=4), b"not zstd")
    stored(log, noise)
    log.config = CONFIG
    fill(log, [("a", "1"), ("a", "2")])
    await clean(log, 5000)
    data = log.read(0, 10**6, minimum_one=True)
    assert [read_header(data).base_offset, read_header(data, len(noise)).base_offset] == [0, 2]


async def test_only_a_log_that_is_dirty_enough_is_cleaned(tmp_path: Path):
    config = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.5, max_compaction_lag_ms=10_000)
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1"), ("c", "1")], config=config)
    assert await clean(log, 5000) is not None
    fill(log, [("d", "1")])
    assert planned(log, 5000) is None, "one of four is dirty"
    assert planned(log, 1000 + 10_001) is not None, "but has waited long enough"
    fill(log, [("e", "1"), ("f", "1")])
    assert planned(log, 5000) is not None


async def test_young_records_are_left_alone(tmp_path: Path):
    config = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.0, min_compaction_lag_ms=500)
    log = opened(tmp_path / "p", config)
    for time in (1000, 1400):
        stored(log, keyed(("a", str(time)), ("a", "again"), at=time))
        log.roll()
    assert planned(log, 1499) is None
    await clean(log, 1500)
    assert [offset for offset, _ in everything(log)] == [1, 2, 3]


async def test_what_is_clean_is_not_dirty_after_a_restart(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1")])
    await clean(log, 5000)
    log.close()
    assert planned(opened(tmp_path / "p", CONFIG), 5000) is None


async def test_more_keys_than_fit_are_cleaned_in_several_goes(tmp_path: Path):
    size = len(keyed(("a", "1")))
    config = LogConfig(compact=True, delete=False, min_cleanable_dirty_ratio=0.0, segment_bytes=2 * size)
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1")], [("a", "2"), ("b", "2")], [("a", "3")], config=config)
    await clean(log, 5000, max_keys=2)
    assert len(everything(log)) == 5
    await clean(log, 5000, max_keys=2)
    await clean(log, 5000, max_keys=2)
    assert everything(log) == [(3, "2"), (4, "3")]
    assert planned(log, 5000) is None


async def test_producers_are_still_known_after_their_batches_are_gone(tmp_path: Path):
    log = opened(tmp_path / "p", CONFIG)
    sent = read_header(numbered(0))
    first = build([Record(0, 1, b"a", b"1")], producer_id=7, producer_epoch=0, base_sequence=0)
    assert sent.producer_id == 7
    stored(log, first)
    fill(log, [("a", "2")])
    await clean(log, 5000)
    log.close()
    log = opened(tmp_path / "p", CONFIG)
    assert log.append(first, now_ms=1).duplicate


class StoppedWithin(Disk):
    """A disk on which a hook runs within the cleaning thread's sync: something else happens meanwhile."""

    def __init__(self, meanwhile: asyncio.AbstractEventLoop, hook: Callable[[], None]) -> None:
        self.loop, self.hook = meanwhile, hook

    def sync(self, fd: int) -> None:
        super().sync(fd)
        asyncio.run_coroutine_threadsafe(_called(self.hook), self.loop).result()


async def _called(hook: Callable[[], None]) -> None:
    hook()


async def test_appends_and_reads_go_on_meanwhile(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("a", "2")])
    seen: list[object] = []

    def meanwhile() -> None:
        stored(log, keyed(("b", "1")))
        log.roll()
        seen.append(everything(log))

    await clean(log, 5000, disk=StoppedWithin(asyncio.get_running_loop(), meanwhile))
    assert seen == [[(0, "1"), (1, "2"), (2, "1")]]
    assert everything(log) == [(1, "2"), (2, "1")]


@pytest.mark.parametrize("end", ["deleted", "closed"])
async def test_segments_that_go_away_meanwhile_stay_away(tmp_path: Path, end: str):
    log = filled(tmp_path / "p", [("a", "1"), ("a", "2")])
    stored(log, keyed(("b", "1")))

    def meanwhile() -> None:
        if end == "deleted":
            log.delete_before(2)
        else:
            log.close()

    assert await clean(log, 5000, disk=StoppedWithin(asyncio.get_running_loop(), meanwhile)) is None
    assert not [name for name in files(log) if "cleaned" in name or "swap" in name]
    log.close()
    expected = [(2, "1")] if end == "deleted" else [(0, "1"), (1, "2"), (2, "1")]
    assert everything(opened(tmp_path / "p", CONFIG)) == expected


async def test_a_full_disk_leaves_the_log_as_it_was_and_nothing_behind(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("a", "2")])
    disk = BrokenDisk()
    disk.room = 10
    before = files(log)
    with pytest.raises(OSError):
        await clean(log, 5000, disk=disk)
    assert files(log) == before
    await clean(log, 5000)
    assert everything(log) == [(1, "2")]


class Killed(Exception):
    """The process ends here."""


class Fuse:
    """Lets so many renames, removals and syncs of the folder happen, and no more."""

    def __init__(self, left: int, patch: pytest.MonkeyPatch) -> None:
        self.left = left
        patch.setattr(Path, "replace", self.counted(Path.replace))
        patch.setattr(Path, "unlink", self.counted(Path.unlink))
        really = recovery.sync_directory
        for module in (recovery, compaction):
            patch.setattr(module, "sync_directory", self.counted(really))

    def counted(self, really: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return really(*args, **named)

        return call


async def swapped(directory: Path, steps: int, patch: pytest.MonkeyPatch) -> tuple[bool, list[tuple[int, str | None]]]:
    """Whether the cleaning got to its end within so many steps, and what is in the log when it is opened again."""
    log = filled(directory, [("a", "1"), ("a", "2")], [("a", "3")], [("b", "1")])
    finished = True
    with patch.context() as within:
        Fuse(steps, within)
        try:
            await clean(log, 5000)
        except Killed:
            finished = False
    crashed(log)
    log = opened(directory, CONFIG)
    found = everything(log)
    assert log.append(keyed(("z", "1")), now_ms=1).base_offset == 4
    assert not [name for name in files(log) if name.endswith((".swap", ".cleaned", ".tmp"))]
    return finished, found


async def test_a_crash_at_every_step_of_the_swap_leaves_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    new: list[tuple[int, str | None]] = [(2, "3"), (3, "1")]
    old = [(0, "1"), (1, "2"), *new]
    outcomes = [await swapped(tmp_path / "0", 0, monkeypatch)]
    while not outcomes[-1][0]:
        steps = len(outcomes)
        outcomes.append(await swapped(tmp_path / str(steps), steps, monkeypatch))
    found = [records for _, records in outcomes]
    turn = found.index(new)
    assert len(found) > 6
    assert found == [old] * turn + [new] * (len(found) - turn)


async def test_a_long_history_ends_as_a_dictionary_would(tmp_path: Path):
    draw = random.Random(3)
    config = LogConfig(
        compact=True, delete=False, min_cleanable_dirty_ratio=0.0, segment_bytes=2000, delete_retention_ms=0
    )
    log = opened(tmp_path / "p", config)
    latest: dict[str, tuple[int, str | None]] = {}
    for turn in range(30):
        for _ in range(20):
            pairs = [(f"k{draw.randrange(30)}", draw.choice([None, "x" * draw.randrange(40)])) for _ in range(3)]
            appended = stored(log, keyed(*pairs))
            latest |= {key: (appended.base_offset + i, value) for i, (key, value) in enumerate(pairs)}
        if turn % 3 == 0:
            await clean(log, 5000 + turn)
        if turn % 7 == 0:
            log.close()
            log = opened(tmp_path / "p", config)
    log.roll()
    await clean(log, 9000)
    live = {offset for offset, value in latest.values() if value is not None}
    kept = everything(log)
    assert {offset for offset, value in kept if value is not None} == live
    fill(log, [("last", "1")])
    await clean(log, 9999)
    assert {offset for offset, _ in everything(log)} == live | {log.end_offset - 1}


async def test_reads_below_what_was_deleted_are_refused_after_cleaning_too(tmp_path: Path):
    log = filled(tmp_path / "p", [("a", "1"), ("b", "1")], [("c", "1")])
    log.delete_before(1)
    await clean(log, 5000)
    with pytest.raises(BrokerError) as caught:
        log.read(0, 100, minimum_one=True)
    assert caught.value.code is ErrorCode.offset_out_of_range
    assert everything(log) == [(1, "1"), (2, "1")]
