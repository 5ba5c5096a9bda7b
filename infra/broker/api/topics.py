"""Topics made, grown and deleted."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

from collections.abc import Iterable
from datetime import timedelta

from kio.schema.create_partitions.v3 import request as grow_request
from kio.schema.create_partitions.v3 import response as grow_response
from kio.schema.create_topics.v7 import request as create_request
from kio.schema.create_topics.v7 import response as create_response
from kio.schema.delete_topics.v5.request import DeleteTopicsRequest as DeleteByName
from kio.schema.delete_topics.v6 import request as delete_request
from kio.schema.delete_topics.v6 import response as delete_response
from kio.schema.errors import ErrorCode

from infra.broker.api.caller import Caller
from infra.broker.errors import BrokerError, outcome
from infra.broker.node import NODE_ID, Node
from infra.broker.topic_settings import FROM_DEFAULT, FROM_TOPIC, SETTINGS, value_of

NOTHING = timedelta(0)


class Handlers:
    """Handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

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

            code, message = outcome(grow)
            return grow_response.CreatePartitionsTopicResult(name=wanted.name, error_code=code, error_message=message)

        return grow_response.CreatePartitionsResponse(throttle_time=NOTHING, results=tuple(map(grown, request.topics)))
