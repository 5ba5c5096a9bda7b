"""One group, as a state machine without clock, disk or network: Kafka's classic protocol for consumer groups.

    EMPTY -> PREPARING_REBALANCE (members join) -> COMPLETING_REBALANCE (the leader assigns) -> STABLE
                     ^______________________________________|______________________________|

Joining: the first member's join opens a short initial delay, so that a fleet that starts together needs one rebalance.
Later joins, leaves, deaths and changed subscriptions start a rebalance at once: heartbeats then answer "rebalance in
progress", and each member joins again. A join waits until all have come, or the longest rebalance time-out is over; who
has not come is out. The leader gets everyone's metadata, and its sync brings the assignments: bytes that nobody here
reads, so that eager and cooperative assignors look alike (a cooperative one just rebalances twice).

Static members (KIP-345) have a name of their own. One that comes back under a new id takes over its old assignment
without a rebalance, if it wants the same topics; who still uses the old id is fenced. They too die by session time-out.

Every method takes the time and returns what to answer to whom: a `waiter` is any object that stands for a request.
`changed` says that the snapshot has to be on disk before those answers may go out. Not kept, on purpose: KIP-848.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypedDict

from kio.schema.errors import ErrorCode

from infra.broker.group_members import CONSUMER, NEVER, SHORTEST_REBALANCE, Member, StoredMember, subscribed_topics
from infra.broker.group_messages import (
    Description,
    JoinRequest,
    JoinResult,
    Leaving,
    Left,
    ListedGroup,
    SyncRequest,
    SyncResult,
)


class GroupState(Enum):
    """The value is the name on the wire."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


_NEXT = {
    GroupState.EMPTY: {GroupState.PREPARING_REBALANCE, GroupState.DEAD},
    GroupState.PREPARING_REBALANCE: {GroupState.COMPLETING_REBALANCE, GroupState.EMPTY},
    GroupState.COMPLETING_REBALANCE: {GroupState.STABLE, GroupState.PREPARING_REBALANCE},
    GroupState.STABLE: {GroupState.PREPARING_REBALANCE},
    GroupState.DEAD: set[GroupState](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """Bounds for groups; seconds."""

    initial_rebalance_delay: float = 0.05
    max_size: int = 1000
    min_session_timeout: float = 1.0
    max_session_timeout: float = 1800.0
    new_member_timeout: float = 300.0
    """How long a first join may be parked: its client may be gone without a trace, and does not know its id yet."""


class StoredGroup(TypedDict):
    """A group's snapshot, fit for JSON."""

    state: str
    generation: int
    protocol_type: str | None
    protocol: str | None
    leader: str | None
    members: list[StoredMember]


class Answer(NamedTuple):
    """What to tell the request that `waiter` stands for."""

    waiter: object
    result: JoinResult | SyncResult


class Group:
    """One group."""

    def __init__(self, id: str, options: GroupOptions, new_id: Callable[[], object] = uuid.uuid4) -> None:
        self.id = id
        self.state = GroupState.EMPTY
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self.changed = False
        self._options, self._new_id = options, new_id
        self._static: dict[str, str] = {}
        self._pending: dict[str, float] = {}
        """Ids given out that have not joined yet, and until when they may."""
        self._unsynced: set[str] = set()
        self._join_deadline = self._sync_deadline = NEVER
        self._is_initial = self._grew = False
        self._extension = 0.0
        self._answers: list[Answer] = []

    # Requests

    def join(self, request: JoinRequest, waiter: object, now: float) -> list[Answer]:
        """JoinGroup: answered at once, or parked until the rebalance has its members."""
        if not self._has_room_for(request.member_id):
            self._refuse_join(waiter, ErrorCode.group_max_size_reached)
            self._remove([request.member_id], now)
        elif not self._can_follow(request):
            self._refuse_join(waiter, ErrorCode.inconsistent_group_protocol, request.member_id)
        elif request.member_id:
            self._join_known(request, waiter, now)
        else:
            self._join_new(request, waiter, now)
        return self._drain()

    def sync(self, request: SyncRequest, waiter: object, now: float) -> list[Answer]:
        """SyncGroup: the leader's ends the rebalance; the others' wait for it."""
        error = self._sync_error(request)
        if error is not ErrorCode.none:
            return [Answer(waiter, SyncResult(error=error))]
        member = self.members[request.member_id]
        self._synced(member.id)
        member.heard(now)
        self._answer_sync(member, ErrorCode.rebalance_in_progress)
        member.sync_waiter = waiter
        if self.state is GroupState.STABLE:
            self._answer_sync(member)
        elif member.id == self.leader:
            self._assign(request, now)
        return self._drain()

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int, now: float) -> ErrorCode:
        error = self._member_error(member_id, instance_id)
        if error is not ErrorCode.none:
            return error
        if generation != self.generation:
            return ErrorCode.illegal_generation
        self.members[member_id].heard(now)
        preparing = self.state is GroupState.PREPARING_REBALANCE
        return ErrorCode.rebalance_in_progress if preparing else ErrorCode.none

    def leave(self, leavings: Iterable[Leaving], now: float) -> tuple[list[Left], list[Answer]]:
        """LeaveGroup, for one or several; those who stay rebalance at once."""
        going: list[str] = []
        left: list[Left] = []
        for one in leavings:
            member_id, error = self._leaver(one, going)
            going += [member_id] if error is ErrorCode.none else []
            left.append(Left(member_id=one.member_id, instance_id=one.instance_id, error=error))
        self._remove(going, now)
        return left, self._drain()

    def may_commit(self, member_id: str, instance_id: str | None, generation: int, now: float) -> ErrorCode:
        """Whether this member, or someone without membership, may commit offsets now. A commit is a sign of life."""
        if generation < 0 and self.state is GroupState.EMPTY:
            return ErrorCode.none
        if generation < 0 and not member_id and instance_id is None:
            return ErrorCode.unknown_member_id
        error = self._member_error(member_id, instance_id)
        if error is not ErrorCode.none:
            return error
        if generation != self.generation:
            return ErrorCode.illegal_generation
        if self.state is GroupState.COMPLETING_REBALANCE:
            return ErrorCode.rebalance_in_progress
        self.members[member_id].heard(now)
        return ErrorCode.none

    def abandon(self, waiter: object, now: float) -> None:
        """The client of a parked request is gone: unless it comes back, its session ends like any other."""
        for member in self.members.values():
            if member.join_waiter is waiter:
                member.join_waiter = None
                member.heard(now)
            elif member.sync_waiter is waiter:
                member.sync_waiter = None
                member.heard(now)
                self._unsynced.add(member.id)

    # Time

    def next_deadline(self) -> float:
        """When `tick` has something to do, unless something is heard before."""
        sessions = (member.deadline for member in self.members.values() if not member.waits)
        return min(self._join_deadline, self._sync_deadline, *self._pending.values(), *sessions)

    def tick(self, now: float) -> list[Answer]:
        """Does what is due: ends sessions, ends the wait for joins, removes those who never synced."""
        late = [name for name, until in self._pending.items() if until <= now]
        late += [member.id for member in self.members.values() if member.deadline <= now and not member.waits]
        self._remove(late, now)
        if self._join_deadline <= now:
            self._join_time_is_over(now)
        if self._sync_deadline <= now:
            self._remove(list(self._unsynced), now)
        return self._drain()

    def postpone(self, seconds: float) -> None:
        """The broker itself stood still for so long: nobody shall be punished for it."""
        self._join_deadline += seconds
        self._sync_deadline += seconds
        self._pending = {name: until + seconds for name, until in self._pending.items()}
        for member in self.members.values():
            member.deadline += seconds

    # What others may know

    @property
    def is_empty(self) -> bool:
        return self.state is GroupState.EMPTY

    @property
    def is_unused(self) -> bool:
        """Whether nobody ever was in it, so that only offsets would give it a reason to be."""
        return self.is_empty and self.generation == 0 and not self._pending

    def listed(self) -> ListedGroup:
        return ListedGroup(self.id, self.protocol_type or "", self.state.value)

    def describe(self) -> Description:
        known = self.protocol if self.state is GroupState.STABLE else None
        return Description(
            group_id=self.id,
            state=self.state.value,
            protocol_type=self.protocol_type or "",
            protocol=known or "",
            members=tuple(member.described(known) for member in self.members.values()),
        )

    def reads(self, topic: str) -> bool:
        """Whether live consumers are subscribed to it; where that can't be told, they are."""
        if self.protocol_type != CONSUMER or not self.members:
            return False
        subscriptions = [subscribed_topics(member.metadata(self.protocol)) for member in self.members.values()]
        return any(topics is None or topic in topics for topics in subscriptions)

    def die(self) -> None:
        """It was deleted."""
        self._move(GroupState.DEAD)

    def snapshot(self) -> StoredGroup:
        return {
            "state": self.state.value,
            "generation": self.generation,
            "protocol_type": self.protocol_type,
            "protocol": self.protocol,
            "leader": self.leader,
            "members": [member.stored() for member in self.members.values()],
        }

    @classmethod
    def restore(cls, id: str, stored: StoredGroup, options: GroupOptions, now: float) -> "Group":
        """The group after a restart. Sessions start anew; a rebalance that was under way does, too."""
        group = cls(id, options)
        group.state, group.generation = GroupState(stored["state"]), stored["generation"]
        group.protocol_type, group.protocol = stored["protocol_type"], stored["protocol"]
        group.leader = stored["leader"]
        group.members = {one["id"]: Member.from_stored(one) for one in stored["members"]}
        group._static = {m.instance_id: m.id for m in group.members.values() if m.instance_id is not None}
        for member in group.members.values():
            member.heard(now)
        if group.state in (GroupState.COMPLETING_REBALANCE, GroupState.PREPARING_REBALANCE):
            group.state = GroupState.PREPARING_REBALANCE
            group._join_deadline = now + group._rebalance_timeout
        return group

    # Joining

    def _join_new(self, request: JoinRequest, waiter: object, now: float) -> None:
        member_id = f"{request.instance_id or request.client_id}-{self._new_id()}"
        if request.instance_id is not None and request.instance_id in self._static:
            self._replace(self.members[self._static[request.instance_id]], member_id, request, waiter, now)
        elif request.instance_id is not None or not request.member_id_required:
            self._add(member_id, request, waiter, now)
        elif len(self._pending) >= self._options.max_size:
            self._refuse_join(waiter, ErrorCode.group_max_size_reached)
        else:
            self._pending[member_id] = now + request.session_timeout
            self._refuse_join(waiter, ErrorCode.member_id_required, member_id)

    def _join_known(self, request: JoinRequest, waiter: object, now: float) -> None:
        if request.member_id in self._pending and request.instance_id is None:
            self._add(request.member_id, request, waiter, now)
            return
        error = self._member_error(request.member_id, request.instance_id)
        if error is not ErrorCode.none:
            self._refuse_join(waiter, error, request.member_id)
            return
        member = self.members[request.member_id]
        if self._changes_something(member, request):
            member.update(request)
            self._park(member, waiter)
            self._rebalance(now)
        else:  # it missed the answer to its join
            member.heard(now)
            self._answers.append(Answer(waiter, self._join_result(member)))

    def _changes_something(self, member: Member, request: JoinRequest) -> bool:
        """Whether a member's join needs a rebalance. A leader's always does: it may have seen new partitions."""
        if self.state is GroupState.PREPARING_REBALANCE or member.protocols != request.protocols:
            return True
        return self.state is GroupState.STABLE and member.id == self.leader

    def _add(self, member_id: str, request: JoinRequest, waiter: object, now: float) -> None:
        member = Member.from_request(member_id, request)
        self._pending.pop(member_id, None)
        if not self.members:
            self.protocol_type = request.protocol_type
        self.members[member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member_id
        self.leader = self.leader or member_id
        member.is_new, member.deadline = True, now + self._options.new_member_timeout
        self._park(member, waiter)
        self._grew = True
        self._rebalance(now)

    def _replace(self, old: Member, new_id: str, request: JoinRequest, waiter: object, now: float) -> None:
        """A static member is back under a new id; the old one is fenced."""
        led, topics = self.leader == old.id, self._topics_of(old)
        self._answer_join(old, JoinResult(error=ErrorCode.fenced_instance_id, member_id=old.id))
        self._answer_sync(old, ErrorCode.fenced_instance_id)
        member = Member.from_request(new_id, request)
        member.assignment = old.assignment
        self.members = {m.id: m for m in (member if m is old else m for m in self.members.values())}
        self._static[str(member.instance_id)] = new_id
        self._unsynced.discard(old.id)
        self.leader = new_id if led else self.leader
        member.heard(now)
        self._park(member, waiter)
        if self.state is not GroupState.STABLE:
            self._rebalance(now)
        elif self._vote() != self.protocol or self._topics_of(member) != topics:
            self._prepare(now)
        else:
            self._take_over(member, old.id, skip=request.can_skip_assignment)

    def _take_over(self, member: Member, old_id: str, *, skip: bool) -> None:
        """The assignment stands. A leader that can't be told so is told that its old self leads, to assign nothing."""
        self.changed = True
        result = self._join_result(member)
        if member.id == self.leader and not skip:
            result = JoinResult(
                member_id=member.id,
                generation=self.generation,
                protocol_type=self.protocol_type,
                protocol=self.protocol,
                leader=old_id,
            )
        elif member.id == self.leader:
            result = self._join_result(member, skip_assignment=True)
        self._answer_join(member, result)

    # Rebalancing

    def _rebalance(self, now: float) -> None:
        if self.state is not GroupState.PREPARING_REBALANCE:
            self._prepare(now)
        elif not self._is_initial and self._all_have_joined():
            self._complete_join(now)

    def _prepare(self, now: float) -> None:
        if self.state is GroupState.COMPLETING_REBALANCE:
            for member in self.members.values():
                member.assignment = b""
                if self._answer_sync(member, ErrorCode.rebalance_in_progress):
                    member.heard(now)
        self._unsynced.clear()
        self._sync_deadline = NEVER
        self._is_initial, self._grew = self.is_empty, False
        self._move(GroupState.PREPARING_REBALANCE)
        if self._is_initial:
            delay = self._options.initial_rebalance_delay
            self._join_deadline, self._extension = now + delay, max(self._rebalance_timeout - delay, 0.0)
        elif self._all_have_joined():
            self._complete_join(now)
        else:
            self._join_deadline = now + self._rebalance_timeout

    def _join_time_is_over(self, now: float) -> None:
        if self._is_initial and self._grew and self._extension > 0:
            delay = min(self._options.initial_rebalance_delay, self._extension)
            self._grew, self._extension, self._join_deadline = False, self._extension - delay, now + delay
        else:
            self._complete_join(now)

    def _complete_join(self, now: float) -> None:
        self._is_initial, self._join_deadline = False, NEVER
        absent = [member for member in self.members.values() if member.join_waiter is None]
        for member in absent:
            if member.instance_id is None:
                self._drop(member.id)
        if self.members and not self._elect():  # static members only, and all away: let them time out
            self._join_deadline = now + self._rebalance_timeout
            return
        self.generation += 1
        self.changed = True
        self.protocol = self._vote() if self.members else None
        self._move(GroupState.COMPLETING_REBALANCE if self.members else GroupState.EMPTY)
        if self.members:
            self._unsynced, self._sync_deadline = set(self.members), now + self._rebalance_timeout
        for member in self.members.values():
            member.is_new = False
            member.heard(now)
            self._answer_join(member, self._join_result(member))

    def _elect(self) -> bool:
        """Keeps the leader if it has joined, else takes the first who has; whether there is one."""
        present = [member.id for member in self.members.values() if member.join_waiter is not None]
        if present and self.leader not in present:
            self.leader = present[0]
        return bool(present)

    def _vote(self) -> str | None:
        """The protocol that all can follow and most prefer."""
        common = set[str].intersection(*(set(member.names()) for member in self.members.values()))
        votes = Counter(next((n for n in m.names() if n in common), None) for m in self.members.values())
        return votes.most_common(1)[0][0]

    def _assign(self, request: SyncRequest, now: float) -> None:
        for member in self.members.values():
            member.assignment = request.assignments.get(member.id, b"")
        self._move(GroupState.STABLE)
        self.changed = True
        for member in self.members.values():
            if self._answer_sync(member):
                member.heard(now)

    def _synced(self, member_id: str) -> None:
        self._unsynced.discard(member_id)
        if not self._unsynced:
            self._sync_deadline = NEVER

    # Going

    def _leaver(self, leaving: Leaving, going: Sequence[str]) -> tuple[str, ErrorCode]:
        """Who is meant, and whether it may go."""
        member_id = leaving.member_id or self._static.get(leaving.instance_id or "", "")
        if not member_id or member_id in going:
            return member_id, ErrorCode.unknown_member_id
        if member_id in self._pending:
            return member_id, ErrorCode.none
        return member_id, self._member_error(member_id, leaving.instance_id)

    def _remove(self, member_ids: Sequence[str], now: float) -> None:
        """Those who stay rebalance. Pending ones that go change nothing, but the others may have waited for them."""
        size = len(self.members)
        for member_id in member_ids:
            self._drop(member_id)
        if self.state is GroupState.PREPARING_REBALANCE:
            self._rebalance(now)
        elif len(self.members) < size:
            self._prepare(now)

    def _drop(self, member_id: str) -> None:
        """Forgets a member or a pending one; what it waits for is answered."""
        self._pending.pop(member_id, None)
        member = self.members.pop(member_id, None)
        if member is None:
            return
        self._answer_join(member, JoinResult(error=ErrorCode.unknown_member_id))
        self._answer_sync(member, ErrorCode.unknown_member_id)
        if member.instance_id is not None:
            del self._static[member.instance_id]
        self._synced(member_id)
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)

    # Rules

    def _has_room_for(self, member_id: str) -> bool:
        """A full group takes no new members; while it rebalances, only those who have joined count."""
        if self.is_empty:
            return True
        known = self.members.get(member_id)
        if self.state is GroupState.PREPARING_REBALANCE:
            present = sum(member.join_waiter is not None for member in self.members.values())
            return present < self._options.max_size or (known is not None and known.join_waiter is not None)
        return known is not None or len(self.members) < self._options.max_size

    def _can_follow(self, request: JoinRequest) -> bool:
        """Whether the others share the type and one of the protocols."""
        if not self.members:
            return bool(request.protocol_type and request.protocols)
        if request.protocol_type != self.protocol_type:
            return False
        offered = {protocol.name for protocol in request.protocols}
        return bool(offered.intersection(*(member.names() for member in self.members.values())))

    def _member_error(self, member_id: str, instance_id: str | None) -> ErrorCode:
        if instance_id is not None and instance_id not in self._static:
            return ErrorCode.unknown_member_id
        if instance_id is not None and self._static[instance_id] != member_id:
            return ErrorCode.fenced_instance_id
        return ErrorCode.none if member_id in self.members else ErrorCode.unknown_member_id

    def _sync_error(self, request: SyncRequest) -> ErrorCode:
        error = self._member_error(request.member_id, request.instance_id)
        if error is not ErrorCode.none:
            return error
        if request.generation != self.generation:
            return ErrorCode.illegal_generation
        if request.protocol_type not in (None, self.protocol_type) or request.protocol not in (None, self.protocol):
            return ErrorCode.inconsistent_group_protocol
        preparing = self.state is GroupState.PREPARING_REBALANCE
        return ErrorCode.rebalance_in_progress if preparing else ErrorCode.none

    @property
    def _rebalance_timeout(self) -> float:
        return max((member.rebalance_timeout for member in self.members.values()), default=SHORTEST_REBALANCE)

    def _all_have_joined(self) -> bool:
        return not self._pending and all(member.join_waiter is not None for member in self.members.values())

    def _topics_of(self, member: Member) -> frozenset[str] | bytes | None:
        """What a member wants: topics for consumers, all of its metadata where nobody can tell."""
        metadata = member.metadata(self.protocol)
        topics = subscribed_topics(metadata) if self.protocol_type == CONSUMER else None
        return metadata if topics is None else topics

    def _move(self, state: GroupState) -> None:
        assert state in _NEXT[self.state], f"{self.state} -> {state}"
        self.state = state

    # Answers

    def _park(self, member: Member, waiter: object) -> None:
        self._answer_join(member, JoinResult(error=ErrorCode.rebalance_in_progress, member_id=member.id))
        member.join_waiter = waiter

    def _join_result(self, member: Member, *, skip_assignment: bool = False) -> JoinResult:
        leads = member.id == self.leader
        return JoinResult(
            member_id=member.id,
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=self.leader or "",
            members=tuple(m.joined(self.protocol) for m in self.members.values()) if leads else (),
            skip_assignment=skip_assignment,
        )

    def _refuse_join(self, waiter: object, error: ErrorCode, member_id: str = "") -> None:
        self._answers.append(Answer(waiter, JoinResult(error=error, member_id=member_id)))

    def _answer_join(self, member: Member, result: JoinResult) -> None:
        waiter, member.join_waiter = member.join_waiter, None
        if waiter is not None:
            self._answers.append(Answer(waiter, result))

    def _answer_sync(self, member: Member, error: ErrorCode = ErrorCode.none) -> bool:
        waiter, member.sync_waiter = member.sync_waiter, None
        if waiter is None:
            return False
        result = SyncResult(error=error)
        if error is ErrorCode.none:
            result = SyncResult(protocol_type=self.protocol_type, protocol=self.protocol, assignment=member.assignment)
        self._answers.append(Answer(waiter, result))
        return True

    def _drain(self) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers
