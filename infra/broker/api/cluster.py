"""The cluster of one node, its topics and their settings."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from kio.schema.alter_configs.v2 import request as alter_request
from kio.schema.alter_configs.v2 import response as alter_response
from kio.schema.create_partitions.v3 import request as grow_request
from kio.schema.create_partitions.v3 import response as grow_response
from kio.schema.create_topics.v7 import request as create_request
from kio.schema.create_topics.v7 import response as create_response
from kio.schema.delete_topics.v5.request import DeleteTopicsRequest as DeleteByName
from kio.schema.delete_topics.v6 import request as delete_request
from kio.schema.delete_topics.v6 import response as delete_response
from kio.schema.describe_acls.v3.request import DescribeAclsRequest
from kio.schema.describe_acls.v3.response import DescribeAclsResponse
from kio.schema.describe_cluster.v1.request import DescribeClusterRequest
from kio.schema.describe_cluster.v1.response import DescribeClusterBroker, DescribeClusterResponse
from kio.schema.describe_configs.v4 import request as configs_request
from kio.schema.describe_configs.v4 import response as configs_response
from kio.schema.errors import ErrorCode
from kio.schema.incremental_alter_configs.v1 import request as change_request
from kio.schema.incremental_alter_configs.v1 import response as change_response
from kio.schema.metadata.v12 import request as metadata_request
from kio.schema.metadata.v12 import response as metadata_response
from kio.schema.types import TopicName

from infra.broker.api.caller import Caller
from infra.broker.errors import BrokerError
from infra.broker.node import LEADER_EPOCH, NODE_ID, Node
from infra.broker.topic_settings import LIST, SETTINGS, value_of
from infra.broker.topics import Topic

NOTHING = timedelta(0)
TOPIC, BROKER = 2, 4
"""Kinds of resources."""
FROM_TOPIC, FROM_DEFAULT = 1, 5
"""Where a setting's value comes from."""
SET, DELETE, APPEND, SUBTRACT = range(4)
NAMELESS = 12
"""From this version of Metadata on a topic that was asked for by its id may have no name in the answer."""


class Cluster:
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

    async def create_topics(
        self, request: create_request.CreateTopicsRequest, caller: Caller
    ) -> create_response.CreateTopicsResponse:
        """Each topic by itself: one that can't be made is no hindrance to the others."""
        names = [topic.name for topic in request.topics]
        return create_response.CreateTopicsResponse(
            throttle_time=NOTHING,
            topics=tuple(
                self._created(topic, request.validate_only, twice=names.count(topic.name) > 1)
                for topic in request.topics
            ),
        )

    def _created(
        self, wanted: create_request.CreatableTopic, only_check: bool, *, twice: bool
    ) -> create_response.CreatableTopicResult:
        try:
            if twice:
                raise BrokerError(ErrorCode.invalid_request, f"{wanted.name} is named twice")
            partitions = self._partitions(wanted)
            settings = {setting.name: setting.value for setting in wanted.configs}
            topic = self._node.topics.create(wanted.name, partitions, settings, only_check=only_check)
        except BrokerError as error:
            return create_response.CreatableTopicResult(
                name=wanted.name, topic_id=None, error_code=error.code, error_message=str(error), configs=()
            )
        return create_response.CreatableTopicResult(
            name=wanted.name,
            topic_id=topic.topic_id,
            error_code=ErrorCode.none,
            error_message=None,
            num_partitions=partitions,
            replication_factor=1,
            configs=tuple(
                create_response.CreatableTopicConfigs(
                    name=name,
                    value=value_of(topic.settings, name),
                    read_only=False,
                    config_source=FROM_TOPIC if name in topic.settings else FROM_DEFAULT,
                    is_sensitive=False,
                )
                for name in SETTINGS
            ),
        )

    def _partitions(self, wanted: create_request.CreatableTopic) -> int:
        if wanted.assignments:
            if any(tuple(a.broker_ids) != (NODE_ID,) for a in wanted.assignments):
                raise BrokerError(ErrorCode.invalid_replica_assignment, f"there is one node, number {NODE_ID}")
            if sorted(a.partition_index for a in wanted.assignments) != list(range(len(wanted.assignments))):
                raise BrokerError(ErrorCode.invalid_replica_assignment, "partitions are numbered from 0 without gaps")
            return len(wanted.assignments)
        if wanted.replication_factor not in (-1, 1):
            raise BrokerError(
                ErrorCode.invalid_replication_factor, "there is one node: the replication factor can only be 1"
            )
        return self._node.options.default_partitions if wanted.num_partitions == -1 else wanted.num_partitions

    async def delete_topics_by_name(
        self, request: DeleteByName, caller: Caller
    ) -> delete_response.DeleteTopicsResponse:
        """Versions up to 5 name topics."""
        states = tuple(delete_request.DeleteTopicState(name=name, topic_id=None) for name in request.topic_names)
        return await self._deleted(states)

    async def delete_topics(
        self, request: delete_request.DeleteTopicsRequest, caller: Caller
    ) -> delete_response.DeleteTopicsResponse:
        """By name or by id."""
        return await self._deleted(request.topics)

    async def _deleted(self, states: Iterable[delete_request.DeleteTopicState]) -> delete_response.DeleteTopicsResponse:
        return delete_response.DeleteTopicsResponse(
            throttle_time=NOTHING, responses=tuple([await self._deleted_one(state) for state in states])
        )

    async def _deleted_one(self, state: delete_request.DeleteTopicState) -> delete_response.DeletableTopicResult:
        topics, name, topic_id = self._node.topics, state.name, state.topic_id
        try:
            topic = topics.identified(topic_id) if name is None else topics.named(name)
            topics.delete(topic)
            await self._node.coordinator.topic_deleted(topic.name)
        except BrokerError as error:
            return delete_response.DeletableTopicResult(
                name=name, topic_id=topic_id, error_code=error.code, error_message=str(error)
            )
        return delete_response.DeletableTopicResult(name=topic.name, topic_id=topic.topic_id, error_code=ErrorCode.none)

    async def create_partitions(
        self, request: grow_request.CreatePartitionsRequest, caller: Caller
    ) -> grow_response.CreatePartitionsResponse:
        """More partitions of existing topics."""

        def grown(wanted: grow_request.CreatePartitionsTopic) -> grow_response.CreatePartitionsTopicResult:
            def grow() -> None:
                topic = self._node.topics.named(wanted.name)
                self._node.topics.grow(topic, wanted.count, only_check=request.validate_only)

            code, message = _outcome(grow)
            return grow_response.CreatePartitionsTopicResult(name=wanted.name, error_code=code, error_message=message)

        return grow_response.CreatePartitionsResponse(throttle_time=NOTHING, results=tuple(map(grown, request.topics)))

    async def describe_configs(
        self, request: configs_request.DescribeConfigsRequest, caller: Caller
    ) -> configs_response.DescribeConfigsResponse:
        """The settings of topics, and how this broker was started."""
        return configs_response.DescribeConfigsResponse(
            throttle_time=NOTHING,
            results=tuple(self._settings(r, request.include_documentation) for r in request.resources),
        )

    def _settings(
        self, wanted: configs_request.DescribeConfigsResource, documented: bool
    ) -> configs_response.DescribeConfigsResult:
        code, message = ErrorCode.none, None
        found: tuple[configs_response.DescribeConfigsResourceResult, ...] = ()
        try:
            if wanted.resource_type == TOPIC:
                found = _topic_settings(self._node.topics.named(wanted.resource_name).settings, documented)
            elif wanted.resource_type == BROKER and wanted.resource_name in (str(NODE_ID), ""):
                found = tuple(_read_only(name, value) for name, value in self._own_settings().items())
            else:
                raise BrokerError(ErrorCode.invalid_request, "there are settings of topics and of broker 0 only")
        except BrokerError as error:
            code, message = error.code, str(error)
        keys = wanted.configuration_keys
        return configs_response.DescribeConfigsResult(
            error_code=code,
            error_message=message,
            resource_type=wanted.resource_type,
            resource_name=wanted.resource_name,
            configs=tuple(entry for entry in found if not keys or entry.name in keys),
        )

    def _own_settings(self) -> dict[str, str]:
        options = self._node.options
        return {
            "auto.create.topics.enable": str(options.auto_create_topics).lower(),
            "num.partitions": str(options.default_partitions),
            "default.replication.factor": "1",
            "socket.request.max.bytes": str(options.max_request_bytes),
            "group.initial.rebalance.delay.ms": str(options.initial_rebalance_delay_ms),
        }

    async def alter_configs(
        self, request: alter_request.AlterConfigsRequest, caller: Caller
    ) -> alter_response.AlterConfigsResponse:
        """The settings of a topic as a whole: what is not named goes back to its default."""

        def altered(wanted: alter_request.AlterConfigsResource) -> alter_response.AlterConfigsResourceResponse:
            def alter() -> None:
                topic = self._topic(wanted.resource_type, wanted.resource_name)
                settings = {setting.name: setting.value for setting in wanted.configs}
                self._node.topics.configure(topic, settings, only_check=request.validate_only)

            code, message = _outcome(alter)
            return alter_response.AlterConfigsResourceResponse(
                error_code=code,
                error_message=message,
                resource_type=wanted.resource_type,
                resource_name=wanted.resource_name,
            )

        return alter_response.AlterConfigsResponse(
            throttle_time=NOTHING, responses=tuple(map(altered, request.resources))
        )

    async def change_configs(
        self, request: change_request.IncrementalAlterConfigsRequest, caller: Caller
    ) -> change_response.IncrementalAlterConfigsResponse:
        """Single settings of a topic: set, reset, and values added to or taken from a list."""

        def changed(wanted: change_request.AlterConfigsResource) -> change_response.AlterConfigsResourceResponse:
            def change() -> None:
                topic = self._topic(wanted.resource_type, wanted.resource_name)
                settings = _changed(topic.settings, wanted.configs)
                self._node.topics.configure(topic, settings, only_check=request.validate_only)

            code, message = _outcome(change)
            return change_response.AlterConfigsResourceResponse(
                error_code=code,
                error_message=message,
                resource_type=wanted.resource_type,
                resource_name=wanted.resource_name,
            )

        return change_response.IncrementalAlterConfigsResponse(
            throttle_time=NOTHING, responses=tuple(map(changed, request.resources))
        )

    def _topic(self, kind: int, name: str) -> Topic:
        if kind != TOPIC:
            raise BrokerError(ErrorCode.invalid_request, "only the settings of topics can be changed while it runs")
        return self._node.topics.named(name)


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


def _topic_settings(
    settings: Mapping[str, str], documented: bool
) -> tuple[configs_response.DescribeConfigsResourceResult, ...]:
    return tuple(
        configs_response.DescribeConfigsResourceResult(
            name=name,
            value=value_of(settings, name),
            read_only=False,
            config_source=FROM_TOPIC if name in settings else FROM_DEFAULT,
            is_sensitive=False,
            synonyms=(),
            config_type=setting.kind,
            documentation=setting.what if documented else None,
        )
        for name, setting in SETTINGS.items()
    )


def _read_only(name: str, value: str) -> configs_response.DescribeConfigsResourceResult:
    return configs_response.DescribeConfigsResourceResult(
        name=name,
        value=value,
        read_only=True,
        config_source=FROM_DEFAULT,
        is_sensitive=False,
        synonyms=(),
        documentation=None,
    )


def _changed(settings: Mapping[str, str], changes: Iterable[change_request.AlterableConfig]) -> dict[str, str | None]:
    found: dict[str, str | None] = dict(settings)
    for change in changes:
        if change.config_operation == SET:
            found[change.name] = change.value
        elif change.config_operation == DELETE:
            found[change.name] = None
        else:
            found[change.name] = _edited(found, change)
    return found


def _edited(settings: Mapping[str, str | None], change: change_request.AlterableConfig) -> str:
    known = SETTINGS.get(change.name)
    if known is None or known.kind != LIST or change.config_operation not in (APPEND, SUBTRACT):
        raise BrokerError(ErrorCode.invalid_config, f"{change.name} is no list: values can only be set or deleted")
    items = [item for item in (settings.get(change.name) or known.default).split(",") if item]
    given = (change.value or "").split(",")
    if change.config_operation == SUBTRACT:
        return ",".join(item for item in items if item not in given)
    return ",".join([*items, *(item for item in given if item not in items)])


def _outcome(work: Callable[[], None]) -> tuple[ErrorCode, str | None]:
    """The error code and message of some work."""
    try:
        work()
    except BrokerError as error:
        return error.code, str(error)
    return ErrorCode.none, None
