"""Which requests this broker speaks, in which versions, and who answers each.

The schemas of a request and the module of its handler are loaded when the first one of its kind comes, or soon after
the start by `warm_up`, whichever is earlier: all of them at once would make every start a quarter of a second longer.
"""

# pyright: reportArgumentType=false

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

from kio.schema.api_versions.v4.request import ApiVersionsRequest
from kio.schema.api_versions.v4.response import ApiVersion, ApiVersionsResponse
from kio.schema.errors import ErrorCode

from infra.broker.api.caller import Caller
from infra.broker.node import Node
from infra.broker.wire import Spoken, Wire

Handler = Callable[[Any, Caller], Awaitable[Any]]

ROWS = (
    # Like Kafka 4, tells of produce versions that it refuses: librdkafka looks for 0 before it compresses.
    Spoken("produce", 3, 12, "records.produce", advertised=0),
    Spoken("fetch", 4, 12, "records.fetch_by_name"),
    Spoken("fetch", 13, 16, "records.fetch_by_id"),
    Spoken("list_offsets", 1, 8, "records.list_offsets"),
    Spoken("offset_for_leader_epoch", 2, 4, "records.leader_epochs"),
    Spoken("delete_records", 0, 2, "records.delete_records"),
    Spoken("init_producer_id", 0, 5, "records.init_producer_id"),
    Spoken("api_versions", 0, 4, "table.api_versions"),
    Spoken("metadata", 1, 12, "cluster.metadata"),
    Spoken("describe_cluster", 0, 1, "cluster.describe_cluster"),
    Spoken("describe_acls", 1, 3, "cluster.describe_acls"),
    Spoken("create_topics", 2, 7, "topics.create_topics"),
    Spoken("delete_topics", 1, 5, "topics.delete_topics_by_name"),
    Spoken("delete_topics", 6, 6, "topics.delete_topics"),
    Spoken("create_partitions", 0, 3, "topics.create_partitions"),
    Spoken("describe_configs", 1, 4, "settings.describe_configs"),
    Spoken("alter_configs", 0, 2, "settings.alter_configs"),
    Spoken("incremental_alter_configs", 0, 1, "settings.change_configs"),
    Spoken("find_coordinator", 0, 3, "groups.find_one"),
    Spoken("find_coordinator", 4, 5, "groups.find"),
    Spoken("join_group", 0, 9, "groups.join"),
    Spoken("sync_group", 0, 5, "groups.sync"),
    Spoken("heartbeat", 0, 4, "groups.heartbeat"),
    Spoken("leave_group", 0, 2, "groups.leave_one"),
    Spoken("leave_group", 3, 5, "groups.leave"),
    Spoken("offset_commit", 2, 9, "groups.commit"),
    Spoken("offset_fetch", 1, 7, "groups.fetch_one"),
    Spoken("offset_fetch", 8, 9, "groups.fetch"),
    Spoken("offset_delete", 0, 0, "groups.forget_offsets"),
    Spoken("describe_groups", 0, 5, "groups.describe"),
    Spoken("list_groups", 0, 5, "groups.list_groups"),
    Spoken("delete_groups", 0, 2, "groups.delete"),
)


class Handlers:
    """What answers the rows, for one node. Each module of `infra.broker.api` has a class `Handlers` of its own."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._parts: dict[str, Any] = {"table": self}
        self._versions = api_versions_response(ErrorCode.none)

    def of(self, row: Spoken) -> Handler:
        """The handler of a row."""
        module, name = row.handler.split(".")
        if module not in self._parts:
            self._parts[module] = import_module(f"infra.broker.api.{module}").Handlers(self._node)
        return getattr(self._parts[module], name)

    async def warm_up(self) -> None:
        """Load what has not been asked for yet, one by one, when the first clients have been greeted."""
        await asyncio.sleep(1)
        for row in ROWS:
            self.of(row)
            row.load()
            await asyncio.sleep(0)

    async def api_versions(self, request: ApiVersionsRequest, caller: Caller) -> ApiVersionsResponse:
        """What is spoken."""
        return self._versions


def api_versions_response(code: ErrorCode) -> ApiVersionsResponse:
    """What is spoken; with `unsupported_version` it tells a client in which version to ask again."""
    return ApiVersionsResponse(
        error_code=code,
        api_keys=tuple(
            ApiVersion(api_key=key, min_version=low, max_version=high)
            for key, (low, high) in sorted(Wire(ROWS).spoken().items())
        ),
        throttle_time=timedelta(0),
    )
