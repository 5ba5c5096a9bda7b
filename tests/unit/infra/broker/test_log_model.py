"""A log against a plain list: whatever is appended, rolled, forgotten and reopened, both hold the same."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.broker.batches import read_header
from infra.broker.log import LogConfig
from tests.unit.infra.broker.storage_kit import BrokenDisk, batch, crashed, everything, numbered, opened, sync

ONE = len(batch("a"))


class LogMachine(RuleBasedStateMachine):
    """`records` holds (offset, value, time) of all that was ever acknowledged and is not deleted, in order."""

    @initialize(segment=st.integers(400, 1200), retention=st.sampled_from([-1, 500, 3000]))
    def begin(self, segment: int, retention: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.disk = BrokenDisk()
        self.config = LogConfig(segment_bytes=segment, retention_bytes=retention, retention_ms=-1)
        self.records: list[tuple[int, str, int]] = []
        self.unsynced: list[tuple[int, str, int]] = []
        self.start = self.end = self.clock = 0
        self.sequence = 0
        self.open()

    def open(self) -> None:
        self.log = opened(Path(self.folder.name) / "p", self.config, disk=self.disk)

    @rule(count=st.integers(1, 4), size=st.integers(0, 60), time=st.integers(0, 50))
    def append(self, count: int, size: int, time: int) -> None:
        values = [f"{self.clock}-{i}".ljust(size, ".") for i in range(count)]
        self.clock += 1
        base_offset = self.log.append(batch(*values, at=time), now_ms=1).base_offset
        self._appended(base_offset, [(value, time + i) for i, value in enumerate(values)])

    @rule(count=st.integers(1, 3))
    def append_as_idempotent_producer(self, count: int) -> None:
        appended = self.log.append(numbered(self.sequence, count), now_ms=1)
        self._appended(appended.base_offset, [(str(self.sequence + i), 1000) for i in range(count)])
        again = self.log.append(numbered(self.sequence, count), now_ms=1)
        assert again.duplicate
        assert again.base_offset == appended.base_offset
        self.sequence += count

    def _appended(self, base_offset: int, records: list[tuple[str, int]]) -> None:
        assert base_offset == self.end, "offsets go on without a gap"
        self.unsynced += [(base_offset + i, value, time) for i, (value, time) in enumerate(records)]
        self.end += len(records)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """What a roll has made durable is visible."""
        while self.unsynced and self.unsynced[0][0] < self.log.high_watermark:
            self.records.append(self.unsynced.pop(0))

    @rule()
    def sync(self) -> None:
        sync(self.log)
        self._acknowledge()
        assert not self.unsynced

    @rule()
    def roll(self) -> None:
        self.log.roll()
        self._acknowledge()

    @precondition(lambda self: self.unsynced)
    @rule()
    def lose_a_sync(self) -> None:
        lost = [value for _, value, _ in self.unsynced if value.isdigit()]
        self.disk.fails = True
        sync(self.log)
        self.disk.fails = False
        self.unsynced.clear()
        self.end = self.log.high_watermark
        if lost:
            self.sequence = int(lost[0])

    @rule(share=st.floats(0, 1))
    def delete_before(self, share: float) -> None:
        offset = self.start + int(share * (self.log.high_watermark - self.start))
        assert self.log.delete_before(offset) == offset
        self._forget(offset)

    @rule()
    def enforce_retention(self) -> None:
        before = self.log.size_bytes
        self.log.enforce_retention(10**9)
        if self.config.retention_bytes >= 0:
            assert self.log.size_bytes >= min(before, self.config.retention_bytes)
        else:
            assert self.log.size_bytes == before
        self._acknowledge()
        self._forget(self.log.log_start)

    def _forget(self, start: int) -> None:
        self.start = start
        self.records = [record for record in self.records if record[0] >= start]

    @rule()
    def stop_and_reopen(self) -> None:
        self.log.close()
        self._acknowledge()
        self.open()

    @rule(torn=st.integers(0, 200))
    def crash_and_reopen(self, torn: int) -> None:
        """Of what was not synced nothing needs to survive, but what does is a beginning of it."""
        unsynced_from = self.log.high_watermark
        crashed(self.log)
        with max(Path(self.folder.name, "p").glob("*.log")).open("ab") as file:
            file.write(batch("torn" * 50)[:torn])
        self.open()
        assert unsynced_from <= self.log.high_watermark <= self.end
        self.end = self.log.end_offset
        self.unsynced = [record for record in self.unsynced if record[0] < self.end]
        self._acknowledge()

    @invariant()
    def both_hold_the_same(self) -> None:
        assert everything(self.log, max_bytes=300) == [(offset, value) for offset, value, _ in self.records]
        assert (self.log.log_start, self.log.end_offset) == (self.start, self.end)

    @rule(time=st.integers(0, 60))
    def find_by_time(self, time: int) -> None:
        expected = next(((offset, at) for offset, _, at in self.records if at >= time), None)
        assert self.log.offset_at(time) == expected

    @precondition(lambda self: self.records)
    @rule(share=st.floats(0, 1), max_bytes=st.integers(0, 2000))
    def read_somewhere(self, share: float, max_bytes: int) -> None:
        offset = self.records[int(share * (len(self.records) - 1))][0]
        data = self.log.read(offset, max_bytes, minimum_one=True)
        header = read_header(data)
        assert header.base_offset <= offset <= header.last_offset
        assert len(data) <= max(max_bytes, header.size)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.folder.cleanup()


TestLogAgainstAList = LogMachine.TestCase
TestLogAgainstAList.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
