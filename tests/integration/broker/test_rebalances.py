"""Groups that grow, shrink, and lose a member that says nothing."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewPartitions

from tests.integration.broker.kit import PATIENCE, SESSION_MS, Kit, partitions_of, unique

MEMBER = """
import sys, time
from confluent_kafka import Consumer
from confluent_kafka.admin import NewPartitions
bootstrap, group, topic, session = sys.argv[1:]
member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "session.timeout.ms": int(session),
                   "heartbeat.interval.ms": 200, "log_level": 0})
member.subscribe([topic])
while True:
    member.poll(0.1)
"""


class Members:
    """The consumers of one group in one thread, and which records they have seen."""

    def __init__(self, kit: Kit, topic: str, **config: object) -> None:
        self.kit, self.topic, self.config, self.group = kit, topic, config, unique("group")
        self.seen: set[tuple[int, int]] = set()
        self.live: list[Consumer] = []
        self.closing: list[Callable[..., object]] = []

    def join(self, **more: object) -> Consumer:
        opened = self.kit.consumer(self.group, **(self.config | more))
        consumer = opened.__enter__()
        self.closing.append(opened.__exit__)
        consumer.subscribe([self.topic])
        self.live.append(consumer)
        return consumer

    def leave(self, consumer: Consumer) -> None:
        self.live.remove(consumer)
        consumer.close()

    def poll(self) -> None:
        for consumer in self.live:
            message = consumer.poll(0.02)
            if message is not None and message.error() is None:
                self.seen.add((message.partition() or 0, message.offset() or 0))

    def poll_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}; now {self.shares()}"
            self.poll()

    def shares(self) -> list[list[int]]:
        return [partitions_of(consumer) for consumer in self.live]

    def settle(self, *sizes: int) -> None:
        """Poll until all six partitions are shared in parts of these sizes, none of them twice."""

        def settled() -> bool:
            shares = self.shares()
            return sorted(map(len, shares)) == sorted(sizes) and sorted(p for s in shares for p in s) == list(range(6))

        self.poll_until(settled, f"the shares are {sizes}")

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_: object) -> None:
        for close in self.closing:
            close(None, None, None)


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "cooperative-sticky"])
def test_partitions_are_shared_anew_as_members_come_and_go(kit: Kit, assignor: str) -> None:
    topic = kit.topic(6)
    places = set(kit.send_records(topic, [{"value": b"%d" % n, "partition": n % 6} for n in range(60)]))
    with Members(kit, topic, partition_assignment_strategy=assignor) as members:
        first = members.join()
        members.settle(6)
        members.join()
        members.settle(3, 3)
        members.join()
        members.settle(2, 2, 2)
        members.leave(first)
        members.settle(3, 3)
        members.poll_until(lambda: members.seen == places, "every record was seen")


def test_a_cooperative_rebalance_leaves_what_stays_in_place(kit: Kit) -> None:
    topic = kit.topic(6)
    with Members(kit, topic, partition_assignment_strategy="cooperative-sticky") as members:
        first = members.join()
        members.settle(6)
        kept = list(partitions_of(first))

        def never_empty() -> bool:
            assert len(partitions_of(first)) >= 3
            return len(members.live) == 2 and sorted(map(len, members.shares())) == [3, 3]

        members.join()
        members.poll_until(never_empty, "the second member has its half")
        assert set(partitions_of(first)) < set(kept)


def test_two_subscriptions_in_one_group_are_served_each_with_its_own(kit: Kit) -> None:
    left, right = kit.topic(2), kit.topic(2)
    with Members(kit, left) as members:
        first = members.join()
        members.topic = right
        second = members.join()
        members.poll_until(
            lambda: [{p.topic for p in c.assignment()} for c in (first, second)] == [{left}, {right}],
            "each has its own topic",
        )


def test_a_member_that_dies_in_silence_is_evicted_after_its_session(kit: Kit) -> None:
    topic = kit.topic(6)
    with Members(kit, topic) as members:
        command = [sys.executable, "-c", MEMBER, kit.bootstrap, members.group, topic, str(SESSION_MS)]
        dying = subprocess.Popen(command)
        try:
            members.join()
            members.poll_until(lambda: [len(s) for s in members.shares()] == [3], "the other process has its half")
        finally:
            dying.kill()
            dying.wait()
        died = time.monotonic()
        members.settle(6)
        # The session runs from the last heartbeat, which is up to 0.2 s old; then one rebalance.
        assert time.monotonic() - died >= SESSION_MS / 1000 - 0.4


def test_a_member_that_leaves_is_replaced_without_waiting_for_its_session(kit: Kit) -> None:
    topic = kit.topic(6)
    with Members(kit, topic, session_timeout_ms=250_000, heartbeat_interval_ms=200) as members:
        first = members.join()
        members.join()
        members.settle(3, 3)
        members.leave(first)
        members.settle(6)


def test_partitions_added_to_a_topic_are_given_to_its_group(kit: Kit) -> None:
    topic = kit.topic(2)
    with Members(kit, topic) as members:
        members.join()
        members.poll_until(lambda: members.shares() == [[0, 1]], "both are assigned")
        kit.admin.create_partitions([NewPartitions(topic, 6)])[topic].result(10)
        members.settle(6)


def test_members_without_a_common_assignor_cannot_meet(kit: Kit) -> None:
    topic = kit.topic(6)
    with Members(kit, topic, partition_assignment_strategy="range") as members:
        members.join()
        members.settle(6)
        errors: list[str] = []
        with kit.consumer(members.group, partition_assignment_strategy="roundrobin") as odd:
            odd.subscribe([topic])

            def told() -> bool:
                message = odd.poll(0.05)
                error = message.error() if message is not None else None
                if error is not None:
                    errors.append(error.name())
                return bool(errors)

            members.poll_until(told, "the odd one is told")
        assert errors[0] == "INCONSISTENT_GROUP_PROTOCOL"
        members.settle(6)
