"""What members and admin clients ask of groups and are told: plain values, apart from the wire's versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kio.schema.errors import ErrorCode

NO_GENERATION = -1
NO_OFFSET = -1


class TopicPartition(NamedTuple):
    """A partition by name."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """An assignor that a member can follow, and what it says to it: opaque bytes, for consumers a subscription."""

    name: str
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """JoinGroup. Times in seconds; a negative rebalance time-out (v0 has none) stands for the session's."""

    group_id: str
    member_id: str = ""
    instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    protocol_type: str
    protocols: tuple[Protocol, ...]
    session_timeout: float
    rebalance_timeout: float = -1.0
    member_id_required: bool = True
    """From v4 on a new dynamic member is first told its id and has to come again with it (KIP-394)."""
    can_skip_assignment: bool = True
    """From v9 on a static leader that is back can be told that the assignment stands (KIP-814)."""


class JoinedMember(NamedTuple):
    """A member as its leader sees it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """The answer to JoinGroup; only the leader gets the members."""

    error: ErrorCode = ErrorCode.none
    member_id: str = ""
    generation: int = NO_GENERATION
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    members: tuple[JoinedMember, ...] = ()
    skip_assignment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """SyncGroup; the leader's brings the assignments, by member id. The protocol is named from v5 on."""

    group_id: str
    member_id: str
    generation: int
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The answer to SyncGroup: this member's share."""

    error: ErrorCode = ErrorCode.none
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """One member in LeaveGroup. An admin client removes a static member by its instance id alone."""

    member_id: str = ""
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What became of one `Leaving`."""

    member_id: str
    instance_id: str | None
    error: ErrorCode


@dataclass(frozen=True, slots=True)
class Commit:
    """An offset to be committed for one partition."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset; `at_ms` is when."""

    offset: int
    leader_epoch: int
    metadata: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """OffsetCommit. A simple consumer or an admin client has neither generation nor member id."""

    group_id: str
    offsets: Mapping[TopicPartition, Commit]
    member_id: str = ""
    generation: int = NO_GENERATION
    instance_id: str | None = None


class ListedGroup(NamedTuple):
    """A line of ListGroups; the type is always classic."""

    group_id: str
    protocol_type: str
    state: str


class DescribedMember(NamedTuple):
    """A member as DescribeGroups shows it; its metadata for the protocol in use, once there is one."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A group as DescribeGroups shows it."""

    group_id: str
    error: ErrorCode = ErrorCode.none
    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[DescribedMember, ...] = ()
