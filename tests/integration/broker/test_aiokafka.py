"""The same broker through a second, independent client: aiokafka, which is what Faust uses."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.integration.broker.kit import PATIENCE, SESSION_MS, BrokerProcess, unique


@pytest.fixture
async def admin(server: BrokerProcess) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap, request_timeout_ms=8_000)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def topic(admin: AIOKafkaAdminClient) -> str:
    """A topic of three partitions."""
    return await make(admin, 3)


async def make(admin: AIOKafkaAdminClient, partitions: int) -> str:
    name = unique("aio")
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"retention.ms": "100000"})])
    return name


def member(server: BrokerProcess, topic: str, group: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=200,
        metadata_max_age_ms=2_000,
    )


async def send(server: BrokerProcess, topic: str, values: list[bytes], partitions: int, **config: object) -> None:
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap, acks="all", linger_ms=5, **config) as producer:
        sent = [await producer.send(topic, v, key=v, partition=n % partitions) for n, v in enumerate(values)]
        await asyncio.gather(*sent)


async def test_a_topic_is_created_listed_and_described(admin: AIOKafkaAdminClient, topic: str) -> None:
    assert topic in await admin.list_topics()
    (described,) = await admin.describe_topics([topic])
    assert len(described["partitions"]) == 3


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_records_arrive_once_and_in_order(server: BrokerProcess, topic: str, codec: str | None) -> None:
    values = [b"%d" % n for n in range(200)]
    await send(server, topic, values, 3, enable_idempotence=True, compression_type=codec)
    places = [TopicPartition(topic, p) for p in range(3)]
    found: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    async with AIOKafkaConsumer(bootstrap_servers=server.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning()
        deadline = time.monotonic() + PATIENCE
        while sum(map(len, found.values())) < 200 and time.monotonic() < deadline:
            for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                found[place.partition] += [m.value for m in messages]
    assert found == {p: values[p::3] for p in range(3)}


async def test_two_members_share_a_topic_and_their_commits_are_kept(
    server: BrokerProcess, admin: AIOKafkaAdminClient
) -> None:
    topic, group = await make(admin, 6), unique("group")
    await send(server, topic, [b"%d" % n for n in range(60)], 6)
    seen: set[tuple[int, int]] = set()
    async with member(server, topic, group) as first, member(server, topic, group) as second:

        def shared() -> bool:
            return len(first.assignment()) == len(second.assignment()) == 3

        deadline = time.monotonic() + PATIENCE
        while not (shared() and len(seen) == 60):
            assert time.monotonic() < deadline, (first.assignment(), second.assignment(), len(seen))
            for consumer in (first, second):
                for messages in (await consumer.getmany(timeout_ms=100)).values():
                    seen |= {(m.partition, m.offset) for m in messages}
        await first.commit()
        await second.commit()
    async with member(server, topic, group) as last:
        assert await last.getmany(timeout_ms=800) == {}
        assert [await last.committed(TopicPartition(topic, p)) for p in range(6)] == [10] * 6


async def test_offsets_are_found_by_time_and_at_both_ends(server: BrokerProcess, topic: str) -> None:
    await send(server, topic, [b"x"] * 6, 3)
    place = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=server.bootstrap) as consumer:
        found = (await consumer.offsets_for_times({place: 1}))[place]
        assert found is not None and found.offset == 0
        later = int((time.time() + 3_600) * 1_000)
        assert (await consumer.offsets_for_times({place: later}))[place] is None
        assert (await consumer.beginning_offsets([place]), await consumer.end_offsets([place])) == (
            {place: 0},
            {place: 2},
        )


async def test_groups_are_listed(server: BrokerProcess, admin: AIOKafkaAdminClient, topic: str) -> None:
    group = unique("group")
    async with member(server, topic, group) as consumer:
        await consumer.getmany(timeout_ms=300)
        assert group in {listed[0] for listed in await admin.list_consumer_groups()}


async def test_a_transaction_is_refused_and_soon(server: BrokerProcess) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap, transactional_id=unique("tx"))
    began = time.monotonic()
    with pytest.raises((KafkaError, TimeoutError)) as refused:
        await asyncio.wait_for(producer.start(), 20)
    assert not isinstance(refused.value, TimeoutError), "it waited in vain instead of being told"
    assert time.monotonic() - began < 15
    await producer.stop()
