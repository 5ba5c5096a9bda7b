"""Members with a name of their own (`group.instance.id`): back after a restart without a rebalance, and only once."""

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.integration.broker.kit import PATIENCE, BrokerProcess, Kit, partitions_of, unique

LONG_SESSION = {"session_timeout_ms": 20_000, "heartbeat_interval_ms": 300}


def poll_until(condition: object, *consumers: Consumer, what: str, patience: float = PATIENCE) -> None:
    assert callable(condition)
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        for consumer in consumers:
            consumer.poll(0.05)


def test_a_restarted_member_gets_its_partitions_back_and_nobody_else_notices(kit: Kit) -> None:
    topic, group = kit.topic(6), unique("group")
    rebalances: list[str] = []

    def note_assigned(_: Consumer, places: list[TopicPartition]) -> None:
        rebalances.append(f"assigned {len(places)}")

    def note_revoked(_: Consumer, places: list[TopicPartition]) -> None:
        rebalances.append(f"revoked {len(places)}")

    with kit.consumer(group, group_instance_id="one", **LONG_SESSION) as first:
        first.subscribe([topic], on_assign=note_assigned, on_revoke=note_revoked)
        with kit.consumer(group, group_instance_id="two", **LONG_SESSION) as second:
            second.subscribe([topic])
            poll_until(
                lambda: len(partitions_of(first)) == len(partitions_of(second)) == 3,
                first, second, what="both have their halves",
            )  # fmt: skip
            before, noted = partitions_of(second), len(rebalances)
        with kit.consumer(group, group_instance_id="two", **LONG_SESSION) as again:
            again.subscribe([topic])
            poll_until(lambda: len(partitions_of(again)) == 3, first, again, what="it has its half again")
            for _ in range(20):
                first.poll(0.05)
            assert partitions_of(again) == before
            assert len(rebalances) == noted


def test_a_second_process_with_the_same_name_fences_the_first(kit: Kit) -> None:
    topic, group = kit.topic(2), unique("group")
    errors: list[str] = []
    with kit.consumer(group, group_instance_id="same", error_cb=lambda e: errors.append(e.name())) as first:
        first.subscribe([topic])
        poll_until(lambda: len(partitions_of(first)) == 2, first, what="the first has everything")
        with kit.consumer(group, group_instance_id="same") as second:
            second.subscribe([topic])

            def fenced() -> bool:
                message = first.poll(0.05)
                error = message.error() if message is not None else None
                if error is not None:
                    errors.append(f"{error.name()} {error.str()}")
                return any("fenced" in e.lower() for e in errors)

            poll_until(fenced, second, what="the first is told that it is fenced")
            poll_until(lambda: len(partitions_of(second)) == 2, second, what="the second has everything")


def test_a_fenced_member_cannot_commit(kit: Kit) -> None:
    topic, group = kit.topic(1), unique("group")
    kit.send(topic, b"x")
    with kit.consumer(group, group_instance_id="same", **LONG_SESSION) as first:
        first.subscribe([topic])
        poll_until(lambda: len(partitions_of(first)) == 1, first, what="the first has it")
        with kit.consumer(group, group_instance_id="same", **LONG_SESSION) as second:
            second.subscribe([topic])
            poll_until(lambda: len(partitions_of(second)) == 1, second, what="the second has it")
            second.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
            try:
                first.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
            except KafkaException as error:
                assert "fenced" in str(error).lower() or "unknown member" in str(error).lower(), error
            assert second.committed([TopicPartition(topic, 0)], timeout=8)[0].offset == 1


def test_a_static_member_that_stays_away_is_evicted_after_its_session(kit: Kit) -> None:
    topic, group = kit.topic(4), unique("group")
    with kit.consumer(group, group_instance_id="stays", session_timeout_ms=1_500) as stays:
        stays.subscribe([topic])
        with kit.consumer(group, group_instance_id="goes", session_timeout_ms=1_500) as goes:
            goes.subscribe([topic])
            poll_until(
                lambda: len(partitions_of(stays)) == len(partitions_of(goes)) == 2,
                stays, goes, what="both have their halves",
            )  # fmt: skip
        for _ in range(10):
            stays.poll(0.05)
        assert len(partitions_of(stays)) == 2  # it is waited for
        poll_until(lambda: len(partitions_of(stays)) == 4, stays, what="it has everything")


def test_a_group_survives_the_restart_of_the_broker(server: BrokerProcess, kit: Kit) -> None:
    topic, group = kit.topic(4), unique("group")
    kit.send_records(topic, [{"value": b"%d" % n, "partition": n % 4} for n in range(40)])
    with kit.consumer(group) as first, kit.consumer(group) as second:
        for consumer in (first, second):
            consumer.subscribe([topic])
        halves = lambda: len(partitions_of(first)) == len(partitions_of(second)) == 2  # noqa: E731
        poll_until(halves, first, second, what="both have their halves")
        first.commit(offsets=[TopicPartition(topic, partitions_of(first)[0], 7)], asynchronous=False)
        server.kill()
        server.start()
        kit.send_records(topic, [{"value": b"after", "partition": n % 4} for n in range(4)])
        poll_until(halves, first, second, what="both have their halves again")
        found: list[bytes] = []

        def all_four() -> bool:
            for consumer in (first, second):
                message = consumer.poll(0.05)
                if message is not None and message.error() is None:
                    found.append(message.value() or b"")
            return found.count(b"after") >= 4

        poll_until(all_four, what="what came after the restart was read")
        committed = first.committed([TopicPartition(topic, p) for p in range(4)], timeout=8)
        assert sorted(place.offset for place in committed) == [-1001, -1001, -1001, 7]
