"""Kill -9 of every process, the broker included, in the middle of traffic: nothing acknowledged is lost or doubled."""

import itertools
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import polars as pl
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.local.stack import LocalStack, StackOptions
from schemas import topics
from schemas.topics import Topic

pytestmark = pytest.mark.timeout(900)  # the whole run is in a fixture

PATIENCE_SECONDS = 90.0
KILLED = ("ingest", "gateway", "broker", "refine", "rollout", "agents", "ingest", "broker", "refine", "gateway")


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


@pytest.fixture(scope="module")
def killed_in_mid_traffic(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator["Aftermath"]:
    options = StackOptions(
        data=tmp_path_factory.mktemp("kill"),
        model=str(tiny_model),
        without=frozenset({"trainer"}),
        environment={"THUMBWHEEL_BATCH_SECONDS": "0.3", "THUMBWHEEL_REFINE_SECONDS": "0.3"},
    )
    with LocalStack(options) as stack:
        stack.wait_until_ready()
        traffic = Traffic(stack.gateway_url)
        users = [Thread(target=traffic.run)]
        for user in users:
            user.start()
        try:
            for name in KILLED:
                grow = len(traffic.feedback_ids) + 8
                wait_until(lambda n=grow: len(traffic.feedback_ids) >= n, "traffic goes on")
                stack.kill(name)
            grow = len(traffic.feedback_ids) + 8
            wait_until(lambda: len(traffic.feedback_ids) >= grow, "traffic goes on after the last kill")
        finally:
            traffic.stop.set()
            for user in users:
                user.join()
        sent = {topic.name: ids_in_log(stack.bootstrap_servers, topic) for topic in (topics.OUTPUTS, topics.FEEDBACK)}
        lake = stack.data / "lake"
        everything = set(sent[topics.FEEDBACK.name])
        wait_until(lambda: everything <= set(column(lake / "bronze/feedback", "event_id")), "feedback is in the table")
        outputs = set(sent[topics.OUTPUTS.name])
        wait_until(lambda: outputs <= set(column(lake / "bronze/outputs", "event_id")), "outputs are in the table")
        wait_until(lambda: rated(lake) == answered_and_rated(lake), "every rated output has its rating")
        children = [psutil.Process(s.pid) for s in stack.processes() if s.pid]
        restarts = {s.name: s.restarts for s in stack.processes()}
        yield Aftermath(lake, traffic, sent, restarts, children)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE], (
        "a process was left behind"
    )


@dataclass(frozen=True)
class Aftermath:
    lake: Path
    traffic: Traffic
    in_log: dict[str, list[str]]
    restarts: dict[str, int]
    children: list[psutil.Process]


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain: {what}"
        time.sleep(0.1)


def column(table: Path, name: str) -> list[str]:
    return pl.read_delta(str(table), columns=[name])[name].to_list()


def latest(lake: Path, table: str, key: str) -> pl.DataFrame:
    rows = pl.read_delta(str(lake / table)).sort("revision")
    return rows.unique(key, keep="last").filter(~pl.col("retracted"))


def rated(lake: Path) -> set[str]:
    return set(latest(lake, "gold/ratings", "rating_id")["response_id"])


def answered_and_rated(lake: Path) -> set[str]:
    answered = set(column(lake / "bronze/outputs", "response_id"))
    return answered & set(column(lake / "bronze/feedback", "response_id"))


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


def test_every_killed_process_came_back(killed_in_mid_traffic: Aftermath) -> None:
    expected = Counter(KILLED)
    assert {name: killed_in_mid_traffic.restarts[name] for name in expected} == dict(expected)


def test_every_acknowledged_rating_is_in_its_table_exactly_once(killed_in_mid_traffic: Aftermath) -> None:
    acknowledged = killed_in_mid_traffic.traffic.feedback_ids
    stored = Counter(column(killed_in_mid_traffic.lake / "bronze/feedback", "event_id"))
    assert len(acknowledged) >= 8 * (len(KILLED) + 1)
    assert [event for event in acknowledged if stored[event] != 1] == []


def test_every_event_in_the_log_is_in_its_table_exactly_once(killed_in_mid_traffic: Aftermath) -> None:
    for topic in (topics.OUTPUTS, topics.FEEDBACK):
        in_log = set(killed_in_mid_traffic.in_log[topic.name])
        stored = Counter(column(killed_in_mid_traffic.lake / f"bronze/{topic.table}", "event_id"))
        assert set(stored) == in_log
        assert max(stored.values()) == 1


def test_the_ratings_are_those_of_the_events(killed_in_mid_traffic: Aftermath) -> None:
    lake = killed_in_mid_traffic.lake
    feedback = pl.read_delta(str(lake / "bronze/feedback")).filter(pl.col("response_id").is_in(list(rated(lake))))
    expected = {r: kind == "thumbs_up" for r, kind in feedback.select("response_id", "kind").iter_rows()}
    ratings = latest(lake, "gold/ratings", "rating_id")
    assert dict(ratings.select("response_id", "label").iter_rows()) == expected


def test_no_pair_was_derived_twice_or_from_a_response_that_nobody_rated(killed_in_mid_traffic: Aftermath) -> None:
    lake = killed_in_mid_traffic.lake
    rows = pl.read_delta(str(lake / "gold/preferences"))
    assert rows.select("preference_id", "revision").is_duplicated().sum() == 0
    pairs = latest(lake, "gold/preferences", "preference_id")
    assert pairs.height > 0
    sides = set(pairs["chosen_response_id"]) | set(pairs["rejected_response_id"])
    assert sides <= rated(lake)
