"""SIGKILLs the broker at random moments under load, and proves afterwards that it kept its promises.

    python -m tests.e2e.broker_kill --kills 200 [--seed N] [--keep FOLDER]

    producers ──> broker (killed, started again on the same data and port) ──> a group that commits
    (idempotent and plain)                                                └──> a reader of everything, as it comes

Every record carries its producer and a number that counts up within (producer, partition). Each reader writes down what
it saw at which offset. In the end the whole log is read once more and held against what was acknowledged and seen:

- lost: acknowledged, but no longer in the log, or not at the offset that was acknowledged;
- reordered: within one partition, a record of a producer after a later one of it (or twice, where it is idempotent);
- reused: two different records seen at one (partition, offset), or one seen and no longer there;
- damaged: a value that isn't what was sent;
- backwards: a committed offset lower than one that was acknowledged before;
- refused: a producer was told that its records can never be stored.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.broker_ledger import IDEMPOTENT, PARTITIONS, PLAIN, UNSEEN, Ledger, identity, reckon, value_of
from tests.integration.broker.kit import BrokerProcess, until

TOPIC, GROUP = "kill", "kill-readers"
RECORDS_PER_SECOND = 1_500  # of each producer; the log must stay small enough to be read again
QUICK = {"log_level": 0, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100}


class Load:
    """Producers and consumers, a thread each, until told to stop."""

    def __init__(self, bootstrap: str, ledger: Ledger) -> None:
        self.bootstrap, self.ledger = bootstrap, ledger
        self.broken: set[int] = set()
        self.stop_producing, self.stop_reading = threading.Event(), threading.Event()
        self.producers = [threading.Thread(target=self._produce, args=(n,)) for n in range(IDEMPOTENT + PLAIN)]
        self.readers = [threading.Thread(target=self._commit_as_member) for _ in range(2)]
        self.readers.append(threading.Thread(target=self._read_everything))

    def start(self) -> None:
        for thread in self.producers + self.readers:
            thread.start()

    def finish_producing(self) -> None:
        """Stop, and wait until everything that is under way is acknowledged."""
        self.stop_producing.set()
        for thread in self.producers:
            thread.join()

    def finish(self) -> None:
        self.stop_producing.set()
        self.stop_reading.set()
        for thread in self.producers + self.readers:
            thread.join()

    def _produce(self, who: int) -> None:
        # Without sequences only one request may be under way, or the client's own retries change the order.
        kind = {"enable.idempotence": True} if who < IDEMPOTENT else {"max.in.flight": 1, "acks": 1}
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "acks": "all", "linger.ms": 1, "message.timeout.ms": 0,
            "request.timeout.ms": 5_000, "retry.backoff.ms": 20, "batch.num.messages": 64,
            "error_cb": lambda error: self._noticed(who, error),
        } | QUICK | kind)  # fmt: skip
        numbers = [0] * PARTITIONS
        luck = random.Random(who)
        began, sent = time.monotonic(), 0
        while not self.stop_producing.is_set():
            partition = luck.randrange(PARTITIONS)
            name = identity(who * PARTITIONS + partition, numbers[partition])
            try:
                producer.produce(TOPIC, value_of(name), partition=partition, on_delivery=self._delivered(name))
            except (BufferError, KafkaException) as error:
                if isinstance(error, KafkaException):
                    self.ledger.fault("refused", str(error))
                    return
                producer.poll(0.01)
                continue
            numbers[partition] += 1
            sent += 1
            producer.poll(0)
            if len(producer) > RECORDS_PER_SECOND:  # the broker is down: don't pile up
                producer.poll(0.02)
                began, sent = time.monotonic(), 0
            elif (early := sent / RECORDS_PER_SECOND - (time.monotonic() - began)) > 0.005:
                producer.poll(0.001)
                time.sleep(early)
        if who not in self.broken and (left := producer.flush(60)):
            self.ledger.fault("refused", f"{left} records of producer {who} were not taken within a minute")

    def _delivered(self, name: int) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offset = message.offset()
                self.ledger.acknowledge(message.partition() or 0, UNSEEN if offset is None else offset, name)
            else:
                self.ledger.fault("refused", f"record {name:x}: {error}")

        return note

    def _noticed(self, who: int, error: KafkaError) -> None:
        if error.fatal():
            self.broken.add(who)
            self.ledger.fault("refused", f"producer {who}: {error}")

    def _consumer(self, **more: object) -> Consumer:
        return Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 6_000, "heartbeat.interval.ms": 300,
            "check.crcs": True, **QUICK, **more,
        })  # fmt: skip

    def _read_everything(self) -> None:
        """At the head of every partition, without a group: whatever becomes visible is written down."""
        consumer = self._consumer(**{"group.id": "kill-watcher", "fetch.wait.max.ms": 100})
        consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        while not self.stop_reading.is_set():
            for message in consumer.consume(500, timeout=0.05):
                if message.error() is None:
                    self.ledger.see(message)
        consumer.close()

    def _commit_as_member(self) -> None:
        """Read as a member of the group and commit what was read, about ten times a second."""
        consumer = self._consumer()
        pending: dict[int, int] = {}

        def forget(*_: object) -> None:
            pending.clear()

        consumer.subscribe([TOPIC], on_assign=forget, on_revoke=forget, on_lost=forget)
        due = time.monotonic()
        while not self.stop_reading.is_set():
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                self.ledger.see(message)
                pending[message.partition() or 0] = (message.offset() or 0) + 1
            if pending and time.monotonic() > due:
                self._commit(consumer, dict(pending))
                pending.clear()
                due = time.monotonic() + 0.1
        consumer.close()

    def _commit(self, consumer: Consumer, offsets: dict[int, int]) -> None:
        floors = list(self.ledger.commits)
        wanted = [TopicPartition(TOPIC, p, o) for p, o in offsets.items()]
        try:
            answers = consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException:
            return  # the broker was killed, or the partitions were given to the other member
        for place in answers or []:
            if place.error is None:
                self.ledger.committed(place.partition, place.offset, floor=floors[place.partition])
                with self.ledger.lock:
                    self.ledger.commits_acknowledged += 1


@dataclass(frozen=True)
class Verdict:
    """What came of it; `faults` is empty where every promise was kept."""

    kills: int
    seconds: float
    records_acknowledged: int
    records_stored: int
    commits_acknowledged: int
    slowest_start: float
    faults: dict[str, int]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        names = ("lost", "reordered", "reused", "damaged", "backwards", "refused")
        return json.dumps(vars(self) | {"faults": {name: self.faults.get(name, 0) for name in names}}, indent=2)


def torture(folder: Path, *, kills: int, seed: int = 0) -> Verdict:
    """Load, kills, and the reckoning."""
    began = time.monotonic()
    ledger, luck = Ledger(), random.Random(seed)
    broker = BrokerProcess(folder / "data").start()
    try:
        _create_topic(broker.bootstrap)
        load = Load(broker.bootstrap, ledger)
        load.start()
        try:
            until(lambda: ledger.commits_acknowledged > 10, "records flow")
            slowest = max([_kill_once(broker, ledger, luck) for _ in range(kills)], default=0.0)
            time.sleep(1)
            load.finish_producing()
            _check_commits(broker.bootstrap, ledger)
        finally:
            load.finish()
        stored = reckon(_read_log(broker.bootstrap, ledger), ledger)
    finally:
        broker.stop()
    acknowledged = sum(map(len, ledger.acknowledged))
    seconds = round(time.monotonic() - began, 1)
    faults, examples = dict(ledger.faults), tuple(ledger.examples)
    return Verdict(
        kills, seconds, acknowledged, stored, ledger.commits_acknowledged, round(slowest, 3), faults, examples
    )


def _create_topic(bootstrap: str) -> None:
    # Small segments, so that some kills meet the moment when one is closed and the next begins.
    topic = NewTopic(TOPIC, PARTITIONS, 1, config={"segment.bytes": str(1 << 20)})
    admin = AdminClient({"bootstrap.servers": bootstrap})  # named, because the answer dies with its client
    admin.create_topics([topic])[TOPIC].result(10)


def _kill_once(broker: BrokerProcess, ledger: Ledger, luck: random.Random) -> float:
    """One kill in mid-load, sometimes a second one while it starts; gives the seconds that the start took."""
    time.sleep(luck.uniform(0.05, 1.2))
    broker.kill()
    if luck.random() < 0.2:
        broker.spawn()
        time.sleep(luck.uniform(0.0, 0.4))
        broker.kill()
    began = time.monotonic()
    broker.start()
    took = time.monotonic() - began
    if luck.random() < 0.3:
        _check_commits(broker.bootstrap, ledger)
    return took


def _check_commits(bootstrap: str, ledger: Ledger) -> None:
    """What the broker says is committed, against what it had acknowledged before it was asked."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, **QUICK})
    floors = list(ledger.commits)
    places = consumer.committed([TopicPartition(TOPIC, p) for p in range(PARTITIONS)], timeout=20)
    for place in places:
        ledger.committed(place.partition, max(place.offset, 0), floor=floors[place.partition])
    consumer.close()


def _read_log(bootstrap: str, ledger: Ledger) -> list[dict[int, int]]:
    """Offset -> record, of every partition, from the first to the last."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "kill-reckoning", "enable.auto.commit": False,
        "enable.partition.eof": True, "check.crcs": True, **QUICK,
    })  # fmt: skip
    consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    log: list[dict[int, int]] = [{} for _ in range(PARTITIONS)]
    ended: set[int] = set()
    last_seen = time.monotonic()
    while len(ended) < PARTITIONS and time.monotonic() - last_seen < 20:
        for message in consumer.consume(2_000, timeout=0.2):
            last_seen = time.monotonic()
            error = message.error()
            if error is None:
                log[message.partition() or 0][message.offset() or 0] = int((message.value() or b"").split(b"|", 1)[0])
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
    if len(ended) < PARTITIONS:
        ledger.fault("lost", f"no end of the partitions {set(range(PARTITIONS)) - ended} was reached")
    consumer.close()
    return log


def main() -> int:
    """Run it and print the verdict; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.broker_kill", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there and leave the data behind")
    chosen = parser.parse_args()
    sys.stdout.write(f"seed {chosen.seed}\n")
    if chosen.keep:
        verdict = torture(chosen.keep, kills=chosen.kills, seed=chosen.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            verdict = torture(Path(folder), kills=chosen.kills, seed=chosen.seed)
    sys.stdout.write(f"{verdict}\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
