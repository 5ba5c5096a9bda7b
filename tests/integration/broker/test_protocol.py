"""The protocol's own manners: versions, long-polls, limits, several requests under way on one connection."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.integration.broker.kit import BrokerProcess, Kit, unique
from tests.integration.broker.wire import (
    Wire,
    batch,
    fetch,
    fetched,
    frame,
    milliseconds,
    part,
    produce,
    produced,
    read_response,
    request,
)

TRANSACTIONS = {24, 25, 26, 28}
NEW_GROUPS = {68, 69, 76, 77, 78, 79}


@pytest.fixture
def wire(server: BrokerProcess) -> Iterator[Wire]:
    with Wire(server.port) as connection:
        yield connection


def versions_asked_with(version: int) -> object:
    named = {"client_software_name": "by-hand", "client_software_version": "1"} if version >= 3 else {}
    return request(18, version, **named)


def test_what_is_left_out_on_purpose_is_not_offered(wire: Wire) -> None:
    answer = wire.call(versions_asked_with(3))
    offered = {api.api_key for api in answer.api_keys}
    assert {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 22} <= offered
    assert offered & (TRANSACTIONS | NEW_GROUPS) == set()


def test_a_version_of_the_future_is_answered_in_the_oldest_form(wire: Wire) -> None:
    future = bytearray(frame(versions_asked_with(4), 77))
    future[6:8] = (99).to_bytes(2, "big")
    wire.socket.sendall(future)
    answered, response = read_response(wire.read_frame(), type(versions_asked_with(0)))
    assert (answered, response.error_code.name) == (77, "unsupported_version")
    assert 18 in {api.api_key for api in response.api_keys}


def test_a_request_that_is_not_offered_ends_its_connection_only(server: BrokerProcess, wire: Wire) -> None:
    heartbeat = request(
        68, 0,
        group_id="g", member_id="", member_epoch=0, rebalance_timeout=milliseconds(60_000),
        subscribed_topic_names=("t",), topic_partitions=(),
    )  # fmt: skip
    # Kafka closes the connection; an answer that says `unsupported_version` is as clear.
    with Wire(server.port) as other, contextlib.suppress(ConnectionError):
        assert other.call(heartbeat).error_code.name == "unsupported_version"
    assert wire.call(versions_asked_with(0)).error_code.name == "none"


def test_a_fetch_waits_for_the_first_record_and_no_longer(kit: Kit, server: BrokerProcess, wire: Wire) -> None:
    topic = kit.topic()
    asked = fetch(topic, 0, wait_ms=600_000)
    began = time.monotonic()
    wire.send(asked)
    time.sleep(0.3)
    with Wire(server.port) as other:
        assert produced(other.call(produce(topic, batch(b"x")))) == ("none", 0)
    _, answer = wire.receive(type(asked))
    error, records, high_watermark = fetched(answer)
    assert (error, len(records) > 0, high_watermark) == ("none", True, 1)
    assert time.monotonic() - began >= 0.3


def test_a_fetch_with_nothing_to_give_waits_as_long_as_it_was_told(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    began = time.monotonic()
    assert fetched(wire.call(fetch(topic, 0, wait_ms=400)))[:2] == ("none", b"")
    assert time.monotonic() - began >= 0.35


def test_a_fetch_for_more_bytes_than_there_are_waits_too(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    kit.send(topic, b"small")
    began = time.monotonic()
    error, records, _ = fetched(wire.call(fetch(topic, 0, wait_ms=400, min_bytes=100_000)))
    assert (error, len(records) > 0) == ("none", True)
    assert time.monotonic() - began >= 0.35


def test_a_fetch_out_of_range_is_told_at_once(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    kit.send(topic, b"one")
    assert fetched(wire.call(fetch(topic, 2, wait_ms=600_000)))[0] == "offset_out_of_range"
    assert fetched(wire.call(fetch(topic, -5, wait_ms=600_000)))[0] == "offset_out_of_range"


def test_a_fetch_of_what_does_not_exist_is_told_so(kit: Kit, wire: Wire) -> None:
    assert fetched(wire.call(fetch("no-such-topic", 0)))[0] == "unknown_topic_or_partition"
    assert fetched(wire.call(fetch(kit.topic(), 0, partition=9)))[0] == "unknown_topic_or_partition"


def test_a_fetch_stops_at_its_limit_but_gives_at_least_one_batch(kit: Kit, server: BrokerProcess, wire: Wire) -> None:
    topic = kit.topic()
    one = batch(b"x" * 10_000)
    for _ in range(5):
        wire.call(produce(topic, one))
    assert len(fetched(wire.call(fetch(topic, 0, partition_bytes=1)))[1]) >= len(one)
    some = fetched(wire.call(fetch(topic, 0, partition_bytes=2 * len(one) + 50)))[1]
    assert len(one) <= len(some) <= 2 * len(one) + 50


def test_answers_come_in_the_order_of_the_requests(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    asked = [produce(topic, batch(b"%d" % n)) for n in range(200)]
    sent = [wire.send(one) for one in asked]
    answers = [wire.receive(type(asked[0])) for _ in sent]
    assert [number for number, _ in answers] == sent
    assert [produced(answer) for _, answer in answers] == [("none", n) for n in range(200)]


def test_a_produce_without_acknowledgement_gets_no_answer(kit: Kit, wire: Wire) -> None:
    topic = kit.topic()
    wire.send(produce(topic, batch(b"silent"), acks=0))
    asked = versions_asked_with(0)
    sent = wire.send(asked)
    assert wire.receive(type(asked))[0] == sent
    assert [m.value() for m in kit.read_all(topic)] == [b"silent"]


@pytest.mark.parametrize("acks", [2, -2])
def test_acknowledgements_that_do_not_exist_are_refused(kit: Kit, wire: Wire, acks: int) -> None:
    assert produced(wire.call(produce(kit.topic(), batch(b"x"), acks=acks)))[0] == "invalid_required_acks"


@pytest.mark.parametrize("partitions", [2**31 - 1, 0, -2])
def test_a_number_of_partitions_that_cannot_be_is_refused(kit: Kit, wire: Wire, partitions: int) -> None:
    name = unique("never")
    topic = part(
        19, 4, "CreatableTopic",
        name=name, num_partitions=partitions, replication_factor=1, assignments=(), configs=(),
    )  # fmt: skip
    answer = wire.call(request(19, 4, topics=(topic,), timeout=milliseconds(5_000), validate_only=False))
    assert answer.topics[0].error_code.name in ("invalid_partitions", "policy_violation")
    assert name not in kit.admin.list_topics(timeout=8).topics


def test_a_topic_that_is_only_to_be_validated_is_not_created(kit: Kit, wire: Wire) -> None:
    name = unique("never")
    topic = part(19, 4, "CreatableTopic", name=name, num_partitions=2, replication_factor=1, assignments=(), configs=())
    answer = wire.call(request(19, 4, topics=(topic,), timeout=milliseconds(5_000), validate_only=True))
    assert answer.topics[0].error_code.name == "none"
    assert name not in kit.admin.list_topics(timeout=8).topics
