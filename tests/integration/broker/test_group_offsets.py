"""Committed offsets, and what an operator can do to a group from outside."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from tests.integration.broker.kit import PATIENCE, SESSION_MS, Kit, partitions_of, read, refusal, unique, until

NEVER = -1001  # what the client says where nothing was committed


@pytest.fixture
def topic(kit: Kit) -> str:
    name = kit.topic()
    kit.send(name, *[b"%d" % n for n in range(20)])
    return name


@pytest.fixture
def group(kit: Kit, topic: str) -> str:
    """A group that has read seven records and gone."""
    name = unique("group")
    with kit.consumer(name) as consumer:
        consumer.subscribe([topic])
        read(consumer, 7)
        consumer.commit(offsets=[TopicPartition(topic, 0, 7, "so far!")], asynchronous=False)
    return name


@pytest.fixture
def member(kit: Kit, topic: str) -> Iterator[tuple[str, Consumer]]:
    """A group with a live member that has the partition, and that member."""
    name = unique("group")
    with kit.consumer(name, client_id="me") as consumer:
        consumer.subscribe([topic])
        read(consumer, 1)
        yield name, consumer


def listed_offsets(kit: Kit, group: str, *places: TopicPartition) -> list[tuple[int, int]]:
    asked = ConsumerGroupTopicPartitions(group, list(places) or None)
    (answer,) = kit.admin.list_consumer_group_offsets([asked]).values()
    return [(place.partition, place.offset) for place in answer.result(10).topic_partitions]


def reset(kit: Kit, group: str, place: TopicPartition) -> None:
    (answer,) = kit.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [place])]).values()
    for changed in answer.result(10).topic_partitions:
        if changed.error is not None:
            raise KafkaException(changed.error)


def state_of(kit: Kit, group: str) -> str:
    return str(kit.admin.describe_consumer_groups([group])[group].result(10).state.name)


def test_the_next_member_begins_where_the_last_one_committed(kit: Kit, topic: str, group: str) -> None:
    with kit.consumer(group) as consumer:
        consumer.subscribe([topic])
        assert read(consumer, 1)[0].offset() == 7


def test_a_commit_carries_a_note(kit: Kit, topic: str, group: str) -> None:
    place = kit.committed(group, topic)
    assert (place.offset, place.metadata) == (7, "so far!")


def test_a_commit_in_the_background_arrives(kit: Kit, topic: str) -> None:
    name = unique("group")
    with kit.consumer(name, enable_auto_commit=True, auto_commit_interval_ms=100) as consumer:
        consumer.subscribe([topic])
        read(consumer, 20)
    assert kit.committed(name, topic).offset == 20


def test_what_was_never_committed_is_told_apart_from_zero(kit: Kit, topic: str) -> None:
    name = unique("group")
    assert kit.committed(name, topic).offset == NEVER
    with kit.consumer(name) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
    assert kit.committed(name, topic).offset == 0


def test_the_lag_of_a_group_can_be_seen_from_outside(kit: Kit, topic: str, group: str) -> None:
    assert listed_offsets(kit, group) == [(0, 7)]
    assert listed_offsets(kit, group, TopicPartition(topic, 0)) == [(0, 7)]
    assert kit.watermarks(topic) == (0, 20)


def test_groups_are_listed_with_those_that_have_no_member(kit: Kit, group: str, member: tuple[str, Consumer]) -> None:
    listed = kit.admin.list_consumer_groups().result(10)
    states = {one.group_id: one.state.name for one in listed.valid}
    assert (states[group], states[member[0]], listed.errors) == ("EMPTY", "STABLE", [])


def test_a_group_is_described_with_its_members_and_their_partitions(
    kit: Kit, topic: str, member: tuple[str, Consumer]
) -> None:
    described = kit.admin.describe_consumer_groups([member[0]])[member[0]].result(10)
    (one,) = described.members
    assert (described.state.name, described.partition_assignor, one.client_id) == ("STABLE", "range", "me")
    assert [(p.topic, p.partition) for p in one.assignment.topic_partitions] == [(topic, 0)]


def test_a_group_without_members_is_described_as_empty_and_an_unknown_one_as_dead(kit: Kit, group: str) -> None:
    assert state_of(kit, group) == "EMPTY"
    try:
        assert state_of(kit, unique("never")) == "DEAD"
    except KafkaException as error:  # as Kafka 4 answers
        assert error.args[0].name() == "GROUP_ID_NOT_FOUND"


def test_an_empty_group_can_be_set_back(kit: Kit, topic: str, group: str) -> None:
    reset(kit, group, TopicPartition(topic, 0, 3))
    assert kit.committed(group, topic).offset == 3
    with kit.consumer(group) as consumer:
        consumer.subscribe([topic])
        assert read(consumer, 1)[0].offset() == 3


def test_a_group_at_work_cannot_be_set_back_from_outside(kit: Kit, topic: str, member: tuple[str, Consumer]) -> None:
    name, consumer = member
    consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    assert refusal(lambda: reset(kit, name, TopicPartition(topic, 0, 0))) in ("UNKNOWN_MEMBER_ID", "NON_EMPTY_GROUP")
    assert kit.committed(name, topic).offset == 1


def test_a_deleted_group_has_forgotten_its_offsets(kit: Kit, topic: str, group: str) -> None:
    kit.admin.delete_consumer_groups([group])[group].result(10)
    assert kit.committed(group, topic).offset == NEVER
    assert group not in {one.group_id for one in kit.admin.list_consumer_groups().result(10).valid}


def test_a_group_at_work_cannot_be_deleted(kit: Kit, member: tuple[str, Consumer]) -> None:
    name, _ = member
    assert refusal(lambda: kit.admin.delete_consumer_groups([name])[name].result(10)) == "NON_EMPTY_GROUP"


def test_an_unknown_group_cannot_be_deleted(kit: Kit) -> None:
    name = unique("never")
    assert refusal(lambda: kit.admin.delete_consumer_groups([name])[name].result(10)) == "GROUP_ID_NOT_FOUND"


def test_the_offsets_of_a_deleted_topic_are_forgotten(kit: Kit, topic: str, group: str) -> None:
    kit.admin.delete_topics([topic])[topic].result(10)
    until(lambda: listed_offsets(kit, group) == [], "nothing is committed any more", patience=5)


def test_a_member_that_slept_through_its_eviction_cannot_commit(kit: Kit) -> None:
    topic, name = kit.topic(2), unique("group")
    kit.send_records(topic, [{"value": b"x", "partition": n % 2} for n in range(10)])
    with kit.consumer(name, max_poll_interval_ms=SESSION_MS + 200) as sleeper:
        sleeper.subscribe([topic])
        (seen,) = read(sleeper, 1)
        time.sleep(SESSION_MS / 1000 + 0.8)
        with kit.consumer(name) as heir:
            heir.subscribe([topic])
            deadline = time.monotonic() + PATIENCE
            while len(partitions_of(heir)) < 2:
                assert time.monotonic() < deadline, "the heir was given nothing"
                heir.poll(0.1)
            refused = refusal(lambda: sleeper.commit(message=seen, asynchronous=False))
    assert refused in ("UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "_STATE", "REBALANCE_IN_PROGRESS")
    assert kit.committed(name, topic, seen.partition() or 0).offset == NEVER
