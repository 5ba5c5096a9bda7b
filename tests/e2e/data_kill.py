"""SIGKILLs every part of the data plane at random moments under traffic, and proves afterwards that nothing is wrong.

    python -m tests.e2e.data_kill --kills 100 [--seed N] [--keep FOLDER]

    users ─► gateway ─► broker ─► two ingest workers ─► bronze ─► refine ─► silver, gold
    machines ─────────────┘       (dynamic members: every kill is a rebalance; they compact all the time)

What was acknowledged is written down by whoever sent it. In the end, when the tables have come to rest:

- lost: acknowledged, or in the log, and not in its bronze table;
- doubled: there twice;
- foreign: in the table, and not in the log;
- wrong: rows of silver and gold that differ from what bronze, read from scratch, comes to.
"""

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import polars as pl
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from infra.local import supervisor
from infra.local.processes import BY_NAME
from infra.local.stack import LocalStack, StackOptions
from infra.local.supervisor import Command, Supervisor
from schemas import tables, topics
from schemas.envelope import encode, new_event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id, prompt_id
from schemas.messages import ChatMessage
from schemas.outputs import Output
from schemas.topics import Topic
from streams.adapters.lake import open_table
from streams.derive import Derivation, DerivedTables

PATIENCE_SECONDS = 120.0
SECOND_WORKER = "ingest-b"
WORKERS = ("ingest", SECOND_WORKER)
RESTS = {"ingest": 14.0, SECOND_WORKER: 14.0, "refine": 4.0, "broker": 40.0, "gateway": 8.0}
"""Who is killed, and the seconds that each is left alone in between. A dead worker's partitions are free after its
session time-out of ten seconds, and a new broker begins that count anew: without rests the group would never come to
work at all. Nor is a worker killed before the two have stored something since the last time."""
MACHINE_RATE = 60
"""Events a second that come by themselves, beside the users'."""


@dataclass
class Traffic:
    """Users who ask and rate until told to stop; they remember what was acknowledged to them."""

    url: str
    stop: Event = field(default_factory=Event)
    feedback_ids: list[str] = field(default_factory=list[str])
    response_ids: list[str] = field(default_factory=list[str])
    refusals: int = 0

    def run(self) -> None:
        for number in itertools.count():
            if self.stop.is_set():
                return
            try:
                self._ask_and_rate(number)
            except (OSError, urllib.error.HTTPError, ValueError):
                self.refusals += 1  # the gateway was killed a moment ago: nothing was acknowledged
                time.sleep(0.2)

    def _ask_and_rate(self, number: int) -> None:
        question = f"Where is parcel {number % 7}?"
        body = {"model": "thumbwheel", "messages": [{"role": "user", "content": question}], "max_tokens": 8}
        response_id = self._post("/v1/chat/completions", body)["id"]
        self.response_ids.append(response_id)
        kind = "thumbs_up" if number % 3 else "thumbs_down"
        rating = {"response_id": response_id, "kind": kind, "user": f"user-{number % 5}", "id": f"rating-{number}"}
        self.feedback_ids.append(self._post("/v1/feedback", rating)["id"])

    def _post(self, path: str, body: dict[str, object]) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


class Machines:
    """A program that writes outputs and feedback straight to the log, some of it twice, feedback at times first."""

    def __init__(self, bootstrap: str, seed: int) -> None:
        self.stop = Event()
        self.acknowledged: dict[str, set[str]] = {topics.OUTPUTS.name: set(), topics.FEEDBACK.name: set()}
        self.unanswered = 0
        self._luck = random.Random(seed)
        self._lock = Lock()
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "message.timeout.ms": 0, "log_level": 0, "reconnect.backoff.max.ms": 200,
        })  # fmt: skip

    def run(self) -> None:
        while not self.stop.is_set():
            self._story()
            self._producer.poll(0)
            time.sleep(4 / MACHINE_RATE)
        self.unanswered = self._producer.flush(PATIENCE_SECONDS)

    def _story(self) -> None:
        """One answer and what three users say of it."""
        luck = self._luck
        prompt = (ChatMessage(role="user", content=f"What is {luck.randrange(40)}?"),)
        output = Output(
            response_id=new_response_id(), prompt_id=prompt_id(prompt), prompt=prompt,
            completion=f"It is {luck.randrange(9)}.", version="base", base_model="tiny", temperature=0.8,
            max_completion_tokens=8, finish_reason="stop", input_tokens=4, output_tokens=4, latency_seconds=0.1,
            user_id=f"user-{luck.randrange(20)}",
        )  # fmt: skip
        said = [
            Feedback(response_id=output.response_id, kind=luck.choice(list(FeedbackKind)), text="so", user_id=f"u{n}")
            for n in luck.sample(range(30), 3)
        ]
        events = [new_event(p, source="machine") for p in (output, *said)]
        luck.shuffle(events)
        for event in (*events, luck.choice(events)):
            key, value, headers = encode(event)
            name = f"thumbwheel.{event.data.schema_name}.v1"
            self._producer.produce(
                name, value, key, headers=list(headers), on_delivery=lambda e, m, i=event.id: self._told(e, m, i)
            )

    def _told(self, error: KafkaError | None, message: Message, event_id: str) -> None:
        if error is None:
            with self._lock:
                self.acknowledged[message.topic() or ""].add(event_id)


@dataclass(frozen=True)
class Report:
    """What the run came to; all but the first three should be zero."""

    kills: dict[str, int]
    acknowledged: int
    rows: int
    lost: int
    doubled: int
    foreign: int
    wrong: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.foreign or self.wrong)

    def text(self) -> str:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        total = sum(self.kills.values())
        return (
            f"{total} kills ({killed}); {self.acknowledged:,} events acknowledged, {self.rows:,} rows\n"
            f"lost {self.lost}, doubled {self.doubled}, foreign {self.foreign}, wrong in silver and gold {self.wrong}"
        )


def run(folder: Path, model: Path, *, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """Kill so often, let the tables come to rest, and count what is wrong."""
    luck = random.Random(seed)
    supervisor.HEALTHY_SECONDS = 1.0  # who dies all the time would be given up; here everybody does
    settings = {
        "THUMBWHEEL_BATCH_SECONDS": "0.2",
        "THUMBWHEEL_REFINE_SECONDS": "0.2",
        "THUMBWHEEL_COMPACT_EVERY_COMMITS": "4",
    }
    options = StackOptions(
        data=folder,
        model=str(model),
        without=frozenset({"trainer", "agents", "rollout"}),
        environment=settings,
        overrides={"ingest": {"THUMBWHEEL_INSTANCE_ID": ""}},
    )
    killed: Counter[str] = Counter()
    last: dict[str, float] = {}
    rows = 0
    with LocalStack(options) as stack, second_worker(stack, settings) as second:
        stack.wait_until_ready()
        traffic, machines = Traffic(stack.gateway_url), Machines(stack.bootstrap_servers, seed)
        threads = [Thread(target=traffic.run), Thread(target=machines.run)]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills):
                time.sleep(luck.uniform(0.3, 3.0))
                name = next_victim(stack, second, luck, last, at_work=stored(stack.data) > rows)
                (second if name == SECOND_WORKER else stack).kill(name)
                killed[name] += 1
                last[name] = time.monotonic()
                rows = stored(stack.data) if name in WORKERS else rows
                say(f"{number + 1} of {kills}: {name}; {stored(stack.data):,} rows")
        finally:
            traffic.stop.set()
            machines.stop.set()
            for thread in threads:
                thread.join()
        assert machines.unanswered == 0
        return reckon(stack, traffic, machines, dict(killed))


@contextmanager
def second_worker(stack: LocalStack, settings: dict[str, str]) -> Iterator[Supervisor]:
    """Another ingest of the same group, watched over by a supervisor of its own."""
    told = {
        "THUMBWHEEL_DATA": str(stack.data),
        "THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "THUMBWHEEL_METRICS_PORT": "0",
        **settings,
    }
    second = Supervisor([Command(SECOND_WORKER, BY_NAME["ingest"].command(), told)], stack.logs)
    second.start()
    try:
        yield second
    finally:
        second.stop()


def next_victim(
    stack: LocalStack, second: Supervisor, luck: random.Random, last: dict[str, float], *, at_work: bool
) -> str:
    """Somebody who is alive and has had their rest, a worker only where these are at work; waits for one."""
    while True:
        now = time.monotonic()
        rested = [n for n, rest in RESTS.items() if now - last.get(n, 0.0) > rest and alive(stack, second, n)]
        rested = [n for n in rested if at_work or n not in WORKERS]
        if rested:
            return luck.choice(rested)
        time.sleep(0.1)


def alive(stack: LocalStack, second: Supervisor, name: str) -> bool:
    """Whether a process runs at this moment, and is not just being started again."""
    statuses = second.statuses() if name == SECOND_WORKER else stack.processes()
    return any(s.name == name and s.pid is not None for s in statuses)


def reckon(stack: LocalStack, traffic: Traffic, machines: Machines, killed: dict[str, int]) -> Report:
    """Wait until everything that is in the log is in the tables, then count."""
    lake = stack.data / "lake"
    in_log = {t.name: ids_in_log(stack.bootstrap_servers, t) for t in (topics.OUTPUTS, topics.FEEDBACK)}
    lost = doubled = foreign = rows = 0
    sent = {
        topics.OUTPUTS.name: machines.acknowledged[topics.OUTPUTS.name],
        topics.FEEDBACK.name: machines.acknowledged[topics.FEEDBACK.name] | set(traffic.feedback_ids),
    }
    for topic in (topics.OUTPUTS, topics.FEEDBACK):
        table, known = lake / f"bronze/{topic.table}", set(in_log[topic.name])
        settle(lambda known=known, table=table: known <= set(column(table, "event_id")))
        held = Counter(column(table, "event_id"))
        lost += len((known | sent[topic.name]) - set(held))
        doubled += sum(count - 1 for count in held.values())
        foreign += len(set(held) - known)
        rows += sum(held.values())
    settle(lambda: wrong_rows(lake) == 0)
    return Report(killed, sum(map(len, sent.values())), rows, lost, doubled, foreign, wrong_rows(lake))


def wrong_rows(lake: Path) -> int:
    """Rows of silver and gold that are missing, too many or other than bronze comes to."""
    named = (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS, tables.RESPONSES, tables.RATINGS, tables.PREFERENCES)
    opened = DerivedTables(*(open_table(lake, table) for table in named))
    derivation = Derivation(opened)
    ids = set(column(lake / tables.OUTPUTS.path, "response_id")) | set(
        column(lake / tables.FEEDBACK.path, "response_id")
    )
    responses = derivation.responses(ids)
    wanted = (
        (tables.RESPONSES, {i: r.model_dump() for i, r in responses.items()}),
        (tables.RATINGS, {i: r.model_dump() for i, r in derivation.ratings(responses.values()).items()}),
        (
            tables.PREFERENCES,
            {
                i: r.model_dump()
                for i, r in derivation.preferences(
                    {r.prompt_id for r in responses.values()}, responses.values()
                ).items()
            },
        ),
    )
    return sum(_differing(lake, table, rows) for table, rows in wanted)


def _differing(lake: Path, table: tables.Table, wanted: dict[str, dict[str, object]]) -> int:
    there = {row[table.key]: row for row in latest(lake, table.path, table.key).to_dicts()}
    keys = {*there, *wanted}
    return sum(_content(there.get(key)) != _content(wanted.get(key)) for key in keys)


def _content(row: dict[str, object] | None) -> str | None:
    if row is None:
        return None
    kept = {k: v for k, v in row.items() if k != "revision" and v is not None}
    return json.dumps(kept, sort_keys=True, default=lambda v: v.timestamp() if hasattr(v, "timestamp") else str(v))


def settle(holds: Callable[[], bool]) -> None:
    """Wait until something holds, or for as long as patience lasts: what doesn't hold then is counted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.3)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    settle(holds)
    assert holds(), f"waited {PATIENCE_SECONDS:.0f} s in vain: {what}"


def stored(data: Path) -> int:
    return sum(len(column(data / "lake" / t.path, "event_id")) for t in (tables.OUTPUTS, tables.FEEDBACK))


def column(table: Path, name: str) -> list[str]:
    """A column of a table as it is now; nothing where there is no table. Compaction may take files away under way."""
    for attempt in range(5):
        try:
            return pl.read_delta(str(table), columns=[name])[name].to_list() if (table / "_delta_log").is_dir() else []
        except (OSError, pl.exceptions.PolarsError):
            if attempt == 4:
                raise
    return []


def latest(lake: Path, table: str, key: str) -> pl.DataFrame:
    rows = pl.read_delta(str(lake / table)).sort("revision")
    return rows.unique(key, keep="last").filter(~pl.col("retracted"))


def ids_in_log(bootstrap_servers: str, topic: Topic) -> list[str]:
    """The ids of all events that the broker has acknowledged."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "kill-test", "enable.auto.commit": False})
    try:
        parts = [TopicPartition(topic.name, p, 0) for p in range(topic.partitions)]
        missing = sum(consumer.get_watermark_offsets(p, timeout=10)[1] for p in parts)
        consumer.assign(parts)
        found: list[str] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < missing and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=0.5):
                assert message.error() is None
                found.append(dict(message.headers() or [])["ce_id"].decode())
        assert len(found) == missing
        return found
    finally:
        consumer.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.data_kill", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="a prepared model (make setup)")
    parser.add_argument("--keep", type=Path, help="keep the data here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        where = chosen.keep or Path(folder) / "data"
        report = run(
            where,
            chosen.model.resolve(),
            kills=chosen.kills,
            seed=chosen.seed,
            say=_say,
        )
    sys.stdout.write(report.text() + "\n")
    return 0 if report.clean else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
