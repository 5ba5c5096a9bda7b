"""The spool at every point where a process can die."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.sdk_python.conftest import SDK
from thumbwheel_client import SpoolError
from thumbwheel_client.ids import uuid7
from thumbwheel_client.journal import pack, unpack
from thumbwheel_client.spool import MOST_ADOPTED, Spool

BIG = 1 << 20
BODIES = st.lists(st.binary(max_size=40).map(lambda b: b'"' + b.hex().encode() + b'"'), max_size=20)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made) / "spool"


def body(n: int) -> bytes:
    return b'{"n":%d}' % n


def filled(where: Path, end: int, *, first: int = 0, max_bytes: int = BIG) -> Spool:
    spool = Spool(where, max_bytes=max_bytes)
    for n in range(first, end):
        spool.append(body(n))
    return spool


def all_of(spool: Spool) -> list[bytes]:
    """What waits, read in small steps and settled."""
    found: list[bytes] = []
    while batch := spool.peek(events=3, size=1000):
        found += [stored.body for stored in batch]
        spool.settle(batch)
    return found


def killed(spool: Spool) -> None:
    """What the end of the process does: the kernel closes its files."""
    spool.abandon()


@given(
    bodies=BODIES, settled=st.integers(0, 20), cut=st.integers(0, 10_000), segment=st.sampled_from([80, 400, 10_000])
)
@settings(deadline=None)
def test_after_a_crash_at_any_byte_what_was_written_and_not_settled_is_there_in_order(
    bodies: list[bytes], settled: int, cut: int, segment: int
) -> None:
    with folder() as where:
        spool = Spool(where, max_bytes=segment * 8)
        kept = [b for b in bodies if not spool.append(b)]
        if len(kept) < len(bodies):  # a spool that is too small: another test's
            killed(spool)
            return
        settled = min(settled, len(bodies))
        spool.settle(spool.peek(events=settled, size=BIG) if settled else [])
        killed(spool)
        files = sorted(where.glob("*.jsonl"))
        written = len(bodies)
        if files:  # the last write was cut short at any byte of its line
            last = files[-1].read_bytes()
            lines = last.split(b"\n")[:-1]
            if lines:
                torn = len(last) - 1 - cut % (len(lines[-1]) + 1)
                os.truncate(files[-1], torn)
                written -= 1
        again = Spool(where, max_bytes=BIG)
        assert all_of(again) == bodies[settled:written]
        again.close()
        assert list(where.iterdir()) == []


@given(st.integers(0, 400), st.integers(1, 255))
@settings(deadline=None)
def test_a_damaged_byte_costs_the_lines_it_touches_and_no_other(at: int, flip: int) -> None:
    with folder() as where:
        killed(filled(where, 10))
        [file] = where.glob("*.jsonl")
        data = bytearray(file.read_bytes())
        data[at % len(data)] ^= flip
        file.write_bytes(data)
        spool = Spool(where, max_bytes=BIG)
        found = all_of(spool)
        lost = [body(n) for n in range(10) if body(n) not in found]
        assert found == [body(n) for n in range(10) if body(n) in found]
        assert len(lost) <= 2  # two where the byte was the break between them
        spool.close()


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=60), bound=st.integers(2_000, 6_000))
@settings(deadline=None)
def test_a_full_spool_keeps_the_newest_in_order_within_its_bytes_and_names_the_rest(
    sizes: list[int], bound: int
) -> None:
    bodies = [b'{"n":%d,"x":"%s"}' % (n, b"x" * size) for n, size in enumerate(sizes)]
    with folder() as where:
        spool = Spool(where, max_bytes=bound)
        pushed_out: list[bytes] = []
        for one in bodies:
            pushed_out += spool.append(one)
            assert spool.size <= bound
        assert pushed_out + all_of(spool) == bodies
        spool.close()


@given(steps=st.lists(st.integers(-3, 3), max_size=60), restarts=st.sets(st.integers(0, 60)))
@settings(deadline=None)
def test_any_mix_of_writing_settling_and_dying_gives_each_event_once_and_in_order(
    steps: list[int], restarts: set[int]
) -> None:
    with folder() as where:
        spool, written, seen = Spool(where, max_bytes=BIG), 0, []
        for index, step in enumerate(steps):
            if step > 0:
                for _ in range(step):
                    spool.append(body(written))
                    written += 1
            elif step < 0:
                batch = spool.peek(events=-step, size=BIG)
                seen += [stored.body for stored in batch]
                spool.settle(batch)
            if index in restarts:
                killed(spool)
                spool = Spool(where, max_bytes=BIG)
            assert spool.waiting == written - len(seen)
        assert seen + all_of(spool) == [body(n) for n in range(written)]
        spool.close()


def test_what_a_living_process_has_is_its_own(tmp_path: Path) -> None:
    first, second = filled(tmp_path, 3), Spool(tmp_path, max_bytes=BIG)
    assert (second.waiting, second.adopt()) == (0, 0)
    killed(first)
    assert second.adopt() == 3
    assert all_of(second) == [body(n) for n in range(3)]
    second.close()


def test_of_two_that_find_the_same_orphan_one_gets_it(tmp_path: Path) -> None:
    one, other = Spool(tmp_path, max_bytes=BIG), Spool(tmp_path, max_bytes=BIG)
    killed(filled(tmp_path, 3))
    assert sorted([one.adopt(), other.adopt()]) == [0, 3]
    one.close()
    other.close()


def test_the_oldest_process_goes_first_and_what_was_adopted_before_what_is_new(tmp_path: Path) -> None:
    killed(filled(tmp_path, 2))
    killed(filled(tmp_path, 4))
    spool = Spool(tmp_path, max_bytes=BIG)
    spool.append(body(99))
    assert all_of(spool) == [body(n) for n in (0, 1, 0, 1, 2, 3, 99)]
    spool.close()


def test_a_clock_that_was_put_back_changes_no_order(tmp_path: Path) -> None:
    tomorrow = uuid7(time.time_ns() // 1_000_000 + 86_400_000).hex
    tmp_path.joinpath(f"{tomorrow}.00000001.jsonl").write_bytes(pack(body(0)))
    killed(filled(tmp_path, 3, first=1))
    spool = filled(tmp_path, 5, first=3)
    assert all_of(spool) == [body(n) for n in range(5)]
    spool.close()


def test_more_orphans_than_can_be_held_at_a_time_come_one_after_the_other(tmp_path: Path) -> None:
    alive = [filled(tmp_path, 1) for _ in range(MOST_ADOPTED + 3)]
    for spool in alive:
        killed(spool)
    spool = Spool(tmp_path, max_bytes=BIG)
    assert spool.waiting == MOST_ADOPTED
    assert len(all_of(spool)) == MOST_ADOPTED
    assert spool.adopt() == 3
    assert len(all_of(spool)) == 3
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_settling_what_was_pushed_out_meanwhile_changes_nothing(tmp_path: Path) -> None:
    spool = filled(tmp_path, 20, max_bytes=800)
    in_flight = spool.peek(events=2, size=BIG)
    gone: list[bytes] = []
    for n in range(20, 40):
        gone += spool.append(body(n))
    assert {stored.body for stored in in_flight} <= set(gone)
    waiting = spool.waiting
    spool.settle(in_flight)
    assert spool.waiting == waiting == len(all_of(spool))
    spool.close()


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    code = f"""
import sys, resource, signal
sys.path.insert(0, {str(SDK / "python")!r})
from pathlib import Path
from thumbwheel_client.spool import Spool
spool = Spool(Path({str(tmp_path)!r}), max_bytes=1 << 20)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
for n in range(10):
    try:
        spool.append(b'{{"n":%d}}' % n)
    except OSError as error:
        print(n, end=" ")
resource.setrlimit(resource.RLIMIT_FSIZE, before)
spool.append(b'{{"n":10}}')
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    refused = [int(n) for n in run.stdout.split()]
    assert refused == [2, 3, 4, 5, 6, 7, 8, 9]  # a line has 44 bytes
    spool = Spool(tmp_path, max_bytes=BIG)
    assert all_of(spool) == [body(0), body(1), body(10)]
    spool.close()


def test_a_folder_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolError, match="name a folder that can be written"):
        Spool(tmp_path / "file", max_bytes=BIG)


def test_a_folder_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Spool(tmp_path, max_bytes=BIG).close()
    assert oct(tmp_path.stat().st_mode & 0o777) == "0o700"


def test_a_folder_removed_under_a_running_process_costs_nothing_that_it_still_sends(tmp_path: Path) -> None:
    spool = filled(tmp_path / "spool", 3)
    shutil.rmtree(tmp_path / "spool")
    spool.append(body(3))
    assert all_of(spool) == [body(n) for n in range(4)]
    spool.close()


def test_strange_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ("f" * 32 + ".00000001.jsonl")).write_bytes(b"\x00garbage\n" + pack(body(1)) + b"torn")
    spool = Spool(tmp_path, max_bytes=BIG)
    assert all_of(spool) == [body(1)]
    spool.close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_position_means_from_the_beginning(tmp_path: Path) -> None:
    spool = filled(tmp_path, 3)
    spool.settle(spool.peek(events=2, size=BIG))
    killed(spool)
    [lock] = tmp_path.glob("*.lock")
    lock.write_bytes(b"00000001 000000000099 00000000\n")
    again = Spool(tmp_path, max_bytes=BIG)
    assert len(all_of(again)) == 3
    again.close()


def test_a_line_by_hand() -> None:
    assert pack(b'{"n":1}') == b'{"crc32":"d44b3b7e","event":{"n":1}}\n'
    assert unpack(pack(b'{"n":1}')[:-1]) == b'{"n":1}'
    assert unpack(pack(b'{"n":1}')[:-1].replace(b"1}}", b"2}}")) is None
