"""The cluster of one node, and where its partitions are."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

from datetime import timedelta

from kio.schema.describe_acls.v3.request import DescribeAclsRequest
from kio.schema.describe_acls.v3.response import DescribeAclsResponse
from kio.schema.describe_cluster.v1.request import DescribeClusterRequest
from kio.schema.describe_cluster.v1.response import DescribeClusterBroker, DescribeClusterResponse
from kio.schema.errors import ErrorCode
from kio.schema.metadata.v12 import request as metadata_request
from kio.schema.metadata.v12 import response as metadata_response
from kio.schema.types import TopicName

from infra.broker.api.caller import Caller
from infra.broker.errors import BrokerError
from infra.broker.node import LEADER_EPOCH, NODE_ID, Node
from infra.broker.topics import Topic

NOTHING = timedelta(0)
NAMELESS = 12
"""From this version of Metadata on a topic that was asked for by its id may have no name in the answer."""


class Handlers:
    """Handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def _address(self) -> dict[str, str | int]:
        return {"host": self._node.options.advertised_host, "port": self._node.options.port}

    async def metadata(
        self, request: metadata_request.MetadataRequest, caller: Caller
    ) -> metadata_response.MetadataResponse:
        """All topics, or those asked for by name or id."""
        if request.topics is None:
            topics = tuple(map(_described, self._node.topics))
        else:
            topics = tuple(
                self._looked_up(wanted, request.allow_auto_topic_creation, nameless=caller.version >= NAMELESS)
                for wanted in request.topics
            )
        return metadata_response.MetadataResponse(
            throttle_time=NOTHING,
            brokers=(metadata_response.MetadataResponseBroker(node_id=NODE_ID, **self._address),),
            cluster_id=self._node.topics.cluster_id,
            controller_id=NODE_ID,
            topics=topics,
        )

    def _looked_up(
        self, wanted: metadata_request.MetadataRequestTopic, may_create: bool, *, nameless: bool
    ) -> metadata_response.MetadataResponseTopic:
        topics = self._node.topics
        try:
            if wanted.name is None:
                return _described(topics.identified(wanted.topic_id))
            if wanted.name not in topics and may_create and self._node.options.auto_create_topics:
                topics.create(wanted.name, self._node.options.default_partitions, {}, only_check=False)
            return _described(topics.named(wanted.name))
        except BrokerError as error:
            return metadata_response.MetadataResponseTopic(
                error_code=error.code,
                name=wanted.name if nameless else wanted.name or TopicName(""),
                topic_id=wanted.topic_id,
                partitions=(),
            )

    async def describe_cluster(self, request: DescribeClusterRequest, caller: Caller) -> DescribeClusterResponse:
        """The one node."""
        return DescribeClusterResponse(
            throttle_time=NOTHING,
            error_code=ErrorCode.none,
            endpoint_type=request.endpoint_type,
            cluster_id=self._node.topics.cluster_id,
            controller_id=NODE_ID,
            brokers=(DescribeClusterBroker(broker_id=NODE_ID, **self._address),),
        )

    async def describe_acls(self, request: DescribeAclsRequest, caller: Caller) -> DescribeAclsResponse:
        """There is no authorizer; Kafka says the same where none is configured."""
        return DescribeAclsResponse(
            throttle_time=NOTHING,
            error_code=ErrorCode.security_disabled,
            error_message="this broker has no access control",
            resources=(),
        )


def _described(topic: Topic) -> metadata_response.MetadataResponseTopic:
    return metadata_response.MetadataResponseTopic(
        error_code=ErrorCode.none,
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=tuple(
            metadata_response.MetadataResponsePartition(
                error_code=ErrorCode.none,
                partition_index=number,
                leader_id=NODE_ID,
                leader_epoch=LEADER_EPOCH,
                replica_nodes=(NODE_ID,),
                isr_nodes=(NODE_ID,),
            )
            for number in range(len(topic.logs))
        ),
    )
