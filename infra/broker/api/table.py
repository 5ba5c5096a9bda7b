"""Which requests this broker speaks, in which versions, and who answers each."""

# pyright: reportArgumentType=false

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from kio.schema.alter_configs.v2.request import AlterConfigsRequest
from kio.schema.api_versions.v4.request import ApiVersionsRequest
from kio.schema.api_versions.v4.response import ApiVersion, ApiVersionsResponse
from kio.schema.create_partitions.v3.request import CreatePartitionsRequest
from kio.schema.create_topics.v7.request import CreateTopicsRequest
from kio.schema.delete_groups.v2.request import DeleteGroupsRequest
from kio.schema.delete_records.v2.request import DeleteRecordsRequest
from kio.schema.delete_topics.v5.request import DeleteTopicsRequest as DeleteTopicsByName
from kio.schema.delete_topics.v6.request import DeleteTopicsRequest
from kio.schema.describe_acls.v3.request import DescribeAclsRequest
from kio.schema.describe_cluster.v1.request import DescribeClusterRequest
from kio.schema.describe_configs.v4.request import DescribeConfigsRequest
from kio.schema.describe_groups.v5.request import DescribeGroupsRequest
from kio.schema.errors import ErrorCode
from kio.schema.fetch.v12.request import FetchRequest as FetchByName
from kio.schema.fetch.v16.request import FetchRequest
from kio.schema.find_coordinator.v3.request import FindCoordinatorRequest as FindOneCoordinator
from kio.schema.find_coordinator.v5.request import FindCoordinatorRequest
from kio.schema.heartbeat.v4.request import HeartbeatRequest
from kio.schema.incremental_alter_configs.v1.request import IncrementalAlterConfigsRequest
from kio.schema.init_producer_id.v5.request import InitProducerIdRequest
from kio.schema.join_group.v9.request import JoinGroupRequest
from kio.schema.leave_group.v2.request import LeaveGroupRequest as LeaveOne
from kio.schema.leave_group.v5.request import LeaveGroupRequest
from kio.schema.list_groups.v5.request import ListGroupsRequest
from kio.schema.list_offsets.v8.request import ListOffsetsRequest
from kio.schema.metadata.v12.request import MetadataRequest
from kio.schema.offset_commit.v9.request import OffsetCommitRequest
from kio.schema.offset_delete.v0.request import OffsetDeleteRequest
from kio.schema.offset_fetch.v7.request import OffsetFetchRequest as OffsetFetchOne
from kio.schema.offset_fetch.v9.request import OffsetFetchRequest
from kio.schema.offset_for_leader_epoch.v4.request import OffsetForLeaderEpochRequest
from kio.schema.produce.v12.request import ProduceRequest
from kio.schema.sync_group.v5.request import SyncGroupRequest

from infra.broker.api.caller import Caller
from infra.broker.api.cluster import Cluster
from infra.broker.api.groups import Groups
from infra.broker.api.records import Records
from infra.broker.node import Node
from infra.broker.wire import Spoken, Wire

PRODUCE = 0
Handler = Callable[[Any, Caller], Awaitable[Any]]


def table(node: Node) -> dict[Spoken, Handler]:
    """Every row that is spoken, with its handler."""
    records, cluster, groups = Records(node), Cluster(node), Groups(node)
    rows: dict[Spoken, Handler] = {
        # Like Kafka 4, tells of produce versions that it refuses: librdkafka looks for 0 before it compresses.
        Spoken(ProduceRequest, 3, advertised=0): records.produce,
        Spoken(FetchByName, 4): records.fetch_by_name,
        Spoken(FetchRequest, 13): records.fetch_by_id,
        Spoken(ListOffsetsRequest, 1): records.list_offsets,
        Spoken(OffsetForLeaderEpochRequest, 2): records.leader_epochs,
        Spoken(DeleteRecordsRequest, 0): records.delete_records,
        Spoken(InitProducerIdRequest, 0): records.init_producer_id,
        Spoken(MetadataRequest, 1): cluster.metadata,
        Spoken(DescribeClusterRequest, 0): cluster.describe_cluster,
        Spoken(DescribeAclsRequest, 1): cluster.describe_acls,
        Spoken(CreateTopicsRequest, 2): cluster.create_topics,
        Spoken(DeleteTopicsByName, 1): cluster.delete_topics_by_name,
        Spoken(DeleteTopicsRequest, 6): cluster.delete_topics,
        Spoken(CreatePartitionsRequest, 0): cluster.create_partitions,
        Spoken(DescribeConfigsRequest, 1): cluster.describe_configs,
        Spoken(AlterConfigsRequest, 0): cluster.alter_configs,
        Spoken(IncrementalAlterConfigsRequest, 0): cluster.change_configs,
        Spoken(FindOneCoordinator, 0): groups.find_one,
        Spoken(FindCoordinatorRequest, 4): groups.find,
        Spoken(JoinGroupRequest, 0): groups.join,
        Spoken(SyncGroupRequest, 0): groups.sync,
        Spoken(HeartbeatRequest, 0): groups.heartbeat,
        Spoken(LeaveOne, 0): groups.leave_one,
        Spoken(LeaveGroupRequest, 3): groups.leave,
        Spoken(OffsetCommitRequest, 2): groups.commit,
        Spoken(OffsetFetchOne, 1): groups.fetch_one,
        Spoken(OffsetFetchRequest, 8): groups.fetch,
        Spoken(OffsetDeleteRequest, 0): groups.forget_offsets,
        Spoken(DescribeGroupsRequest, 0): groups.describe,
        Spoken(ListGroupsRequest, 0): groups.list_groups,
        Spoken(DeleteGroupsRequest, 0): groups.delete,
    }
    versions = Spoken(ApiVersionsRequest, 0)

    async def api_versions(request: ApiVersionsRequest, caller: Caller) -> ApiVersionsResponse:
        return api_versions_response(Wire((*rows, versions)))

    return rows | {versions: api_versions}


def api_versions_response(wire: Wire, code: ErrorCode = ErrorCode.none) -> ApiVersionsResponse:
    """What is spoken; with `unsupported_version` it tells a client in which version to ask again."""
    return ApiVersionsResponse(
        error_code=code,
        api_keys=tuple(
            ApiVersion(api_key=key, min_version=low, max_version=high)
            for key, (low, high) in sorted(wire.spoken().items())
        ),
        throttle_time=timedelta(0),
    )
