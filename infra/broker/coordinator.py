"""All groups of the broker: finds them, keeps their time, parks their requests, and writes down what must not be lost.

    request -> Group (decides) -> snapshot if it changed -> on disk -> answers
                  ^ timers

An answer about a group leaves only when the group's last snapshot is on disk, so that a restarted broker knows every
generation and assignment that a member was told, and members go on as if nothing had happened. Where it can't be
written, members hear "coordinator not available" and try again; the group is as it is, and is written then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from kio.schema.errors import ErrorCode

from infra.broker.errors import BrokerError
from infra.broker.group_members import CONSUMER, NEVER
from infra.broker.group_messages import (
    CommitRequest,
    Committed,
    Description,
    JoinRequest,
    JoinResult,
    Leaving,
    Left,
    ListedGroup,
    SyncRequest,
    SyncResult,
    TopicPartition,
)
from infra.broker.groups import Answer, Group, GroupOptions
from infra.broker.ledger import Entry, GroupSet, OffsetSet, TopicGone
from infra.broker.offsets import OffsetStore, wall_ms

_LOG = logging.getLogger(__name__)
MAX_METADATA_CHARS = 4096
OFFSETS_RETENTION_MS = 7 * 24 * 3600 * 1000
STALL_SECONDS = 0.1
"""A timer later than this says that the broker itself stood still; members get as much more time, and the grace."""
GRACE_SECONDS = 1.0
"""For heartbeats that wait in the sockets, and answers that have only just gone out."""

Result = TypeVar("Result", JoinResult, SyncResult)


@dataclass(frozen=True, slots=True)
class _Timer:
    at: float
    handle: asyncio.TimerHandle


class Coordinator:
    """To be made in the event loop that it belongs to; `clock` is monotonic seconds, `now_ms` the time of day."""

    def __init__(
        self,
        store: OffsetStore,
        options: GroupOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._store, self._options = store, options or GroupOptions()
        self._clock, self._now_ms = clock, now_ms
        self._loop = asyncio.get_running_loop()
        self._groups: dict[str, Group] = {}
        self._timers: dict[str, _Timer] = {}
        self._saves: dict[str, asyncio.Task[bool]] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._closed = False
        for group_id, (stored, _) in store.ledger.groups.items():
            self._groups[group_id] = group = Group.restore(group_id, stored, self._options, clock())
            self._arm(group)

    # Members

    async def join(self, request: JoinRequest) -> JoinResult:
        """JoinGroup. Waits for the others; a caller that is cancelled leaves the member to its session time-out."""
        error = self._join_error(request)
        group = self._find(request.group_id)
        if error is ErrorCode.none and group is None and request.member_id:
            error = ErrorCode.unknown_member_id
        if error is not ErrorCode.none:
            return JoinResult(error=error, member_id=request.member_id)
        group = group or self._create(request.group_id)
        parked: asyncio.Future[JoinResult] = self._loop.create_future()
        self._after(group, group.join(request, parked, self._clock()))
        self._forget_if_unused(group)
        return await self._answer_of(parked, group)

    async def sync(self, request: SyncRequest) -> SyncResult:
        """SyncGroup. Waits for the leader's assignment."""
        group = self._find(request.group_id)
        if group is None:
            return SyncResult(error=self._not_found(request.group_id))
        parked: asyncio.Future[SyncResult] = self._loop.create_future()
        self._after(group, group.sync(request, parked, self._clock()))
        return await self._answer_of(parked, group)

    def heartbeat(self, group_id: str, member_id: str, generation: int, instance_id: str | None = None) -> ErrorCode:
        group = self._find(group_id)
        if group is None:
            return self._not_found(group_id)
        return group.heartbeat(member_id, instance_id, generation, self._clock())

    def leave(self, group_id: str, leavings: Sequence[Leaving]) -> list[Left]:
        """LeaveGroup, of one member (to v2) or several."""
        group = self._find(group_id)
        if group is None:
            error = self._not_found(group_id)
            return [Left(member_id=one.member_id, instance_id=one.instance_id, error=error) for one in leavings]
        left, answers = group.leave(leavings, self._clock())
        self._after(group, answers)
        return left

    # Offsets

    async def commit(self, request: CommitRequest) -> dict[TopicPartition, ErrorCode]:
        """OffsetCommit. What is answered with `none` is on disk. Whether the topics exist is for the caller to know."""
        error = self._commit_error(request)
        if error is not ErrorCode.none:
            return dict.fromkeys(request.offsets, error)
        at_ms, results = self._now_ms(), dict[TopicPartition, ErrorCode]()
        entries: list[Entry] = []
        for partition, commit in request.offsets.items():
            if len(commit.metadata) > MAX_METADATA_CHARS:
                results[partition] = ErrorCode.offset_metadata_too_large
            else:
                committed = Committed(commit.offset, commit.leader_epoch, commit.metadata, at_ms)
                entries.append(OffsetSet(request.group_id, partition, committed))
        outcome = await self._write(entries)
        return {partition: results.get(partition, outcome) for partition in request.offsets}

    def fetch_offsets(
        self, group_id: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, Committed]:
        """OffsetFetch: those of the partitions (None: of all) that have one."""
        known = self._store.ledger.offsets.get(group_id, {})
        return dict(known) if partitions is None else {p: known[p] for p in partitions if p in known}

    async def delete_offsets(
        self, group_id: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, ErrorCode]:
        """OffsetDelete; refused as a whole by BrokerError, and for what live members read one by one."""
        group = self._find(group_id)
        if group is None:
            raise BrokerError(ErrorCode.group_id_not_found, f"there is no group {group_id}")
        if not group.is_empty and group.protocol_type != CONSUMER:
            raise BrokerError(ErrorCode.non_empty_group, f"group {group_id} has members that are no consumers")
        wanted = list(partitions)
        free = [partition for partition in wanted if not group.reads(partition.topic)]
        outcome = await self._write([OffsetSet(group_id, partition, None) for partition in free])
        return {p: outcome if p in free else ErrorCode.group_subscribed_to_topic for p in wanted}

    async def topic_deleted(self, topic: str) -> bool:
        """Forgets what all groups have committed for a topic, lest its successor inherit it; False if that failed."""
        return await self._write([TopicGone(topic)]) is ErrorCode.none

    def topics_with_offsets(self) -> set[str]:
        """So that at the start the traces of topics whose deletion was interrupted can be found."""
        return {partition.topic for offsets in self._store.ledger.offsets.values() for partition in offsets}

    # Administration

    def list_groups(self) -> list[ListedGroup]:
        """ListGroups, unfiltered."""
        ids = {*self._groups, *self._store.ledger.offsets}
        groups = (self._find(group_id) for group_id in sorted(ids))
        return [group.listed() for group in groups if group is not None]

    def describe(self, group_id: str) -> Description:
        """DescribeGroups. An unknown group is dead, and `group_id_not_found` from v6 on."""
        group = self._find(group_id)
        if group is None:
            return Description(group_id=group_id, error=ErrorCode.group_id_not_found)
        return group.describe()

    async def delete(self, group_id: str) -> ErrorCode:
        """DeleteGroups, for one: its offsets go with it."""
        group = self._find(group_id)
        if group is None:
            return ErrorCode.group_id_not_found
        if not group.is_empty:
            return ErrorCode.non_empty_group
        outcome = await self._write([GroupSet(group_id, None, self._now_ms())])
        if outcome is ErrorCode.none and group.is_empty:
            self._forget(group)
        return outcome

    async def expire(self) -> None:
        """To be called now and then: drops offsets of groups long empty, and empty groups without offsets."""
        for group in list(self._groups.values()):
            if group.is_empty and not group.changed and not self._store.is_being_written(group.id):
                await self._expire(group)

    async def close(self) -> None:
        """Stops the timers and waits for answers on their way. Parked requests end with their connections."""
        self._closed = True
        for timer in self._timers.values():
            timer.handle.cancel()
        self._timers.clear()
        while self._deliveries:
            await asyncio.gather(*self._deliveries)

    # Rules

    def _join_error(self, request: JoinRequest) -> ErrorCode:
        if not request.group_id:
            return ErrorCode.invalid_group_id
        bounds = self._options
        if not bounds.min_session_timeout <= request.session_timeout <= bounds.max_session_timeout:
            return ErrorCode.invalid_session_timeout
        return ErrorCode.none

    def _commit_error(self, request: CommitRequest) -> ErrorCode:
        group = self._find(request.group_id)
        if group is None and request.generation >= 0:
            return ErrorCode.illegal_generation
        group = group or self._create(request.group_id)
        return group.may_commit(request.member_id, request.instance_id, request.generation, self._clock())

    def _not_found(self, group_id: str) -> ErrorCode:
        return ErrorCode.unknown_member_id if group_id else ErrorCode.invalid_group_id

    async def _expire(self, group: Group) -> None:
        limit = self._now_ms() - OFFSETS_RETENTION_MS
        snapshot = self._store.ledger.groups.get(group.id)
        emptied_ms = 0 if snapshot is None else snapshot.at_ms
        offsets = self.fetch_offsets(group.id)
        stale = [p for p, committed in offsets.items() if max(committed.at_ms, emptied_ms) <= limit]
        if len(stale) < len(offsets):
            await self._write([OffsetSet(group.id, partition, None) for partition in stale])
        elif snapshot is None and not offsets:
            self._forget_if_unused(group)
        else:
            _LOG.info("group %s is empty and has no offsets left: gone", group.id)
            await self.delete(group.id)

    # Groups

    def _find(self, group_id: str) -> Group | None:
        """A group, which may as yet consist of offsets only."""
        group = self._groups.get(group_id)
        if group is None and group_id in self._store.ledger.offsets:
            group = self._create(group_id)
        return group

    def _create(self, group_id: str) -> Group:
        self._groups[group_id] = group = Group(group_id, self._options)
        return group

    def _forget(self, group: Group) -> None:
        group.die()
        del self._groups[group.id]
        timer = self._timers.pop(group.id, None)
        if timer is not None:
            timer.handle.cancel()

    def _forget_if_unused(self, group: Group) -> None:
        if group.is_unused and group.id not in self._store.ledger.offsets:
            self._forget(group)

    # Time

    def _arm(self, group: Group) -> None:
        """Heartbeats move deadlines only further away: a timer that fires too early finds nothing, and is set again."""
        at, timer = group.next_deadline(), self._timers.get(group.id)
        if self._closed or at == NEVER or (timer is not None and timer.at <= at):
            return
        if timer is not None:
            timer.handle.cancel()
        handle = self._loop.call_later(max(0.0, at - self._clock()), self._fire, group, at)
        self._timers[group.id] = _Timer(at, handle)

    def _fire(self, group: Group, at: float, *, waited_for_disk: bool = False) -> None:
        if self._closed or self._groups.get(group.id) is not group:
            return
        self._timers.pop(group.id, None)
        save = self._saves.get(group.id)
        if save is not None:  # members may wait for the disk: that is the broker standing still, too
            save.add_done_callback(lambda _: self._fire(group, at, waited_for_disk=True))
            return
        now = self._clock()
        if waited_for_disk or now - at > STALL_SECONDS:
            group.postpone(now - at + GRACE_SECONDS)
        members = set(group.members)
        answers = group.tick(now)
        for member_id in members - set(group.members):
            _LOG.info("group %s: %s gave no sign of life in time and is out", group.id, member_id)
        self._after(group, answers)
        self._forget_if_unused(group)

    # Answers

    async def _answer_of(self, parked: "asyncio.Future[Result]", group: Group) -> Result:
        try:
            return await parked
        except asyncio.CancelledError:
            group.abandon(parked, self._clock())
            self._arm(group)
            raise

    def _after(self, group: Group, answers: list[Answer]) -> None:
        """What every step of a group is followed by."""
        if group.changed:
            self._save(group)
        save = self._saves.get(group.id)
        if save is None:
            _deliver(answers)
        elif answers:
            delivery = self._loop.create_task(self._deliver_after(save, answers))
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)
        self._arm(group)

    def _save(self, group: Group) -> None:
        group.changed = False
        state, size = group.state.value, len(group.members)
        _LOG.info("group %s: %s, generation %d, %d members", group.id, state, group.generation, size)
        save = self._store.write(GroupSet(group.id, group.snapshot(), self._now_ms()))
        self._saves[group.id] = save
        save.add_done_callback(lambda done: self._saved(group, done))

    def _saved(self, group: Group, save: "asyncio.Task[bool]") -> None:
        if self._saves.get(group.id) is save:
            del self._saves[group.id]
            group.changed = group.changed or save.cancelled() or not save.result()

    async def _deliver_after(self, save: "asyncio.Task[bool]", answers: list[Answer]) -> None:
        saved = await asyncio.shield(save)
        _deliver(answers if saved else [Answer(waiter, _unavailable(result)) for waiter, result in answers])

    async def _write(self, entries: list[Entry]) -> ErrorCode:
        if not entries or await asyncio.shield(self._store.write(*entries)):
            return ErrorCode.none
        return ErrorCode.coordinator_not_available


def _deliver(answers: Iterable[Answer]) -> None:
    for waiter, result in answers:
        parked = cast("asyncio.Future[JoinResult | SyncResult]", waiter)
        if not parked.done():
            parked.set_result(result)


def _unavailable(result: JoinResult | SyncResult) -> JoinResult | SyncResult:
    """In place of an answer that tells of something not on disk."""
    if result.error is not ErrorCode.none:
        return result
    if isinstance(result, JoinResult):
        return JoinResult(error=ErrorCode.coordinator_not_available, member_id=result.member_id)
    return SyncResult(error=ErrorCode.coordinator_not_available)
