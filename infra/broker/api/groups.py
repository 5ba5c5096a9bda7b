"""Groups and their offsets, as the wire has them: a thin translation to and from `infra.broker.coordinator`."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TypeVar

from kio.schema.delete_groups.v2.request import DeleteGroupsRequest
from kio.schema.delete_groups.v2.response import DeletableGroupResult, DeleteGroupsResponse
from kio.schema.describe_groups.v5.request import DescribeGroupsRequest
from kio.schema.describe_groups.v5.response import DescribedGroup, DescribedGroupMember, DescribeGroupsResponse
from kio.schema.errors import ErrorCode
from kio.schema.find_coordinator.v3.request import FindCoordinatorRequest as FindOne
from kio.schema.find_coordinator.v3.response import FindCoordinatorResponse as FoundOne
from kio.schema.find_coordinator.v5.request import FindCoordinatorRequest
from kio.schema.find_coordinator.v5.response import Coordinator, FindCoordinatorResponse
from kio.schema.heartbeat.v4.request import HeartbeatRequest
from kio.schema.heartbeat.v4.response import HeartbeatResponse
from kio.schema.join_group.v9 import request as join_request
from kio.schema.join_group.v9 import response as join_response
from kio.schema.leave_group.v2 import request as leave_one_request
from kio.schema.leave_group.v2 import response as left_one
from kio.schema.leave_group.v5 import request as leave_request
from kio.schema.leave_group.v5 import response as leave_response
from kio.schema.list_groups.v5.request import ListGroupsRequest
from kio.schema.list_groups.v5.response import ListedGroup, ListGroupsResponse
from kio.schema.offset_commit.v9 import request as commit_request
from kio.schema.offset_commit.v9 import response as commit_response
from kio.schema.offset_delete.v0 import request as forget_request
from kio.schema.offset_delete.v0 import response as forget_response
from kio.schema.offset_fetch.v7 import request as fetch_one_request
from kio.schema.offset_fetch.v7 import response as fetched_one
from kio.schema.offset_fetch.v9 import request as fetch_request
from kio.schema.offset_fetch.v9 import response as fetch_response
from kio.schema.sync_group.v5.request import SyncGroupRequest
from kio.schema.sync_group.v5.response import SyncGroupResponse

from infra.broker.api.caller import Caller
from infra.broker.api.records import NO_TRANSACTIONS
from infra.broker.errors import BrokerError
from infra.broker.group_messages import (
    Commit,
    CommitRequest,
    Committed,
    JoinRequest,
    Leaving,
    Protocol,
    SyncRequest,
    TopicPartition,
)
from infra.broker.node import NODE_ID, Node

T = TypeVar("T")
NOTHING = timedelta(0)
GROUP, TRANSACTION = 0, 1
"""What FindCoordinator can be asked for."""


class Handlers:
    """Handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._groups = node.coordinator

    async def find_one(self, request: FindOne, caller: Caller) -> FoundOne:
        """Versions up to 3 ask for one key."""
        found = self._found(request.key, request.key_type)
        return FoundOne(
            throttle_time=NOTHING,
            error_code=found.error_code,
            error_message=found.error_message,
            node_id=found.node_id,
            host=found.host,
            port=found.port,
        )

    async def find(self, request: FindCoordinatorRequest, caller: Caller) -> FindCoordinatorResponse:
        """This node coordinates every group, and no transaction."""
        return FindCoordinatorResponse(
            throttle_time=NOTHING,
            coordinators=tuple(self._found(key, request.key_type) for key in request.coordinator_keys),
        )

    def _found(self, key: str, kind: int) -> Coordinator:
        options = self._node.options
        if kind == GROUP:
            return Coordinator(
                key=key,
                node_id=NODE_ID,
                host=options.advertised_host,
                port=options.port,
                error_code=ErrorCode.none,
                error_message=None,
            )
        code = ErrorCode.transactional_id_authorization_failed if kind == TRANSACTION else ErrorCode.invalid_request
        return Coordinator(key=key, node_id=-1, host="", port=-1, error_code=code, error_message=NO_TRANSACTIONS)

    async def join(self, request: join_request.JoinGroupRequest, caller: Caller) -> join_response.JoinGroupResponse:
        """Parked until the others have joined too."""
        result = await self._groups.join(
            JoinRequest(
                group_id=request.group_id,
                member_id=request.member_id,
                instance_id=request.group_instance_id,
                client_id=caller.client_id,
                client_host=caller.host,
                protocol_type=request.protocol_type,
                protocols=tuple(Protocol(p.name, p.metadata) for p in request.protocols),
                session_timeout=request.session_timeout.total_seconds(),
                rebalance_timeout=request.rebalance_timeout.total_seconds(),
                member_id_required=caller.version >= 4,
                can_skip_assignment=caller.version >= 9,
            )
        )
        name = result.protocol if result.protocol is not None or caller.version >= 7 else ""
        return join_response.JoinGroupResponse(
            throttle_time=NOTHING,
            error_code=result.error,
            generation_id=result.generation,
            protocol_type=result.protocol_type,
            protocol_name=name,
            leader=result.leader,
            skip_assignment=result.skip_assignment,
            member_id=result.member_id,
            members=tuple(
                join_response.JoinGroupResponseMember(
                    member_id=m.member_id, group_instance_id=m.instance_id, metadata=m.metadata
                )
                for m in result.members
            ),
        )

    async def sync(self, request: SyncGroupRequest, caller: Caller) -> SyncGroupResponse:
        """Parked until the leader has assigned."""
        result = await self._groups.sync(
            SyncRequest(
                group_id=request.group_id,
                member_id=request.member_id,
                generation=request.generation_id,
                instance_id=request.group_instance_id,
                protocol_type=request.protocol_type,
                protocol=request.protocol_name,
                assignments={a.member_id: a.assignment for a in request.assignments},
            )
        )
        return SyncGroupResponse(
            throttle_time=NOTHING,
            error_code=result.error,
            protocol_type=result.protocol_type,
            protocol_name=result.protocol,
            assignment=result.assignment,
        )

    async def heartbeat(self, request: HeartbeatRequest, caller: Caller) -> HeartbeatResponse:
        """A member lives."""
        error = self._groups.heartbeat(
            request.group_id, request.member_id, request.generation_id, request.group_instance_id
        )
        return HeartbeatResponse(throttle_time=NOTHING, error_code=error)

    async def leave_one(
        self, request: leave_one_request.LeaveGroupRequest, caller: Caller
    ) -> left_one.LeaveGroupResponse:
        """Versions up to 2 name one member."""
        left = self._groups.leave(request.group_id, [Leaving(member_id=request.member_id)])
        return left_one.LeaveGroupResponse(throttle_time=NOTHING, error_code=left[0].error)

    async def leave(
        self, request: leave_request.LeaveGroupRequest, caller: Caller
    ) -> leave_response.LeaveGroupResponse:
        """Members go, by themselves or by an administrator's hand."""
        leavings = [Leaving(member_id=m.member_id, instance_id=m.group_instance_id) for m in request.members]
        return leave_response.LeaveGroupResponse(
            throttle_time=NOTHING,
            error_code=ErrorCode.none,
            members=tuple(
                leave_response.MemberResponse(
                    member_id=left.member_id, group_instance_id=left.instance_id, error_code=left.error
                )
                for left in self._groups.leave(request.group_id, leavings)
            ),
        )

    async def commit(
        self, request: commit_request.OffsetCommitRequest, caller: Caller
    ) -> commit_response.OffsetCommitResponse:
        """Offsets of partitions that exist; the others are refused one by one."""
        offsets = {
            TopicPartition(topic.name, part.partition_index): Commit(
                part.committed_offset, part.committed_leader_epoch, part.committed_metadata or ""
            )
            for topic in request.topics
            for part in topic.partitions
        }
        known = {place: commit for place, commit in offsets.items() if self._exists(place)}
        results = await self._groups.commit(
            CommitRequest(
                group_id=request.group_id,
                offsets=known,
                member_id=request.member_id,
                generation=request.generation_id_or_member_epoch,
                instance_id=request.group_instance_id,
            )
        )
        return commit_response.OffsetCommitResponse(
            throttle_time=NOTHING,
            topics=tuple(
                commit_response.OffsetCommitResponseTopic(
                    name=topic.name,
                    partitions=tuple(
                        commit_response.OffsetCommitResponsePartition(
                            partition_index=part.partition_index,
                            error_code=results.get(
                                TopicPartition(topic.name, part.partition_index), ErrorCode.unknown_topic_or_partition
                            ),
                        )
                        for part in topic.partitions
                    ),
                )
                for topic in request.topics
            ),
        )

    def _exists(self, place: TopicPartition) -> bool:
        topics = self._node.topics
        return place.topic in topics and 0 <= place.partition < len(topics.named(place.topic).logs)

    async def fetch_one(
        self, request: fetch_one_request.OffsetFetchRequest, caller: Caller
    ) -> fetched_one.OffsetFetchResponse:
        """Versions up to 7 ask for one group."""
        schema = fetched_one
        topics = self._committed(request, schema.OffsetFetchResponseTopic, schema.OffsetFetchResponsePartition)
        return schema.OffsetFetchResponse(throttle_time=NOTHING, topics=topics)

    async def fetch(
        self, request: fetch_request.OffsetFetchRequest, caller: Caller
    ) -> fetch_response.OffsetFetchResponse:
        """Committed offsets, of some partitions or of all; -1 where there is none."""
        schema = fetch_response
        return schema.OffsetFetchResponse(
            throttle_time=NOTHING,
            groups=tuple(
                schema.OffsetFetchResponseGroup(
                    group_id=group.group_id,
                    topics=self._committed(
                        group, schema.OffsetFetchResponseTopics, schema.OffsetFetchResponsePartitions
                    ),
                )
                for group in request.groups
            ),
        )

    def _committed(
        self,
        asked: fetch_one_request.OffsetFetchRequest | fetch_request.OffsetFetchRequestGroup,
        topic: Callable[..., T],
        partition: Callable[..., object],
    ) -> tuple[T, ...]:
        """What one group has committed, in the classes of the version that was asked."""
        wanted = None if asked.topics is None else _places((t.name, t.partition_indexes) for t in asked.topics)
        known = self._groups.fetch_offsets(asked.group_id, wanted)
        by_topic: dict[str, list[object]] = {}
        for place in sorted(known) if wanted is None else wanted:
            committed = known.get(place, _NEVER)
            told = partition(
                partition_index=place.partition,
                committed_offset=committed.offset,
                committed_leader_epoch=committed.leader_epoch,
                metadata=committed.metadata,
                error_code=ErrorCode.none,
            )
            by_topic.setdefault(place.topic, []).append(told)
        return tuple(topic(name=name, partitions=tuple(parts)) for name, parts in by_topic.items())

    async def forget_offsets(
        self, request: forget_request.OffsetDeleteRequest, caller: Caller
    ) -> forget_response.OffsetDeleteResponse:
        """Deletes committed offsets of topics that nobody in the group reads."""
        places = _places((t.name, [p.partition_index for p in t.partitions]) for t in request.topics)
        results: Mapping[TopicPartition, ErrorCode] = {}
        code = ErrorCode.none
        try:
            results = await self._groups.delete_offsets(request.group_id, places)
        except BrokerError as error:
            code = error.code
        return forget_response.OffsetDeleteResponse(
            error_code=code,
            throttle_time=NOTHING,
            topics=tuple(
                forget_response.OffsetDeleteResponseTopic(
                    name=topic.name,
                    partitions=tuple(
                        forget_response.OffsetDeleteResponsePartition(
                            partition_index=part.partition_index,
                            error_code=results.get(TopicPartition(topic.name, part.partition_index), code),
                        )
                        for part in topic.partitions
                    ),
                )
                for topic in request.topics
            ),
        )

    async def list_groups(self, request: ListGroupsRequest, caller: Caller) -> ListGroupsResponse:
        """All groups, or those in some states; all are of the classic type."""
        states = {state.lower() for state in request.states_filter}
        types = {kind.lower() for kind in request.types_filter}
        return ListGroupsResponse(
            throttle_time=NOTHING,
            error_code=ErrorCode.none,
            groups=tuple(
                ListedGroup(
                    group_id=group.group_id,
                    protocol_type=group.protocol_type,
                    group_state=group.state,
                    group_type="classic",
                )
                for group in self._groups.list_groups()
                if (not states or group.state.lower() in states) and (not types or "classic" in types)
            ),
        )

    async def describe(self, request: DescribeGroupsRequest, caller: Caller) -> DescribeGroupsResponse:
        """Members and what is assigned to them; an unknown group is dead, which up to version 5 is no error."""

        def described(group_id: str) -> DescribedGroup:
            found = self._groups.describe(group_id)
            unknown = found.error is ErrorCode.group_id_not_found
            return DescribedGroup(
                error_code=ErrorCode.none if unknown else found.error,
                group_id=group_id,
                group_state=found.state,
                protocol_type=found.protocol_type,
                protocol_data=found.protocol,
                members=tuple(
                    DescribedGroupMember(
                        member_id=m.member_id,
                        group_instance_id=m.instance_id,
                        client_id=m.client_id,
                        client_host=m.client_host,
                        member_metadata=m.metadata,
                        member_assignment=m.assignment,
                    )
                    for m in found.members
                ),
            )

        return DescribeGroupsResponse(throttle_time=NOTHING, groups=tuple(map(described, request.groups)))

    async def delete(self, request: DeleteGroupsRequest, caller: Caller) -> DeleteGroupsResponse:
        """Empty groups, with their offsets."""
        return DeleteGroupsResponse(
            throttle_time=NOTHING,
            results=tuple(
                [
                    DeletableGroupResult(group_id=name, error_code=await self._groups.delete(name))
                    for name in request.groups_names
                ]
            ),
        )


_NEVER = Committed(offset=-1, leader_epoch=-1, metadata="", at_ms=0)


def _places(topics: Iterable[tuple[str, Iterable[int]]]) -> list[TopicPartition]:
    return [TopicPartition(name, number) for name, numbers in topics for number in numbers]
