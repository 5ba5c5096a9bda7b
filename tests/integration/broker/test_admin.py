"""Topics and their settings, through the admin client of librdkafka."""

import pytest
from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.integration.broker.kit import Kit, refusal, unique, until


def settings_of(kit: Kit, topic: str) -> dict[str, str | None]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = kit.admin.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in entries.items()}


def change(kit: Kit, topic: str, name: str, value: str | None, how: AlterConfigOpType) -> None:
    entry = ConfigEntry(name, value, incremental_operation=how)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    kit.admin.incremental_alter_configs([resource])[resource].result(10)


def create(kit: Kit, name: str, partitions: int = 1, replicas: int = 1, **config: str) -> None:
    kit.admin.create_topics([NewTopic(name, partitions, replicas, config=config)])[name].result(10)


def partitions_in_metadata(kit: Kit, topic: str) -> int:
    return len(kit.admin.list_topics(timeout=8).topics[topic].partitions)


def test_a_new_topic_has_its_partitions_and_its_settings(kit: Kit) -> None:
    topic = kit.topic(6, cleanup_policy="compact", retention_ms="12345")
    assert partitions_in_metadata(kit, topic) == 6
    found = settings_of(kit, topic)
    assert (found["cleanup.policy"], found["retention.ms"]) == ("compact", "12345")


def test_a_topic_without_settings_has_the_defaults_of_kafka(kit: Kit) -> None:
    found = settings_of(kit, kit.topic())
    assert (found["cleanup.policy"], found["message.timestamp.type"]) == ("delete", "CreateTime")
    assert found["max.message.bytes"] in ("1048588", "1000012")  # Kafka's for a topic, and for a broker before 2.5


def test_a_topic_cannot_be_created_twice(kit: Kit) -> None:
    topic = kit.topic()
    assert refusal(lambda: create(kit, topic)) == "TOPIC_ALREADY_EXISTS"


@pytest.mark.parametrize("name", ["bad name!*", "..", "", "x" * 250], ids=["space", "dots", "empty", "long"])
def test_a_name_that_could_not_be_a_folder_is_refused(kit: Kit, name: str) -> None:
    with pytest.raises(KafkaException) as refused:
        create(kit, name)
    assert refused.value.args[0].name() in ("TOPIC_EXCEPTION", "_INVALID_ARG")


@pytest.mark.parametrize(
    ("setting", "value"), [("cleanup.policy", "bogus"), ("retention.ms", "soon"), ("max.message.bytes", "-5")]
)
def test_a_setting_that_makes_no_sense_is_refused(kit: Kit, setting: str, value: str) -> None:
    topic = unique("never")
    assert refusal(lambda: create(kit, topic, **{setting: value})) == "INVALID_CONFIG"
    assert topic not in kit.admin.list_topics(timeout=8).topics


def test_three_replicas_are_refused_by_one_broker(kit: Kit) -> None:
    assert refusal(lambda: create(kit, unique("never"), replicas=3)) == "INVALID_REPLICATION_FACTOR"


def test_a_topic_is_described_with_its_leader(kit: Kit) -> None:
    topic = kit.topic(3)
    described = kit.admin.describe_topics(TopicCollection([topic]))[topic].result(10)
    brokers = list(kit.admin.list_topics(timeout=8).brokers)
    assert [p.id for p in described.partitions] == [0, 1, 2]
    assert [p.leader.id for p in described.partitions] == brokers * 3


def test_the_cluster_is_one_node_that_controls_itself(kit: Kit) -> None:
    described = kit.admin.describe_cluster().result(10)
    assert described.cluster_id
    assert [node.id for node in described.nodes] == [described.controller.id]


def test_the_brokers_own_settings_can_be_read(kit: Kit) -> None:
    broker = next(iter(kit.admin.list_topics(timeout=8).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    assert len(kit.admin.describe_configs([resource])[resource].result(10)) > 0


def test_one_setting_is_set_and_taken_back_while_the_others_stay(kit: Kit) -> None:
    topic = kit.topic(cleanup_policy="compact", retention_ms="12345")
    change(kit, topic, "retention.ms", "54321", AlterConfigOpType.SET)
    found = settings_of(kit, topic)
    assert (found["cleanup.policy"], found["retention.ms"]) == ("compact", "54321")
    change(kit, topic, "retention.ms", None, AlterConfigOpType.DELETE)
    assert settings_of(kit, topic).get("retention.ms") == "604800000"  # seven days, the default


def test_a_bad_value_leaves_a_setting_as_it_was(kit: Kit) -> None:
    topic = kit.topic(retention_ms="12345")
    assert refusal(lambda: change(kit, topic, "retention.ms", "soon", AlterConfigOpType.SET)) == "INVALID_CONFIG"
    assert settings_of(kit, topic)["retention.ms"] == "12345"


@pytest.mark.filterwarnings("ignore:alter_configs has been deprecated:DeprecationWarning")
def test_the_older_way_of_altering_replaces_all_settings(kit: Kit) -> None:
    topic = kit.topic(cleanup_policy="compact", retention_ms="12345")
    resource = ConfigResource(ResourceType.TOPIC, topic, set_config={"retention.ms": "777"})
    kit.admin.alter_configs([resource])[resource].result(10)
    found = settings_of(kit, topic)
    assert (found["retention.ms"], found["cleanup.policy"]) == ("777", "delete")


def test_partitions_can_be_added_but_not_taken_away(kit: Kit) -> None:
    topic = kit.topic(6)
    kit.admin.create_partitions([NewPartitions(topic, 9)])[topic].result(10)
    assert partitions_in_metadata(kit, topic) == 9
    assert kit.send_records(topic, [{"value": b"x", "partition": 8}]) == [(8, 0)]
    fewer = [NewPartitions(topic, 3)]
    assert refusal(lambda: kit.admin.create_partitions(fewer)[topic].result(10)) == "INVALID_PARTITIONS"


def test_records_before_an_offset_are_deleted(kit: Kit) -> None:
    topic = kit.topic()
    kit.send(topic, *[b"%d" % n for n in range(10)])
    place = TopicPartition(topic, 0, 4)
    assert kit.admin.delete_records([place])[place].result(10).low_watermark == 4
    assert kit.watermarks(topic) == (4, 10)
    assert [m.value() for m in kit.read_all(topic)] == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_records_beyond_the_end_cannot_be_deleted(kit: Kit) -> None:
    topic = kit.topic()
    kit.send(topic, b"one")
    place = TopicPartition(topic, 0, 7)
    assert refusal(lambda: kit.admin.delete_records([place])[place].result(10)) == "OFFSET_OUT_OF_RANGE"
    assert kit.watermarks(topic) == (0, 1)


def test_a_deleted_topic_is_gone_and_cannot_be_deleted_again(kit: Kit) -> None:
    topic = kit.topic()
    kit.admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in kit.admin.list_topics(timeout=8).topics, "the topic is gone")
    assert refusal(lambda: kit.admin.delete_topics([topic])[topic].result(10)) == "UNKNOWN_TOPIC_OR_PART"


def test_a_topic_that_is_created_again_starts_empty(kit: Kit) -> None:
    topic = kit.topic()
    kit.send(topic, *[b"old"] * 5)
    kit.admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in kit.admin.list_topics(timeout=8).topics, "the topic is gone")
    create(kit, topic)
    assert kit.watermarks(topic) == (0, 0)
    assert kit.send(topic, b"new") == [(0, 0)]
    assert [m.value() for m in kit.read_all(topic)] == [b"new"]


def test_a_topic_is_not_created_by_asking_for_it(kit: Kit) -> None:
    topic = unique("never")
    _, errors = kit.try_to_send(topic, [{"value": b"x"}], message_timeout_ms=1_500)
    assert errors in (["_UNKNOWN_TOPIC"], ["UNKNOWN_TOPIC_OR_PART"], ["_MSG_TIMED_OUT"])
    assert topic not in kit.admin.list_topics(timeout=8).topics


def test_access_rules_are_answered_or_said_to_be_disabled(kit: Kit) -> None:
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    try:
        assert kit.admin.describe_acls(everything, request_timeout=4).result(8) == []
    except KafkaException as error:
        assert error.args[0].name() in ("SECURITY_DISABLED", "_UNSUPPORTED_FEATURE")
