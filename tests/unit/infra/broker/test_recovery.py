import shutil
import time
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode

from infra.broker import log as log_module
from infra.broker.errors import BrokerError
from infra.broker.log import LogConfig
from tests.unit.infra.broker.storage_kit import (
    BrokenDisk,
    batch,
    crashed,
    everything,
    numbered,
    opened,
    stored,
    sync,
)

ONE = len(batch("a"))
SMALL = LogConfig(segment_bytes=2 * ONE, retention_ms=-1)


def last_file(directory: Path) -> Path:
    return max(directory.glob("*.log"))


def test_what_was_stored_is_there_after_a_stop_and_after_a_crash(tmp_path: Path):
    for end in (lambda log: log.close(), crashed):
        log = opened(tmp_path / "p", SMALL)
        before = everything(log)
        stored(log, batch("a", "b"))
        stored(log, batch("c"))
        expected = everything(log)
        assert len(expected) == len(before) + 3
        end(log)
        log = opened(tmp_path / "p", SMALL)
        assert everything(log) == expected
        crashed(log)


def test_a_torn_last_write_of_every_length_is_cut_off(tmp_path: Path):
    log = opened(tmp_path / "whole")
    stored(log, batch("a", "b"))
    size = log.size_bytes
    stored(log, batch("torn", "too"))
    crashed(log)
    content = last_file(tmp_path / "whole").read_bytes()
    for length in range(size, len(content)):
        directory = tmp_path / str(length)
        directory.mkdir()
        (directory / f"{0:020d}.log").write_bytes(content[:length])
        log = opened(directory)
        assert everything(log) == [(0, "a"), (1, "b")], length
        assert last_file(directory).stat().st_size == size
        assert stored(log, batch("c")).base_offset == 2
        crashed(log)
        assert everything(opened(directory)) == [(0, "a"), (1, "b"), (2, "c")], length


def test_a_torn_last_write_of_every_length_is_cut_off_after_a_clean_stop_too(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a"))
    log.close()  # leaves a checkpoint of one batch
    shutil.copytree(tmp_path / "p", tmp_path / "kept")
    log = opened(tmp_path / "p")
    stored(log, batch("b"))
    crashed(log)
    content = last_file(tmp_path / "p").read_bytes()
    for length in range(len(content)):
        shutil.rmtree(tmp_path / "p")
        shutil.copytree(tmp_path / "kept", tmp_path / "p")
        last_file(tmp_path / "p").write_bytes(content[:length])
        log = opened(tmp_path / "p")
        assert everything(log) == ([(0, "a")] if length >= ONE else []), length
        crashed(log)


def test_zeros_and_noise_after_the_last_batch_are_cut_off(tmp_path: Path):
    for tail in (bytes(1), bytes(5000), b"\xff" * 100, batch("x")[:-1] + b"?", batch("x")):
        log = opened(tmp_path / "p")
        stored(log, batch("a"))
        expected = everything(log)
        crashed(log)
        with last_file(tmp_path / "p").open("ab") as file:
            file.write(tail)  # the last one is whole, but not of the offset that comes next
        log = opened(tmp_path / "p")
        assert everything(log) == expected
        crashed(log)


def test_a_wrong_byte_in_the_middle_ends_the_log_before_it_wherever_it_is(tmp_path: Path):
    log = opened(tmp_path / "whole")
    for value in "abc":
        stored(log, batch(value))
    crashed(log)
    content = last_file(tmp_path / "whole").read_bytes()
    for at in range(ONE, 2 * ONE):
        if at - ONE in range(12, 16):
            continue  # the leader epoch, which means nothing here
        directory = tmp_path / str(at)
        directory.mkdir()
        (directory / f"{0:020d}.log").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        log = opened(directory)
        assert everything(log) == [(0, "a")], at
        crashed(log)


def test_closed_segments_are_not_looked_at(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    for value in "abcde":
        stored(log, batch(value))
    crashed(log)
    for path in sorted((tmp_path / "p").glob("*.log"))[:-1]:
        path.chmod(0)
        path.write_bytes(b"\0" * path.stat().st_size)
    log = opened(tmp_path / "p", SMALL)
    assert (log.log_start, log.end_offset) == (0, 5)
    assert log.read(4, 1000, minimum_one=True)


def test_a_large_last_segment_is_walked_from_its_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_module, "CHECKPOINT_BYTES", 3 * ONE)
    log = opened(tmp_path / "p")
    for value in "abcdef":
        stored(log, batch(value))
    crashed(log)
    path = last_file(tmp_path / "p")
    content = bytearray(path.read_bytes())
    content[ONE - 1] ^= 1  # below the checkpoint: durable once, a matter for the reader's own check
    path.write_bytes(content)
    assert opened(tmp_path / "p").end_offset == 6


@pytest.mark.parametrize("damage", ["missing", "torn", "of another length"])
def test_an_index_that_is_not_sound_is_made_again(tmp_path: Path, damage: str):
    log = opened(tmp_path / "p", SMALL)
    values = [str(i) for i in range(10, 30)]
    for value in values:
        stored(log, batch(value, at=int(value)))
    log.close()
    for path in (tmp_path / "p").glob("*.index"):
        if damage == "missing":
            path.unlink()
        elif damage == "torn":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            other = opened(tmp_path / "other")
            for _ in range(3):
                stored(other, batch("x" * 5000))
            other.close()
            shutil.copy(next((tmp_path / "other").glob("*.index")), path)
    log = opened(tmp_path / "p", SMALL)
    assert everything(log) == list(enumerate(values))
    assert log.offset_at(15) == (5, 15)


def test_producers_are_known_again_after_a_stop_a_crash_and_a_roll(tmp_path: Path):
    for rolled in (False, True):
        for end in (lambda log: log.close(), crashed):
            directory = tmp_path / f"{rolled}-{end.__name__}"
            log = opened(directory)
            stored(log, numbered(0))
            if rolled:
                log.roll()
            stored(log, numbered(1))
            end(log)
            log = opened(directory)
            assert log.append(numbered(0), now_ms=1).duplicate
            assert log.append(numbered(1), now_ms=1).base_offset == 1
            with pytest.raises(BrokerError) as caught:
                log.append(numbered(3), now_ms=1)
            assert caught.value.code is ErrorCode.out_of_order_sequence_number
            assert stored(log, numbered(2)).base_offset == 2
            crashed(log)


def test_producers_are_found_by_their_batches_where_the_snapshot_is_damaged(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, numbered(0))
    log.roll()
    crashed(log)
    for path in (tmp_path / "p").glob("*.snapshot"):
        path.write_bytes(b"?")
    assert opened(tmp_path / "p").append(numbered(0), now_ms=1).duplicate


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a"))
    crashed(log)
    leftovers = [
        "00000000000000000000.cleaned",
        "log-start.tmp",
        "00000000000000000007.index",
        "00000000000000000007.snapshot",
    ]
    for name in leftovers:
        (tmp_path / "p" / name).write_bytes(b"?")
    log = opened(tmp_path / "p")
    assert everything(log) == [(0, "a")]
    assert [path.name for path in (tmp_path / "p").iterdir()] == [f"{0:020d}.log"]


def test_a_roll_that_was_interrupted_loses_nothing_and_reuses_no_offset(tmp_path: Path):
    """The disk fails at each of the writes and syncs of a roll in turn; then the process dies."""
    for survived in range(12):
        disk = BrokenDisk()
        directory = tmp_path / str(survived)
        log = opened(directory, SMALL, disk=disk)
        stored(log, batch("a"))
        stored(log, batch("b"))
        disk.room = survived
        with pytest.raises(BrokerError):
            log.append(batch("c"), now_ms=1)
        crashed(log)
        log = opened(directory, SMALL)
        assert everything(log) == [(0, "a"), (1, "b")]
        assert stored(log, batch("c")).base_offset == 2
        crashed(log)
        assert everything(opened(directory, SMALL)) == list(enumerate("abc"))


def test_unsynced_records_that_survive_are_durable_before_they_are_visible(tmp_path: Path):
    log = opened(tmp_path / "p")
    log.append(batch("a"), now_ms=1)
    crashed(log)
    disk = BrokenDisk()
    log = opened(tmp_path / "p", disk=disk)
    assert everything(log) == [(0, "a")]
    assert disk.syncs == 1


def test_five_gigabytes_are_open_within_two_seconds(tmp_path: Path):
    """Sparse files stand for the closed segments: only their names and sizes are looked at."""
    log = opened(tmp_path / "p")
    log.close()
    last_file(tmp_path / "p").unlink()
    for i in range(80):
        with (tmp_path / "p" / f"{i * 1000:020d}.log").open("wb") as file:
            file.truncate(64 * 2**20)
    (tmp_path / "p" / f"{80_000:020d}.log").write_bytes(b"")
    (tmp_path / "p" / f"{80_000:020d}.snapshot").write_bytes(
        next((_snapshot(tmp_path / "other")).glob("*.snapshot")).read_bytes()
    )
    begun = time.perf_counter()
    log = opened(tmp_path / "p")
    assert time.perf_counter() - begun < 1
    assert (log.end_offset, log.size_bytes) == (80_000, 80 * 64 * 2**20)


def _snapshot(directory: Path) -> Path:
    log = opened(directory)
    stored(log, batch("a"))
    log.roll()
    log.close()
    return directory


def test_a_sync_that_fails_leaves_a_log_that_opens(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", disk=disk)
    stored(log, batch("a"))
    disk.fails = True
    log.append(batch("b"), now_ms=1)
    sync(log)
    log.close()
    assert everything(opened(tmp_path / "p")) == [(0, "a")]
