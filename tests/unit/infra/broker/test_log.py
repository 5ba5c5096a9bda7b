import resource
import subprocess
import sys
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode

from infra.broker.batches import Record, build, read_header
from infra.broker.errors import BrokerError
from infra.broker.log import LogConfig, PartitionLog
from tests.unit.infra.broker.storage_kit import (
    BrokenDisk,
    batch,
    everything,
    keyed,
    numbered,
    opened,
    stored,
    sync,
)

SMALL = LogConfig(segment_bytes=200, retention_ms=-1)  # two of the batches below
ONE = len(batch("a"))


def refusal(log: PartitionLog, data: bytes) -> ErrorCode:
    with pytest.raises(BrokerError) as caught:
        log.append(data, now_ms=1)
    return caught.value.code


def test_records_get_the_next_offsets_and_are_read_back(tmp_path: Path):
    log = opened(tmp_path / "p")
    assert stored(log, batch("a", "b")).base_offset == 0
    appended = stored(log, batch("c"))
    assert (appended.base_offset, appended.last_offset, appended.duplicate, appended.log_append_time) == (
        2,
        2,
        False,
        -1,
    )
    assert everything(log) == [(0, "a"), (1, "b"), (2, "c")]


def test_nothing_is_visible_before_it_is_synced(tmp_path: Path):
    log = opened(tmp_path / "p")
    log.append(batch("a"), now_ms=1)
    assert (log.end_offset, log.high_watermark) == (1, 0)
    assert log.read(0, 1000, minimum_one=True) == b""
    assert log.offset_at(0) is None
    assert log.max_timestamp() is None
    sync(log)
    assert everything(log) == [(0, "a")]


def test_a_sync_covers_what_was_there_when_it_began(tmp_path: Path):
    log = opened(tmp_path / "p")
    log.append(batch("a"), now_ms=1)
    due = log.begin_sync()
    assert due is not None
    log.append(batch("b"), now_ms=1)
    due.run()
    log.finish_sync(due, None)
    assert everything(log) == [(0, "a")]


def test_offsets_outside_the_log_are_refused_and_its_end_is_not(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a"))
    assert log.read(1, 1000, minimum_one=True) == b""
    for offset in (-1, 2):
        with pytest.raises(BrokerError) as caught:
            log.read(offset, 1000, minimum_one=True)
        assert caught.value.code is ErrorCode.offset_out_of_range


def test_reads_give_whole_batches_within_their_bytes(tmp_path: Path):
    log = opened(tmp_path / "p")
    for value in "abcd":
        stored(log, batch(value))
    assert len(log.read(0, 2 * ONE, minimum_one=False)) == 2 * ONE
    assert len(log.read(0, 3 * ONE - 1, minimum_one=True)) == 2 * ONE
    assert len(log.read(0, ONE - 1, minimum_one=True)) == ONE
    assert log.read(0, ONE - 1, minimum_one=False) == b""
    assert read_header(log.read(2, 10**6, minimum_one=True)).base_offset == 2


def test_an_offset_within_a_batch_gives_the_whole_batch(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a", "b", "c"))
    assert read_header(log.read(2, 10**6, minimum_one=True)).base_offset == 0


def test_large_and_small_batches_are_all_found_through_the_index(tmp_path: Path):
    log = opened(tmp_path / "p")
    values = [str(i) * (1 + i * 997 % 6000) for i in range(200)]
    for value in values:
        stored(log, batch(value))
    for max_bytes in (1, 3000, 50_000):
        assert everything(log, max_bytes=max_bytes) == list(enumerate(values))
    for offset in range(200):
        assert read_header(log.read(offset, 1, minimum_one=True)).base_offset == offset


def test_the_log_goes_on_in_a_new_segment_when_one_is_full(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    for value in "abcde":
        stored(log, batch(value))
    assert sorted(path.name[-6:] for path in (tmp_path / "p").glob("*.log")) == ["00.log", "02.log", "04.log"]
    assert everything(log) == list(enumerate("abcde"))


def test_a_roll_makes_the_old_segment_durable_first(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    for value in "abc":
        log.append(batch(value), now_ms=1)
    assert (log.high_watermark, log.end_offset) == (2, 3)


def test_several_batches_in_one_request_are_stored_together(tmp_path: Path):
    log = opened(tmp_path / "p")
    appended = stored(log, batch("a", "b") + batch("c"))
    assert (appended.base_offset, appended.last_offset) == (0, 2)
    assert everything(log) == [(0, "a"), (1, "b"), (2, "c")]


def test_one_bad_batch_refuses_the_whole_request(tmp_path: Path):
    log = opened(tmp_path / "p")
    bad = bytearray(batch("b"))
    bad[-1] ^= 1
    assert refusal(log, batch("a") + bytes(bad)) is ErrorCode.corrupt_message
    assert refusal(log, batch("a") + b"x") is ErrorCode.corrupt_message
    assert refusal(log, b"") is ErrorCode.invalid_record
    assert log.end_offset == 0


def test_what_is_too_large_is_refused(tmp_path: Path):
    assert (
        refusal(opened(tmp_path / "a", LogConfig(max_message_bytes=ONE - 1)), batch("a")) is ErrorCode.message_too_large
    )
    assert refusal(opened(tmp_path / "b", LogConfig(segment_bytes=ONE)), batch("ab")) is ErrorCode.record_list_too_large
    stored(opened(tmp_path / "c", LogConfig(max_message_bytes=ONE, segment_bytes=ONE)), batch("a"))


def test_log_append_time_is_told_and_kept(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(log_append_time=True))
    assert stored(log, batch("a", "b", at=7), now_ms=5000).log_append_time == 5000
    assert log.max_timestamp() == (0, 5000)


def test_a_batch_sent_again_is_answered_with_its_old_place(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("x"))
    stored(log, numbered(0, 2))
    again = log.append(numbered(0, 2), now_ms=1)
    assert (again.base_offset, again.last_offset, again.duplicate) == (1, 2, True)
    assert log.end_offset == 3
    assert refusal(log, numbered(3)) is ErrorCode.out_of_order_sequence_number


def test_an_idempotent_producer_sends_one_batch_at_a_time(tmp_path: Path):
    assert refusal(opened(tmp_path / "p"), numbered(0) + numbered(1)) is ErrorCode.invalid_record


def test_compacted_topics_take_no_record_without_a_key(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(compact=True))
    assert refusal(log, batch("a")) is ErrorCode.invalid_record
    stored(log, keyed(("k", "v"), ("l", None)))
    assert everything(log) == [(0, "v"), (1, None)]


def test_subscribers_hear_of_durable_records_and_of_the_end(tmp_path: Path):
    log, heard = opened(tmp_path / "p"), []
    log.subscribe(callback := lambda: heard.append((log.high_watermark, log.closed)))
    log.append(batch("a"), now_ms=1)
    assert heard == []
    sync(log)
    assert heard == [(1, False)]
    log.close()
    assert heard == [(1, False), (1, True)]
    log.unsubscribe(callback)
    log.unsubscribe(callback)


def test_a_closed_log_takes_nothing(tmp_path: Path):
    log = opened(tmp_path / "p")
    log.close()
    log.close()
    assert refusal(log, batch("a")) is ErrorCode.unknown_topic_or_partition


def test_closing_syncs_what_is_left(tmp_path: Path):
    log = opened(tmp_path / "p")
    log.append(batch("a"), now_ms=1)
    log.close()
    assert log.high_watermark == 1


# Times


def test_the_first_record_at_or_after_a_time_is_found_within_its_batch(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    stored(log, batch("a", "b", at=1000))
    stored(log, batch("c", at=3000))
    stored(log, batch("d", at=2000))  # late, in a segment of its own
    stored(log, batch("e", at=4000))
    found = [log.offset_at(time) for time in (0, 1001, 1002, 3000, 3001, 4001)]
    assert found == [(0, 1000), (1, 1001), (2, 3000), (2, 3000), (4, 4000), None]
    assert log.max_timestamp() == (4, 4000)
    log.delete_before(1)
    assert log.offset_at(0) == (1, 1001)
    log.delete_before(3)
    assert log.offset_at(0) == (3, 2000)


def test_the_first_of_several_greatest_times_is_the_maximum(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    for value, time in (("a", 5), ("b", 9), ("c", 9), ("d", 2)):
        stored(log, batch(value, at=time))
    assert log.max_timestamp() == (1, 9)


def test_times_that_go_back_within_a_segment_are_found_through_the_index(tmp_path: Path):
    log = opened(tmp_path / "p")
    for time in (50, 90, 10, 70, 95, 20):
        stored(log, batch("x" * 5000, at=time))  # an entry of the index each
    assert [log.offset_at(time) for time in (0, 60, 91, 96)] == [(0, 50), (1, 90), (4, 95), None]
    assert log.max_timestamp() == (4, 95)


def test_the_maximum_counts_durable_records_only(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a", at=5))
    log.append(batch("b", at=9), now_ms=1)
    assert log.max_timestamp() == (0, 5)


def test_an_empty_log_has_no_times(tmp_path: Path):
    log = opened(tmp_path / "p")
    assert (log.offset_at(0), log.max_timestamp()) == (None, None)


# Forgetting


def bases(log: PartitionLog) -> list[int]:
    return [segment.base for segment, _ in log.closed_segments()]


def test_retention_by_time_drops_old_segments_from_the_beginning(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(segment_bytes=ONE, retention_ms=100))
    for value, time in (("a", 1000), ("b", 1010), ("c", 1200), ("d", 1050)):
        stored(log, batch(value, at=time))
    assert log.enforce_retention(1100) == 0
    assert log.enforce_retention(1111) == 2
    assert (log.log_start, everything(log)) == (2, [(2, "c"), (3, "d")])
    assert sorted(path.stem[-1] for path in (tmp_path / "p").glob("*.index")) == ["2"]


def test_when_all_is_too_old_the_next_offset_stays_what_it_was(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(retention_ms=100))
    stored(log, batch("a", "b", at=1000))
    assert log.enforce_retention(2000) == 1
    assert (log.log_start, log.end_offset, log.size_bytes) == (2, 2, 0)
    assert log.enforce_retention(10**15) == 0
    log.close()
    log = opened(tmp_path / "p")
    assert (log.log_start, log.end_offset) == (2, 2)
    assert stored(log, batch("c")).base_offset == 2


def test_retention_by_bytes_keeps_at_least_that_many(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(segment_bytes=ONE, retention_ms=-1, retention_bytes=2 * ONE + 1))
    for value in "abcde":
        stored(log, batch(value))
    assert log.enforce_retention(10**15) == 2
    assert [offset for offset, _ in everything(log)] == [2, 3, 4]


def test_compacted_topics_are_not_subject_to_retention(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(compact=True, delete=False, retention_ms=1))
    stored(log, keyed(("k", "v")))
    assert log.enforce_retention(10**15) == 0


def test_an_old_segment_is_rolled_after_its_time(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(segment_ms=100))
    stored(log, batch("a"), now_ms=5000)
    log.maybe_roll(5099)
    assert bases(log) == []
    log.maybe_roll(5100)
    assert bases(log) == [0]
    log.maybe_roll(9999)
    assert bases(log) == [0]


def test_deleted_records_stay_deleted_across_a_restart(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    for value in "abcde":
        stored(log, batch(value))
    assert log.delete_before(3) == 3
    assert log.delete_before(1) == 3
    assert bases(log) == [2]
    assert everything(log) == [(3, "d"), (4, "e")]
    log.close()
    log = opened(tmp_path / "p", SMALL)
    assert (log.log_start, everything(log)) == (3, [(3, "d"), (4, "e")])
    with pytest.raises(BrokerError):
        log.read(2, 100, minimum_one=True)


def test_everything_can_be_deleted_but_nothing_beyond(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    stored(log, batch("a"))
    log.append(batch("b"), now_ms=1)
    with pytest.raises(BrokerError) as caught:
        log.delete_before(2)
    assert caught.value.code is ErrorCode.offset_out_of_range
    assert log.delete_before(1) == 1


def test_where_everything_is_deleted_no_byte_of_it_stays_on_the_disk(tmp_path: Path):
    log = opened(tmp_path / "p", SMALL)
    stored(log, batch("something-private"))
    assert log.delete_before(1) == 1
    left = [path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert left and not any(b"something-private" in content for content in left)
    stored(log, batch("b"))
    log.close()
    assert everything(opened(tmp_path / "p", SMALL)) == [(1, "b")]


# A disk that fails


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", disk=disk)
    stored(log, numbered(0))
    for room in range(ONE):
        disk.room = room
        assert refusal(log, numbered(1)) is ErrorCode.kafka_storage_error
        assert (tmp_path / "p" / f"{0:020d}.log").stat().st_size == log.size_bytes
    disk.room = None
    assert stored(log, numbered(1)).base_offset == 1
    assert everything(log) == [(0, "0"), (1, "1")]


def test_a_full_disk_at_a_roll_refuses_and_goes_on_when_there_is_room(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", SMALL, disk=disk)
    stored(log, batch("a"))
    stored(log, batch("b"))
    disk.room = 0
    assert refusal(log, batch("c")) is ErrorCode.kafka_storage_error
    disk.room = None
    stored(log, batch("c"))
    assert everything(log) == list(enumerate("abc"))


def test_a_roll_that_failed_half_way_is_finished_before_anything_is_appended(tmp_path: Path):
    log = opened(tmp_path / "p")
    stored(log, batch("a"))
    obstacle = tmp_path / "p" / f"{1:020d}.log"
    obstacle.mkdir()
    with pytest.raises(BrokerError):
        log.roll()
    assert refusal(log, batch("b")) is ErrorCode.kafka_storage_error
    obstacle.rmdir()
    stored(log, batch("b"))
    assert bases(log) == [0]
    assert everything(log) == [(0, "a"), (1, "b")]


def test_a_failed_sync_drops_what_was_not_durable_and_forgets_its_producers(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", disk=disk)
    stored(log, numbered(0))
    log.append(numbered(1), now_ms=1)
    due = log.begin_sync()
    assert due is not None
    disk.fails = True
    with pytest.raises(OSError):
        due.run()
    log.finish_sync(due, OSError("as raised"))
    assert (log.end_offset, log.high_watermark, log.generation) == (1, 1, 1)
    assert refusal(log, numbered(1)) is ErrorCode.kafka_storage_error
    disk.fails = False
    assert refusal(log, numbered(2)) is ErrorCode.out_of_order_sequence_number
    again = stored(log, numbered(1))
    assert (again.base_offset, again.duplicate) == (1, False)
    assert everything(log) == [(0, "0"), (1, "1")]


def test_a_sync_begun_before_the_log_was_cut_back_counts_for_nothing(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", SMALL, disk=disk)
    for value in "ab":
        log.append(batch(value), now_ms=1)
    due = log.begin_sync()
    assert due is not None
    due.run()  # the event loop has not heard of it when the roll fails
    disk.fails = True
    assert refusal(log, batch("c")) is ErrorCode.kafka_storage_error
    log.finish_sync(due, None)
    assert (log.end_offset, log.high_watermark) == (0, 0)
    disk.fails = False
    stored(log, batch("x"))
    assert everything(log) == [(0, "x")]


def test_a_failed_sync_is_remembered_by_the_next_one(tmp_path: Path):
    disk = BrokenDisk()
    log = opened(tmp_path / "p", SMALL, disk=disk)
    for value in "ab":
        log.append(batch(value), now_ms=1)
    due = log.begin_sync()
    assert due is not None
    disk.fails = True
    with pytest.raises(OSError):
        due.run()
    disk.fails = False  # as the kernel does: it reports once
    assert refusal(log, batch("c")) is ErrorCode.kafka_storage_error
    assert log.high_watermark == 0


def test_rolling_costs_reads_no_file_descriptors(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(segment_bytes=ONE))
    stored(log, batch("a"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        stored(log, batch("a"))
    assert len(everything(log)) == 51
    assert len(list(Path("/proc/self/fd").iterdir())) == before


FILE_SIZE_LIMIT = f"""
import resource, sys
from pathlib import Path
from infra.broker.errors import BrokerError
from tests.unit.infra.broker.storage_kit import batch, everything, opened, stored
log = opened(Path(sys.argv[1]))
stored(log, batch("a"))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({ONE} + 30, hard))
try:
    log.append(batch("b"), now_ms=1)
except BrokerError as error:
    print(error.code.name)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
stored(log, batch("c"))
print(everything(log))
"""


def test_a_real_limit_of_the_system_is_survived(tmp_path: Path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", FILE_SIZE_LIMIT, str(tmp_path / "p")],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["kafka_storage_error", "[(0, 'a'), (1, 'c')]"]


def test_records_without_a_timestamp_age_by_their_file(tmp_path: Path):
    log = opened(tmp_path / "p", LogConfig(retention_ms=1000))
    stored(log, build([Record(0, -1, None, b"a")]))
    modified = int((tmp_path / "p" / f"{0:020d}.log").stat().st_mtime * 1000)
    assert log.enforce_retention(modified + 500) == 0
    assert log.enforce_retention(modified + 2000) == 1
