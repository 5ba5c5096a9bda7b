"""The settings of topics, read and changed."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from kio.schema.alter_configs.v2 import request as alter_request
from kio.schema.alter_configs.v2 import response as alter_response
from kio.schema.describe_configs.v4 import request as configs_request
from kio.schema.describe_configs.v4 import response as configs_response
from kio.schema.errors import ErrorCode
from kio.schema.incremental_alter_configs.v1 import request as change_request
from kio.schema.incremental_alter_configs.v1 import response as change_response

from infra.broker.api.caller import Caller
from infra.broker.errors import BrokerError, outcome
from infra.broker.node import NODE_ID, Node
from infra.broker.topic_settings import FROM_DEFAULT, FROM_TOPIC, LIST, SETTINGS, value_of
from infra.broker.topics import Topic

T = TypeVar("T")
NOTHING = timedelta(0)
TOPIC, BROKER = 2, 4
"""Kinds of resources."""
SET, DELETE, APPEND, SUBTRACT = range(4)


class Handlers:
    """Handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

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

        def wanted(resource: alter_request.AlterConfigsResource, topic: Topic) -> dict[str, str | None]:
            return {setting.name: setting.value for setting in resource.configs}

        told = self._altered(request, wanted, alter_response.AlterConfigsResourceResponse)
        return alter_response.AlterConfigsResponse(throttle_time=NOTHING, responses=told)

    async def change_configs(
        self, request: change_request.IncrementalAlterConfigsRequest, caller: Caller
    ) -> change_response.IncrementalAlterConfigsResponse:
        """Single settings of a topic: set, reset, and values added to or taken from a list."""

        def wanted(resource: change_request.AlterConfigsResource, topic: Topic) -> dict[str, str | None]:
            return _changed(topic.settings, resource.configs)

        told = self._altered(request, wanted, change_response.AlterConfigsResourceResponse)
        return change_response.IncrementalAlterConfigsResponse(throttle_time=NOTHING, responses=told)

    def _altered(
        self,
        request: alter_request.AlterConfigsRequest | change_request.IncrementalAlterConfigsRequest,
        wanted: Callable[[Any, Topic], dict[str, str | None]],
        response: Callable[..., T],
    ) -> tuple[T, ...]:
        """Each resource by itself; `wanted` says what its settings are to be."""

        def altered(resource: alter_request.AlterConfigsResource | change_request.AlterConfigsResource) -> T:
            def alter() -> None:
                topic = self._topic(resource.resource_type, resource.resource_name)
                self._node.topics.configure(topic, wanted(resource, topic), only_check=request.validate_only)

            code, message = outcome(alter)
            return response(
                error_code=code,
                error_message=message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )

        return tuple(altered(resource) for resource in request.resources)

    def _topic(self, kind: int, name: str) -> Topic:
        if kind != TOPIC:
            raise BrokerError(ErrorCode.invalid_request, "only the settings of topics can be changed while it runs")
        return self._node.topics.named(name)


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
