"""The protocol by hand: frames built and read by `kio`, for what no client library can be made to send."""

import importlib
import io
import socket
import struct
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from crc32c import crc32c
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

PATIENCE = 20.0


class Wire:
    """One connection that speaks frames."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self.next_id = 0

    def send(self, request: Any) -> int:
        """Send a request and don't wait; gives its correlation id."""
        self.next_id += 1
        self.socket.sendall(frame(request, self.next_id))
        return self.next_id

    def receive(self, request_type: Any) -> tuple[int, Any]:
        """The next answer, which must be one to that type of request."""
        return read_response(self.read_frame(), request_type)

    def call(self, request: Any) -> Any:
        sent = self.send(request)
        answered, response = self.receive(type(request))
        assert answered == sent
        return response

    def read_frame(self) -> bytes:
        """Raises `ConnectionError` where the broker closed the connection instead."""
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

    def closes_within(self, seconds: float) -> bool:
        """Whether the broker ends the connection, whatever it says before."""
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65_536):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return False

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionError("the broker closed the connection")
            parts += part
        return bytes(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def request(api_key: int, version: int, /, **fields: Any) -> Any:
    return load_request_schema(api_key, version)(**fields)


def part(api_key: int, version: int, kind: str, /, **fields: Any) -> Any:
    """A structure nested in a request, by its name in the protocol."""
    module = importlib.import_module(load_request_schema(api_key, version).__module__)
    return getattr(module, kind)(**fields)


def frame(body: Any, correlation_id: int = 1, client_id: str | None = "by-hand") -> bytes:
    """A request with its header and length."""
    kind = type(body)
    header = kind.__header_schema__(
        request_api_key=kind.__api_key__,
        request_api_version=kind.__version__,
        correlation_id=correlation_id,
        client_id=client_id,
    )
    out = io.BytesIO()
    entity_writer(type(header))(out, header)
    entity_writer(kind)(out, body)
    return struct.pack(">i", out.tell()) + out.getvalue()


def read_response(data: bytes, request_type: Any) -> tuple[int, Any]:
    response_type = load_response_schema(request_type.__api_key__, request_type.__version__)
    header, used = entity_reader(response_type.__header_schema__)(data, 0)
    response, size = entity_reader(response_type)(data, used)
    assert used + size == len(data), "bytes follow the answer"
    return cast(Any, header).correlation_id, response


def milliseconds(number: int) -> timedelta:
    return timedelta(milliseconds=number)


def batch(
    *values: bytes,
    producer: tuple[int, int, int] = (-1, -1, -1),
    attributes: int = 0,
    timestamp: int | None = None,
    magic: int = 2,
) -> bytes:
    """A batch of records without keys, byte by byte; `producer` is its id, epoch and first sequence."""
    now = int(datetime.now(UTC).timestamp() * 1000) if timestamp is None else timestamp
    records = b"".join(_record(delta, value) for delta, value in enumerate(values))
    checked = struct.pack(">hiqqqhii", attributes, len(values) - 1, now, now, *producer, len(values)) + records
    return struct.pack(">qiibI", 0, 9 + len(checked), -1, magic, crc32c(checked)) + checked


def _record(delta: int, value: bytes) -> bytes:
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def varint(number: int) -> bytes:
    """Zig-zag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 31)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out + bytes([rest]))


def produce(topic: str, records: bytes, *, partition: int = 0, acks: int = -1, version: int = 8) -> Any:
    data = part(0, version, "PartitionProduceData", index=partition, records=records)
    topics = (part(0, version, "TopicProduceData", name=topic, partition_data=(data,)),)
    return request(0, version, transactional_id=None, acks=acks, timeout=milliseconds(10_000), topic_data=topics)


def produced(response: Any) -> tuple[str, int]:
    """The error and the base offset of a request with one partition."""
    (topic,) = response.responses
    (answer,) = topic.partition_responses
    return answer.error_code.name, answer.base_offset


def producer_id(wire: Wire) -> int:
    """A new id for an idempotent producer."""
    answer = wire.call(request(22, 1, transactional_id=None, transaction_timeout=milliseconds(60_000)))
    assert answer.error_code.name == "none"
    return int(answer.producer_id)


def fetch(
    topic: str,
    offset: int,
    *,
    partition: int = 0,
    wait_ms: int = 500,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    partition_bytes: int = 1 << 20,
) -> Any:
    """A fetch without a session, of version 11."""
    place = part(
        1, 11, "FetchPartition",
        partition=partition, current_leader_epoch=-1, fetch_offset=offset, log_start_offset=-1,
        partition_max_bytes=partition_bytes,
    )  # fmt: skip
    return request(
        1, 11,
        replica_id=-1, max_wait=milliseconds(wait_ms), min_bytes=min_bytes, max_bytes=max_bytes, isolation_level=0,
        session_id=0, session_epoch=-1, topics=(part(1, 11, "FetchTopic", topic=topic, partitions=(place,)),),
        forgotten_topics_data=(), rack_id="",
    )  # fmt: skip


def fetched(response: Any) -> tuple[str, bytes, int]:
    """The error, the records and the high watermark of a request with one partition."""
    (topic,) = response.responses
    (answer,) = topic.partitions
    return answer.error_code.name, answer.records or b"", answer.high_watermark
