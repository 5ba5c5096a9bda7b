"""Committed offsets on a real log: what is acknowledged survives, what is not is not seen."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.broker.group_messages import Committed, TopicPartition
from infra.broker.groups import StoredGroup
from infra.broker.ledger import Entry, GroupSet, Ledger, OffsetSet, TopicGone, from_record, to_record
from tests.unit.infra.broker.group_kit import Broker, turns

T0, T1, U0 = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)
EMPTY: StoredGroup = {
    "state": "Empty",
    "generation": 7,
    "protocol_type": "consumer",
    "protocol": None,
    "leader": None,
    "members": [],
}


def at(offset: int) -> Committed:
    return Committed(offset, -1, "", 1000)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "groups", rewrite_bytes=4000)
    yield broker
    await broker.close()


async def test_what_was_written_is_there_after_a_crash(broker: Broker) -> None:
    assert await broker.store.write(OffsetSet("g", T0, at(5)), OffsetSet("g", T1, at(6)), GroupSet("g", EMPTY, 9))
    after = broker.crashed()
    assert after.store.ledger.offsets == {"g": {T0: at(5), T1: at(6)}}
    assert after.store.ledger.groups["g"] == (EMPTY, 9)
    await after.close()


async def test_nothing_is_seen_before_it_is_on_the_disk(broker: Broker) -> None:
    broker.disk.open.clear()
    write = broker.store.write(OffsetSet("g", T0, at(5)))
    await turns()
    assert not write.done()
    assert broker.store.ledger.offsets == {}
    assert broker.store.is_being_written("g")
    broker.disk.open.set()
    assert await write
    assert broker.store.ledger.offsets == {"g": {T0: at(5)}}
    assert not broker.store.is_being_written("g")


async def test_entries_take_effect_in_the_order_of_the_log(broker: Broker) -> None:
    broker.disk.open.clear()
    writes = [
        broker.store.write(OffsetSet("g", T0, at(5))),
        broker.store.write(GroupSet("g", None, 0)),
        broker.store.write(OffsetSet("g", T1, at(1))),
        broker.store.write(OffsetSet("g", T1, at(2))),
    ]
    broker.disk.open.set()
    assert all(await asyncio.gather(*writes))
    assert broker.store.ledger.offsets == {"g": {T1: at(2)}}


async def test_a_write_goes_on_when_its_caller_is_cancelled(broker: Broker) -> None:
    async def caller() -> None:
        await asyncio.shield(broker.store.write(OffsetSet("g", T0, at(5))))

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    await broker.store.close()
    assert broker.store.ledger.offsets == {"g": {T0: at(5)}}


async def test_a_full_disk_refuses_and_takes_again_when_there_is_room(broker: Broker) -> None:
    assert await broker.store.write(OffsetSet("g", T0, at(5)))
    broker.disk.is_full = True
    assert not await broker.store.write(OffsetSet("g", T0, at(6)))
    assert broker.store.ledger.offsets == {"g": {T0: at(5)}}
    broker.disk.is_full = False
    assert await broker.store.write(OffsetSet("g", T0, at(7)))
    after = broker.crashed()
    assert after.store.ledger.offsets == {"g": {T0: at(7)}}
    await after.close()


async def test_what_a_failed_sync_took_back_has_no_effect(broker: Broker) -> None:
    assert await broker.store.write(OffsetSet("g", T0, at(5)))
    broker.disk.loses_writes = True
    lost = [broker.store.write(OffsetSet("g", T0, at(n))) for n in (6, 7)]
    assert await asyncio.gather(*lost) == [False, False]
    assert broker.store.ledger.offsets == {"g": {T0: at(5)}}
    broker.disk.loses_writes = False
    assert await broker.store.write(OffsetSet("g", T1, at(1)))
    assert broker.store.ledger.offsets == {"g": {T0: at(5), T1: at(1)}}
    assert not broker.store.is_being_written("g")


async def test_the_log_forgets_what_was_overwritten(broker: Broker) -> None:
    await broker.store.write(OffsetSet("other", U0, at(3)), GroupSet("g", EMPTY, 9))
    for n in range(500):
        await broker.store.write(OffsetSet("g", T0, at(n)))
    kept = broker.log.end_offset - broker.log.log_start
    assert kept < 100  # 4000 bytes are some 40 entries, and as much again until the next rewrite
    after = broker.crashed()
    assert after.store.ledger == broker.store.ledger
    assert after.store.ledger.offsets == {"g": {T0: at(499)}, "other": {U0: at(3)}}
    await after.close()


async def test_entries_on_their_way_are_part_of_what_is_rewritten(broker: Broker) -> None:
    writes = [broker.store.write(OffsetSet("g", TopicPartition("t", n % 3), at(n))) for n in range(300)]
    assert all(await asyncio.gather(*writes))
    await broker.store.close()
    assert broker.log.log_start > 0
    after = broker.crashed()
    want = {TopicPartition("t", 0): at(297), T1: at(298), TopicPartition("t", 2): at(299)}
    assert after.store.ledger.offsets == {"g": want}
    await after.close()


async def test_a_crash_between_rewriting_and_forgetting_changes_nothing(broker: Broker) -> None:
    broker.log.delete_before = lambda offset: offset  # type: ignore[method-assign]
    for n in range(200):
        await broker.store.write(OffsetSet("g", T0, at(n)))
    after = broker.crashed()
    assert after.log.log_start == 0
    assert after.store.ledger.offsets == {"g": {T0: at(199)}}
    await after.close()


def test_a_deleted_topic_is_forgotten_in_all_groups() -> None:
    ledger = Ledger()
    for entry in (OffsetSet("g", T0, at(1)), OffsetSet("h", T1, at(1)), OffsetSet("h", U0, at(2)), TopicGone("t")):
        ledger.apply(entry)
    assert ledger.offsets == {"h": {U0: at(2)}}


PARTITIONS = st.builds(TopicPartition, st.sampled_from(["t", "ü"]), st.integers(0, 1))
GROUPS, COMMITTED = (
    st.sampled_from("gh"),
    st.builds(Committed, st.integers(-1, 2**62), st.integers(-1, 9), st.text(max_size=5), st.integers(0)),
)
ENTRIES = st.one_of(
    st.builds(OffsetSet, GROUPS, PARTITIONS, st.none() | COMMITTED),
    st.builds(GroupSet, GROUPS, st.sampled_from([None, EMPTY]), st.just(1000)),
    st.builds(TopicGone, st.sampled_from(["t", "ü"])),
)


@given(ENTRIES)
def test_entries_read_back_as_they_were_written(entry: Entry) -> None:
    assert from_record(to_record(entry, 1000)) == entry


@given(st.lists(ENTRIES, max_size=30))
def test_a_ledgers_entries_add_up_to_the_ledger(entries: list[Entry]) -> None:
    ledger, again = Ledger(), Ledger()
    for entry in entries:
        ledger.apply(entry)
    for entry in ledger.entries():
        again.apply(from_record(to_record(entry, 0)))
    assert again == ledger
    assert ledger.copy() == ledger
