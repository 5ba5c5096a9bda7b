"""Records in and out: Produce, Fetch, and what is asked about offsets."""

# kio's number types are phantoms of int: plain numbers are what its writers take.
# pyright: reportArgumentType=false

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kio.schema.delete_records.v2 import request as delete_request
from kio.schema.delete_records.v2 import response as delete_response
from kio.schema.errors import ErrorCode
from kio.schema.fetch.v12 import response as fetched_by_name
from kio.schema.fetch.v12.request import FetchRequest as FetchByName
from kio.schema.fetch.v12.response import FetchResponse as FetchedByName
from kio.schema.fetch.v16 import response as fetched_by_id
from kio.schema.fetch.v16.request import FetchRequest
from kio.schema.fetch.v16.response import FetchResponse
from kio.schema.init_producer_id.v5.request import InitProducerIdRequest
from kio.schema.init_producer_id.v5.response import InitProducerIdResponse
from kio.schema.list_offsets.v8 import request as list_request
from kio.schema.list_offsets.v8 import response as list_response
from kio.schema.offset_for_leader_epoch.v4 import request as epoch_request
from kio.schema.offset_for_leader_epoch.v4 import response as epoch_response
from kio.schema.produce.v12 import request as produce_request
from kio.schema.produce.v12 import response as produce_response

from infra.broker.api.caller import Caller
from infra.broker.errors import BrokerError
from infra.broker.log import PartitionLog
from infra.broker.node import LEADER_EPOCH, Node, now_ms
from infra.broker.topics import Topic

NOTHING = timedelta(0)
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL = -1, -2, -3, -4
MAX_FETCH_BYTES = 50 * 1024 * 1024
NO_TRANSACTIONS = "this broker keeps no transactions: use a Kafka cluster for them"


@dataclass(frozen=True, slots=True)
class _Stored:
    """What became of the batches for one partition; `durable` is awaited before it is told."""

    name: str
    partition: int
    error: BrokerError | None = None
    base_offset: int = -1
    append_time: int = -1
    log_start: int = -1
    durable: Awaitable[None] | None = None


class Handlers:
    """Handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def produce(
        self, request: produce_request.ProduceRequest, caller: Caller
    ) -> Awaitable[produce_response.ProduceResponse | None]:
        """Appends at once, so that requests keep their order; the answer waits for the disk. acks=0 has no answer."""
        began = time.perf_counter()
        stored = [
            self._store(topic.name, part, request) for topic in request.topic_data for part in topic.partition_data
        ]
        return self._acknowledged(stored, began, silent=request.acks == 0)

    def _store(
        self, name: str, part: produce_request.PartitionProduceData, request: produce_request.ProduceRequest
    ) -> _Stored:
        try:
            if request.transactional_id is not None:
                raise BrokerError(ErrorCode.transactional_id_authorization_failed, NO_TRANSACTIONS)
            if request.acks not in (-1, 0, 1):
                raise BrokerError(ErrorCode.invalid_required_acks, f"acks is -1, 0 or 1, not {request.acks}")
            log = self._node.topics.named(name).log(part.index)
            data = part.records or b""
            appended = log.append(data, now_ms=now_ms())
        except BrokerError as error:
            return _Stored(name, part.index, error)
        self._node.metrics.produced.inc(len(data))
        return _Stored(
            name,
            part.index,
            base_offset=appended.base_offset,
            append_time=appended.log_append_time,
            log_start=log.log_start,
            durable=self._node.flusher.durable(log, appended.last_offset + 1),
        )

    async def _acknowledged(
        self, stored: Sequence[_Stored], began: float, *, silent: bool
    ) -> produce_response.ProduceResponse | None:
        told: dict[str, list[produce_response.PartitionProduceResponse]] = {}
        for part in stored:
            error = part.error
            if part.durable is not None:
                try:
                    await part.durable
                except BrokerError as failure:
                    error = failure
            if error is not None and error.code is ErrorCode.kafka_storage_error:
                self._node.metrics.storage_errors.inc()
            told.setdefault(part.name, []).append(_told(part, error))
        self._node.metrics.ack_seconds.observe(time.perf_counter() - began)
        if silent:
            return None
        return produce_response.ProduceResponse(
            responses=tuple(
                produce_response.TopicProduceResponse(name=name, partition_responses=tuple(parts))
                for name, parts in told.items()
            )
        )

    async def fetch_by_name(self, request: FetchByName, caller: Caller) -> FetchedByName:
        """Versions up to 12 name topics."""
        return await self._fetch(request, fetched_by_name, "topic", self._node.topics.named)

    async def fetch_by_id(self, request: FetchRequest, caller: Caller) -> FetchResponse:
        """Later versions give topic ids."""
        return await self._fetch(request, fetched_by_id, "topic_id", self._node.topics.identified)

    async def _fetch(
        self, request: FetchByName | FetchRequest, schema: Any, by: str, find: Callable[[Any], Topic]
    ) -> Any:
        """`schema` is kio's module of the response, `by` the field that says which topic is meant."""
        if request.session_id != 0:  # none was ever given
            code = ErrorCode.fetch_session_id_not_found
            return schema.FetchResponse(throttle_time=NOTHING, error_code=code, responses=())
        wanted = [
            _Wanted(getattr(t, by), find, p.partition, p.fetch_offset, p.partition_max_bytes, p.current_leader_epoch)
            for t in request.topics
            for p in t.partitions
        ]
        found = await self._fetched(wanted, request.max_wait, request.min_bytes, request.max_bytes)
        grouped: dict[Any, list[Any]] = {}
        for part in found:
            grouped.setdefault(part.wanted.topic, []).append(_partition_data(part, schema.PartitionData))
        return schema.FetchResponse(
            throttle_time=NOTHING,
            error_code=ErrorCode.none,
            responses=tuple(
                schema.FetchableTopicResponse(**{by: topic}, partitions=tuple(parts))
                for topic, parts in grouped.items()
            ),
        )

    async def _fetched(
        self, wanted: "Sequence[_Wanted]", max_wait: timedelta, min_bytes: int, max_bytes: int
    ) -> "list[_Found]":
        """Reads, and waits for more where that is less than the client wants (never where there is an error)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max_wait.total_seconds()
        budget = min(max_bytes, MAX_FETCH_BYTES)
        while True:
            found = _read_all(wanted, budget)
            size = sum(len(part.records) for part in found)
            remaining = deadline - loop.time()
            enough = size >= min_bytes or remaining <= 0 or any(part.error is not ErrorCode.none for part in found)
            if enough or not await _changed([part.log for part in found if part.log is not None], remaining):
                self._node.metrics.fetched.inc(size)
                return found

    async def list_offsets(
        self, request: list_request.ListOffsetsRequest, caller: Caller
    ) -> list_response.ListOffsetsResponse:
        """Offsets by time, and the special times: latest, earliest, that of the highest timestamp."""
        return list_response.ListOffsetsResponse(
            throttle_time=NOTHING,
            topics=tuple(
                list_response.ListOffsetsTopicResponse(
                    name=topic.name, partitions=tuple(self._offset(topic.name, part) for part in topic.partitions)
                )
                for topic in request.topics
            ),
        )

    def _offset(self, name: str, part: list_request.ListOffsetsPartition) -> list_response.ListOffsetsPartitionResponse:
        try:
            log = self._node.topics.named(name).log(part.partition_index)
            offset, timestamp = _offset_at(log, part.timestamp)
        except BrokerError as error:
            return list_response.ListOffsetsPartitionResponse(
                partition_index=part.partition_index, error_code=error.code
            )
        return list_response.ListOffsetsPartitionResponse(
            partition_index=part.partition_index,
            error_code=ErrorCode.none,
            timestamp=timestamp,
            offset=offset,
            leader_epoch=LEADER_EPOCH,
        )

    async def leader_epochs(
        self, request: epoch_request.OffsetForLeaderEpochRequest, caller: Caller
    ) -> epoch_response.OffsetForLeaderEpochResponse:
        """There is one leader and one epoch: it ends where the log ends."""

        def end(name: str, part: epoch_request.OffsetForLeaderPartition) -> epoch_response.EpochEndOffset:
            try:
                log = self._node.topics.named(name).log(part.partition)
                _check_epoch(part.current_leader_epoch)
            except BrokerError as error:
                return epoch_response.EpochEndOffset(error_code=error.code, partition=part.partition)
            known = part.leader_epoch == LEADER_EPOCH
            return epoch_response.EpochEndOffset(
                error_code=ErrorCode.none,
                partition=part.partition,
                leader_epoch=LEADER_EPOCH if known else -1,
                end_offset=log.high_watermark if known else -1,
            )

        return epoch_response.OffsetForLeaderEpochResponse(
            throttle_time=NOTHING,
            topics=tuple(
                epoch_response.OffsetForLeaderTopicResult(
                    topic=topic.topic, partitions=tuple(end(topic.topic, part) for part in topic.partitions)
                )
                for topic in request.topics
            ),
        )

    async def delete_records(
        self, request: delete_request.DeleteRecordsRequest, caller: Caller
    ) -> delete_response.DeleteRecordsResponse:
        """Moves the start of logs; -1 stands for the high watermark."""

        def deleted(
            name: str, part: delete_request.DeleteRecordsPartition
        ) -> delete_response.DeleteRecordsPartitionResult:
            try:
                log = self._node.topics.named(name).log(part.partition_index)
                low = log.delete_before(log.high_watermark if part.offset == -1 else part.offset)
                code = ErrorCode.none
            except BrokerError as error:
                low, code = -1, error.code
            return delete_response.DeleteRecordsPartitionResult(
                partition_index=part.partition_index, low_watermark=low, error_code=code
            )

        return delete_response.DeleteRecordsResponse(
            throttle_time=NOTHING,
            topics=tuple(
                delete_response.DeleteRecordsTopicResult(
                    name=topic.name, partitions=tuple(deleted(topic.name, part) for part in topic.partitions)
                )
                for topic in request.topics
            ),
        )

    async def init_producer_id(self, request: InitProducerIdRequest, caller: Caller) -> InitProducerIdResponse:
        """A new id for an idempotent producer, or the next epoch of its old one (KIP-360)."""
        if request.transactional_id is not None:
            code, producer, epoch = ErrorCode.transactional_id_authorization_failed, -1, -1
        elif request.producer_id >= 0 and 0 <= request.producer_epoch < 2**15 - 2:
            code, producer, epoch = ErrorCode.none, request.producer_id, request.producer_epoch + 1
        else:
            code, producer, epoch = ErrorCode.none, self._node.producer_ids.take(), 0
        return InitProducerIdResponse(
            throttle_time=NOTHING, error_code=code, producer_id=producer, producer_epoch=epoch
        )


def _told(part: _Stored, error: BrokerError | None) -> produce_response.PartitionProduceResponse:
    if error is not None:
        return produce_response.PartitionProduceResponse(
            index=part.partition,
            error_code=error.code,
            base_offset=-1,
            record_errors=(),
            error_message=str(error),
        )
    stamp = None if part.append_time < 0 else datetime.fromtimestamp(part.append_time / 1000, UTC)
    return produce_response.PartitionProduceResponse(
        index=part.partition,
        error_code=ErrorCode.none,
        base_offset=part.base_offset,
        log_append_time=stamp,
        log_start_offset=part.log_start,
        record_errors=(),
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A partition in a Fetch; `topic` is a name or an id, as the client gave it."""

    topic: Any
    find: Callable[[Any], Topic]
    partition: int
    offset: int
    max_bytes: int
    epoch: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What a Fetch says of a partition."""

    wanted: _Wanted
    log: PartitionLog | None
    error: ErrorCode
    records: bytes = b""


def _read_all(wanted: Sequence[_Wanted], budget: int) -> list[_Found]:
    """One look at every partition; the first that has records gives one batch at least, however large."""
    found: list[_Found] = []
    for part in wanted:
        log = None
        try:
            log = part.find(part.topic).log(part.partition)
            _check_epoch(part.epoch)
            records = log.read(part.offset, min(part.max_bytes, budget), minimum_one=not any(f.records for f in found))
        except BrokerError as error:
            found.append(_Found(part, log, error.code))
            continue
        budget = max(0, budget - len(records))
        found.append(_Found(part, log, ErrorCode.none, records))
    return found


def _partition_data(part: _Found, data: Callable[..., Any]) -> Any:
    high = -1 if part.log is None else part.log.high_watermark
    return data(
        partition_index=part.wanted.partition,
        error_code=part.error,
        high_watermark=high,
        last_stable_offset=high,
        log_start_offset=-1 if part.log is None else part.log.log_start,
        aborted_transactions=None,
        records=part.records,
    )


async def _changed(logs: Sequence[PartitionLog], seconds: float) -> bool:
    """True when one of the logs has something new, False after so many seconds."""
    loop = asyncio.get_running_loop()
    changed: asyncio.Future[bool] = loop.create_future()

    def settle(new: bool = True) -> None:
        if not changed.done():
            changed.set_result(new)

    timer = loop.call_later(seconds, settle, False)
    for log in logs:
        log.subscribe(settle)
    try:
        return await changed
    finally:
        timer.cancel()
        for log in logs:
            log.unsubscribe(settle)


def _offset_at(log: PartitionLog, timestamp: int) -> tuple[int, int]:
    if timestamp == LATEST:
        return log.high_watermark, -1
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return log.log_start, -1
    found = log.max_timestamp() if timestamp == MAX_TIMESTAMP else log.offset_at(timestamp)
    return (-1, -1) if found is None else found


def _check_epoch(epoch: int) -> None:
    if epoch > LEADER_EPOCH:
        raise BrokerError(ErrorCode.unknown_leader_epoch, f"there was no leader epoch {epoch} yet")
