"""Whatever bytes come, the broker lives, and only the connection that sent them may end.

THUMBWHEEL_TEST_FUZZ_FRAMES=100000 makes it the long one, THUMBWHEEL_TEST_FUZZ_SEED=N another one.
"""

import asyncio
import contextlib
import os
import random
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from tests.integration.broker.bad_bytes import Offered, corpus, damaged, noise
from tests.integration.broker.kit import BrokerProcess, Kit, until
from tests.integration.broker.wire import Wire, batch, fetch, frame, produce, request

FRAMES = int(os.environ.get("THUMBWHEEL_TEST_FUZZ_FRAMES", "3000"))
SEED = int(os.environ.get("THUMBWHEEL_TEST_FUZZ_SEED", "1"))
AT_ONCE = 40
MEGABYTE = 1 << 20
pytestmark = pytest.mark.timeout(120 + FRAMES // 10)


@dataclass
class Neighbour:
    """A producer and a consumer on connections of their own, who must not notice anything."""

    kit: Kit
    topic: str
    stop: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    acknowledged: int = 0
    read: list[int] = field(default_factory=list[int])
    errors: list[str] = field(default_factory=list[str])

    def run(self) -> None:
        def noticed(error: object) -> None:
            self.errors.append(str(error))

        def delivered(error: object, _: object) -> None:
            self.acknowledged += error is None

        producer = self.kit.producer(enable_idempotence=True, linger_ms=0, error_cb=noticed)
        with self.kit.consumer(error_cb=noticed) as consumer:
            consumer.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
            while not self.stop.is_set() or (len(self.read) < self.sent and not self.errors):
                if not self.stop.is_set():
                    producer.produce(self.topic, b"%d" % self.sent, on_delivery=delivered)
                    self.sent += 1
                producer.poll(0)
                message = consumer.poll(0.01)
                if message is not None and message.error() is None:
                    self.read.append(int(message.value() or b""))
            assert producer.flush(20) == 0


@pytest.fixture
def neighbour(kit: Kit) -> Iterator[Neighbour]:
    """Runs beside the test, and tells in the end whether it was disturbed."""
    beside = Neighbour(kit, kit.topic())
    thread = threading.Thread(target=beside.run)
    thread.start()
    until(lambda: len(beside.read) > 3, "the neighbour is at work")
    yield beside
    beside.stop.set()
    thread.join(30)
    assert beside.errors == []
    assert beside.read == list(range(beside.sent))
    assert beside.acknowledged == beside.sent


def still_answers(server: BrokerProcess) -> bool:
    with Wire(server.port) as wire:
        return bool(wire.call(request(18, 0)).error_code.name == "none")


async def throw(port: int, data: bytes, outcomes: Counter[str], *, hang_up: bool) -> None:
    """One connection: these bytes, and whatever comes back; `hang_up` ends our side at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if hang_up:
            writer.write_eof()
        # Half a frame, a join and a long-poll may wait; when the client has hung up nothing may.
        answer = await asyncio.wait_for(reader.read(MEGABYTE), 5 if hang_up else 0.1)
        outcomes["answered" if answer else "closed"] += 1
    except TimeoutError:
        outcomes["stuck" if hang_up else "waits"] += 1
    except ConnectionError:
        outcomes["closed"] += 1
    finally:
        writer.transport.abort()


async def throw_all(port: int, frames: Iterator[bytes]) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    async def worker() -> None:
        for number, data in enumerate(frames):
            await throw(port, data, outcomes, hang_up=number % 4 == 0)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return outcomes


def offered_by(server: BrokerProcess) -> Offered:
    with Wire(server.port) as wire:
        answer = wire.call(request(18, 0))
    return {api.api_key: range(api.min_version, api.max_version + 1) for api in answer.api_keys}


def bad_frames(count: int, offered: Offered, luck: random.Random) -> Iterator[bytes]:
    good = corpus(min(1_500, count), offered, luck)
    yield from good
    for number in range(count - len(good)):
        yield noise(luck) if number % 10 == 0 else damaged(luck.choice(good), luck.choice(good), luck)


def test_thousands_of_mutated_frames_disturb_nobody(server: BrokerProcess, neighbour: Neighbour) -> None:
    luck, offered = random.Random(SEED), offered_by(server)
    asyncio.run(throw_all(server.port, bad_frames(600, offered, luck)))  # what a first use costs is no growth
    memory, descriptors = server.resident_bytes, server.descriptors
    logged = server.log_file.stat().st_size
    outcomes = asyncio.run(throw_all(server.port, bad_frames(FRAMES, offered, luck)))
    assert server.alive, server.log_tail()
    assert still_answers(server)
    assert (outcomes.total(), outcomes["stuck"]) == (FRAMES, 0), outcomes
    assert outcomes["closed"] > FRAMES / 10, outcomes
    assert outcomes["answered"] > FRAMES / 10, outcomes
    # Topics and groups that the valid ones among them made stay, and are not many.
    assert server.resident_bytes - memory < (48 + FRAMES / 2_000) * MEGABYTE, (memory, server.resident_bytes)
    # A partition keeps its last segment open, and some were created.
    until(lambda: server.descriptors < descriptors + 400, "the connections are given back")
    assert b"Traceback" not in server.log_file.read_bytes()[logged:]


def test_clients_that_ask_and_are_gone_leave_nothing_behind(server: BrokerProcess) -> None:
    before = server.descriptors
    for _ in range(200):
        with Wire(server.port) as wire:
            wire.send(request(18, 0))
            wire.socket.shutdown(socket.SHUT_WR)
    until(lambda: server.descriptors < before + 10, "the connections are given back", patience=10)


@pytest.mark.parametrize(
    "start",
    [
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", 1 << 30) + b"\0\x12\0\0",
        struct.pack(">i", -1),
        struct.pack(">i", -(2**31)),
        struct.pack(">i", 0),
        struct.pack(">i", 3) + b"\0\x12\0",
        struct.pack(">i", 8) + b"\xff" * 8,
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    ],
    ids=["2GiB", "1GiB", "minus-one", "least", "empty", "three-bytes", "unknown-api", "http", "tls"],
)
def test_what_can_be_no_request_ends_its_connection_at_once(
    server: BrokerProcess, neighbour: Neighbour, start: bytes
) -> None:
    memory = server.resident_bytes
    with Wire(server.port) as wire:
        wire.socket.sendall(start)
        assert wire.closes_within(5)
    assert server.resident_bytes - memory < 16 * MEGABYTE
    assert still_answers(server)


def test_every_cut_of_a_request_ends_its_connection_only(server: BrokerProcess, kit: Kit) -> None:
    whole = frame(produce(kit.topic(), batch(b"payload")))
    for length in range(1, len(whole) - 4):
        with Wire(server.port) as wire:
            wire.socket.sendall(struct.pack(">i", length) + whole[4 : 4 + length])
            assert wire.closes_within(5), f"cut to {length} bytes"
    assert still_answers(server)


def test_a_count_of_billions_costs_no_memory(server: BrokerProcess) -> None:
    """A metadata request whose array says that it has two billion topics."""
    memory = server.resident_bytes
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 2**31 - 1) + b"\0\1a" * 10
    with Wire(server.port) as wire:
        wire.socket.sendall(struct.pack(">i", len(body)) + body)
        assert wire.closes_within(5)
    assert server.resident_bytes - memory < 16 * MEGABYTE


def test_half_a_frame_keeps_nobody_waiting(server: BrokerProcess, neighbour: Neighbour) -> None:
    memory = server.resident_bytes
    with contextlib.ExitStack() as open_ones:
        for _ in range(100):
            wire = open_ones.enter_context(Wire(server.port))
            wire.socket.sendall(struct.pack(">i", MEGABYTE) + b"\0\0\0\x08")
        assert still_answers(server)
        time.sleep(0.5)
        assert server.resident_bytes - memory < 32 * MEGABYTE
    assert still_answers(server)


def test_a_client_that_sends_byte_by_byte_is_answered(server: BrokerProcess, neighbour: Neighbour) -> None:
    with Wire(server.port) as wire:
        asked = request(18, 0)
        for byte in frame(asked, 5):
            wire.socket.sendall(bytes([byte]))
            time.sleep(0.01)
        assert wire.receive(type(asked))[0] == 5


def test_a_client_that_never_reads_costs_only_itself(server: BrokerProcess, kit: Kit, neighbour: Neighbour) -> None:
    topic = kit.topic()
    kit.send(topic, *[os.urandom(100_000) for _ in range(20)], message_max_bytes=2_000_000)
    memory = server.resident_bytes
    with Wire(server.port, patience=0.5) as greedy:
        greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        asked = fetch(topic, 0, max_bytes=2 * MEGABYTE, partition_bytes=2 * MEGABYTE)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(2_000):  # 4 GB, were they all answered
                greedy.send(asked)
        time.sleep(1)
        assert server.resident_bytes - memory < 64 * MEGABYTE
        assert still_answers(server)


def test_a_thousand_connections_at_once_are_all_answered(server: BrokerProcess, neighbour: Neighbour) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_500:
        pytest.skip("this machine allows a process fewer than 1,500 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_500), hard))
    before = server.descriptors
    asked = request(18, 0)
    with contextlib.ExitStack() as open_ones:
        wires = [open_ones.enter_context(Wire(server.port)) for _ in range(1_000)]
        for wire in wires:
            wire.send(asked)
        assert [wire.receive(type(asked))[0] for wire in wires] == [1] * 1_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: server.descriptors < before + 50, "the connections are given back")


def test_a_client_that_is_gone_before_its_answer_disturbs_nobody(server: BrokerProcess, neighbour: Neighbour) -> None:
    topic, logged = neighbour.kit.topic(), server.log_file.stat().st_size
    for _ in range(200):
        with Wire(server.port) as wire:
            linger = struct.pack("ii", 1, 0)  # the close is a reset
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            wire.send(fetch(topic, 0, wait_ms=2_000))
            wire.send(produce(topic, batch(b"x")))
    assert still_answers(server)
    assert b"Traceback" not in server.log_file.read_bytes()[logged:]
