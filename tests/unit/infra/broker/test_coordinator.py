"""All groups on a real log: who waits is answered, what was told survives, timers fire."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode

from infra.broker.coordinator import OFFSETS_RETENTION_MS
from infra.broker.errors import BrokerError
from infra.broker.group_messages import (
    Commit,
    CommitRequest,
    Committed,
    JoinResult,
    Leaving,
    SyncRequest,
    TopicPartition,
)
from tests.unit.infra.broker.group_kit import Broker, joining, stable_member, synced, turns

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)
NONE = ErrorCode.none


class WallClock:
    def __init__(self) -> None:
        self.ms = 1000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


@pytest.fixture
async def broker(tmp_path: Path, wall: WallClock) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "groups", now_ms=wall)
    yield broker
    await broker.close()


def committing(member: JoinResult | None = None, group: str = "g", **offsets: int) -> CommitRequest:
    commits = {TopicPartition(topic, 0): Commit(offset) for topic, offset in offsets.items()}
    if member is None:
        return CommitRequest(group_id=group, offsets=commits)
    return CommitRequest(group_id=group, offsets=commits, member_id=member.member_id, generation=member.generation)


async def two_members(broker: Broker, *, session: float = 10.0) -> tuple[JoinResult, JoinResult]:
    first, second = await asyncio.gather(
        broker.groups.join(joining("a", session=session)), broker.groups.join(joining("b", session=session))
    )
    shares = await asyncio.gather(synced(broker.groups, second), synced(broker.groups, first))
    assert [s.assignment.decode() for s in shares] == [second.member_id, first.member_id]
    return first, second


# Members


async def test_two_members_join_and_are_assigned_their_shares(broker: Broker) -> None:
    first, second = await two_members(broker)
    assert (first.generation, first.leader, second.leader) == (1, first.member_id, first.member_id)
    assert broker.groups.describe("g").state == "Stable"


async def test_a_killed_members_partitions_go_to_the_other_after_its_session(broker: Broker) -> None:
    first, second = await two_members(broker, session=0.3)
    error = NONE
    while error is NONE:
        await asyncio.sleep(0.02)
        error = broker.groups.heartbeat("g", first.member_id, first.generation)
    assert error is ErrorCode.rebalance_in_progress
    alone = await broker.groups.join(joining("a", first.member_id))
    assert [member.member_id for member in alone.members] == [first.member_id]
    assert broker.groups.heartbeat("g", second.member_id, 1) is ErrorCode.unknown_member_id


async def test_a_member_whose_connection_breaks_in_a_join_does_not_hold_up_the_others(broker: Broker) -> None:
    first, second = await two_members(broker, session=0.3)
    broken = asyncio.create_task(broker.groups.join(joining("a", first.member_id, session=0.3)))
    await turns()
    broken.cancel()
    joined = await asyncio.wait_for(broker.groups.join(joining("b", second.member_id, session=5.0)), 3)
    assert [member.member_id for member in joined.members] == [second.member_id]


async def test_when_a_leader_is_cancelled_after_its_sync_the_others_have_their_share(broker: Broker) -> None:
    first, second = await asyncio.gather(broker.groups.join(joining("a")), broker.groups.join(joining("b")))
    waiting = asyncio.create_task(synced(broker.groups, second))
    await turns()
    broker.disk.open.clear()
    leading = asyncio.create_task(synced(broker.groups, first))
    await turns()
    leading.cancel()
    broker.disk.open.set()
    assert (await asyncio.wait_for(waiting, 3)).assignment == second.member_id.encode()


async def test_a_broker_that_stood_still_evicts_nobody_at_once(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "groups")
    member = await broker.groups.join(joining(session=0.2))
    await synced(broker.groups, member)
    broker.groups.heartbeat("g", member.member_id, member.generation)
    await asyncio.sleep(0.1)  # the timer is set by now to the very end of the session
    time.sleep(0.6)  # the event loop, and with it the broker
    await turns()
    assert broker.groups.heartbeat("g", member.member_id, member.generation) is NONE
    await broker.close()


async def test_a_slow_disk_costs_no_member_its_session(broker: Broker) -> None:
    broker.disk.open.clear()
    slow = asyncio.create_task(broker.groups.join(joining(session=0.2)))
    await asyncio.sleep(0.6)
    assert not slow.done()
    broker.disk.open.set()
    member = await slow
    assert broker.groups.heartbeat("g", member.member_id, member.generation) is NONE


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (replace(joining(), group_id=""), ErrorCode.invalid_group_id),
        (joining(session=0.001), ErrorCode.invalid_session_timeout),
        (joining(session=1801.0), ErrorCode.invalid_session_timeout),
        (joining(member_id="a-1"), ErrorCode.unknown_member_id),
        (replace(joining(), protocols=()), ErrorCode.inconsistent_group_protocol),
    ],
)
async def test_a_refused_join_leaves_no_group_behind(broker: Broker, request_, error: ErrorCode) -> None:
    assert (await broker.groups.join(request_)).error is error
    assert broker.groups.list_groups() == []


async def test_of_a_group_that_is_not_there_nobody_is_a_member(broker: Broker) -> None:
    unknown = ErrorCode.unknown_member_id
    assert broker.groups.heartbeat("g", "a-1", 1) is unknown
    assert (await broker.groups.sync(SyncRequest(group_id="g", member_id="a", generation=1))).error is unknown
    assert [left.error for left in broker.groups.leave("g", [Leaving(member_id="a")])] == [unknown]
    assert broker.groups.heartbeat("", "a-1", 1) is ErrorCode.invalid_group_id


# Durability


async def test_after_a_crash_members_go_on_without_a_rebalance(broker: Broker) -> None:
    first, second = await two_members(broker)
    after = broker.crashed()
    for member in (first, second):
        assert after.groups.heartbeat("g", member.member_id, 1) is NONE
        assert set((await after.groups.commit(committing(member, t=5))).values()) == {NONE}
    again = await after.groups.sync(SyncRequest(group_id="g", member_id=second.member_id, generation=1))
    assert again.assignment == second.member_id.encode()
    await after.close()


async def test_a_member_that_is_gone_after_a_crash_times_out_though_nobody_asks(broker: Broker) -> None:
    joined = await broker.groups.join(joining(session=0.1))
    await synced(broker.groups, joined)
    after = broker.crashed()
    assert after.groups.describe("g").state == "Stable"
    async with asyncio.timeout(10):
        while after.groups.describe("g").state != "Empty":
            await asyncio.sleep(0.02)
    await after.close()


async def test_a_static_member_is_known_after_a_crash(broker: Broker) -> None:
    await stable_member(broker.groups, instance_id="worker-0")
    after = broker.crashed()
    back = await after.groups.join(joining(instance_id="worker-0"))
    assert (back.error, back.generation, back.skip_assignment) == (NONE, 1, True)
    await after.close()


async def test_no_member_is_told_of_a_generation_that_is_not_on_the_disk(broker: Broker) -> None:
    broker.disk.open.clear()
    joining_task = asyncio.create_task(broker.groups.join(joining()))
    await asyncio.sleep(0.05)
    assert not joining_task.done()
    broker.disk.open.set()
    member = await joining_task
    after = broker.crashed()
    assert after.groups.heartbeat("g", member.member_id, 1) is ErrorCode.rebalance_in_progress
    await after.close()


async def test_with_a_full_disk_members_are_told_to_try_again_and_can_when_there_is_room(broker: Broker) -> None:
    member = await broker.groups.join(joining())
    broker.disk.is_full = True
    assert (await synced(broker.groups, member)).error is ErrorCode.coordinator_not_available
    assert broker.groups.heartbeat("g", member.member_id, 1) is NONE
    assert (await broker.groups.commit(committing(member, t=5)))[T0] is ErrorCode.coordinator_not_available
    broker.disk.is_full = False
    assert (await synced(broker.groups, member)).assignment == member.member_id.encode()
    after = broker.crashed()
    assert after.groups.describe("g").state == "Stable"
    await after.close()


async def test_a_failed_sync_of_the_disk_is_as_a_full_one(broker: Broker) -> None:
    broker.disk.loses_writes = True
    refused = await broker.groups.join(joining())
    assert refused.error is ErrorCode.coordinator_not_available
    broker.disk.loses_writes = False
    again = await broker.groups.join(joining(member_id=refused.member_id))
    assert (again.error, again.generation) == (NONE, 1)


# Offsets


async def test_offsets_are_committed_with_their_metadata(broker: Broker) -> None:
    offsets = {T0: Commit(5, 3, "meta!"), U0: Commit(0, -1, "x" * 4097)}
    results = await broker.groups.commit(CommitRequest(group_id="g", offsets=offsets))
    assert results == {T0: NONE, U0: ErrorCode.offset_metadata_too_large}
    assert broker.groups.fetch_offsets("g") == {T0: Committed(5, 3, "meta!", 1000)}
    assert broker.groups.fetch_offsets("g", [U0]) == {}
    assert broker.groups.fetch_offsets("zed") == {}


async def test_an_acknowledged_commit_survives_a_crash(broker: Broker) -> None:
    member = await stable_member(broker.groups)
    for offset in range(20):
        assert (await broker.groups.commit(committing(member, t=offset)))[T0] is NONE
        if offset % 7 == 0:
            after = broker.crashed()
            assert after.groups.fetch_offsets("g")[T0].offset == offset
            await after.close()
            shutil.rmtree(after.directory)


async def test_who_commits_has_to_be_a_member_or_the_group_empty(broker: Broker) -> None:
    stranger = JoinResult(member_id="zed", generation=1)
    assert (await broker.groups.commit(committing(stranger, t=1)))[T0] is ErrorCode.illegal_generation
    await stable_member(broker.groups)
    assert (await broker.groups.commit(committing(stranger, t=1)))[T0] is ErrorCode.unknown_member_id
    assert (await broker.groups.commit(committing(t=1)))[T0] is ErrorCode.unknown_member_id
    assert (await broker.groups.commit(committing(group="simple", t=1)))[T0] is NONE
    assert broker.groups.fetch_offsets("g") == {}


async def test_offsets_of_topics_that_are_read_can_not_be_deleted(broker: Broker) -> None:
    member = await stable_member(broker.groups)  # subscribed to t
    await broker.groups.commit(committing(member, t=1, u=2))
    results = await broker.groups.delete_offsets("g", [T0, U0])
    assert results == {T0: ErrorCode.group_subscribed_to_topic, U0: NONE}
    assert list(broker.groups.fetch_offsets("g")) == [T0]
    with pytest.raises(BrokerError) as refused:
        await broker.groups.delete_offsets("zed", [T0])
    assert refused.value.code is ErrorCode.group_id_not_found


async def test_a_deleted_topics_offsets_are_forgotten(broker: Broker) -> None:
    await broker.groups.commit(committing(t=1, u=2))
    assert broker.groups.topics_with_offsets() == {"t", "u"}
    assert await broker.groups.topic_deleted("t")
    assert broker.groups.topics_with_offsets() == {"u"}


# Administration


async def test_groups_are_listed_also_after_a_crash(broker: Broker) -> None:
    await stable_member(broker.groups)
    await broker.groups.commit(committing(group="simple", t=1))
    want = [("g", "consumer", "Stable"), ("simple", "", "Empty")]
    assert broker.groups.list_groups() == want
    after = broker.crashed()
    assert after.groups.list_groups() == want
    await after.close()


async def test_a_group_that_is_not_there_is_described_as_dead(broker: Broker) -> None:
    described = broker.groups.describe("zed")
    assert (described.state, described.error) == ("Dead", ErrorCode.group_id_not_found)


async def test_only_empty_groups_are_deleted_and_their_offsets_with_them(broker: Broker) -> None:
    member = await stable_member(broker.groups)
    await broker.groups.commit(committing(member, t=1))
    assert await broker.groups.delete("g") is ErrorCode.non_empty_group
    broker.groups.leave("g", [Leaving(member_id=member.member_id)])
    assert await broker.groups.delete("g") is NONE
    assert await broker.groups.delete("g") is ErrorCode.group_id_not_found
    assert broker.groups.fetch_offsets("g") == {}
    after = broker.crashed()
    assert after.groups.list_groups() == []
    await after.close()


async def test_offsets_are_kept_for_seven_days_after_the_group_is_empty(broker: Broker, wall: WallClock) -> None:
    member = await stable_member(broker.groups)
    await broker.groups.commit(committing(member, t=1))
    wall.ms += 100 * OFFSETS_RETENTION_MS
    await broker.groups.expire()
    broker.groups.leave("g", [Leaving(member_id=member.member_id)])
    while broker.store.is_being_written("g"):
        await asyncio.sleep(0.01)
    wall.ms += OFFSETS_RETENTION_MS - 1
    await broker.groups.expire()
    assert broker.groups.fetch_offsets("g")[T0].offset == 1
    wall.ms += 1
    await broker.groups.expire()
    assert broker.groups.fetch_offsets("g") == {}
    assert broker.groups.list_groups() == []


async def test_a_simple_consumers_offsets_expire_one_by_one(broker: Broker, wall: WallClock) -> None:
    await broker.groups.commit(committing(t=1))
    wall.ms += OFFSETS_RETENTION_MS
    await broker.groups.commit(committing(u=2))
    await broker.groups.expire()
    assert list(broker.groups.fetch_offsets("g")) == [U0]


async def test_a_commit_on_its_way_is_not_expired(broker: Broker, wall: WallClock) -> None:
    await broker.groups.commit(committing(t=1))
    wall.ms += OFFSETS_RETENTION_MS
    broker.disk.open.clear()
    commit = asyncio.create_task(broker.groups.commit(committing(t=2)))
    await turns()
    await broker.groups.expire()
    broker.disk.open.set()
    assert (await commit)[T0] is NONE
    assert broker.groups.fetch_offsets("g")[T0].offset == 2


async def test_many_commits_at_once_share_few_syncs(broker: Broker) -> None:
    syncs = 0
    plain = broker.disk.sync

    def counted(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        plain(fd)

    broker.disk.sync = counted  # type: ignore[method-assign]
    results = await asyncio.gather(*(broker.groups.commit(committing(group=f"g{n}", t=n)) for n in range(200)))
    assert all(result == {T0: NONE} for result in results)
    assert syncs <= 3
