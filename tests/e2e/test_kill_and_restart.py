"""Kill -9 of every process, the broker included, in the middle of traffic: nothing acknowledged is lost or doubled."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import polars as pl
import psutil
import pytest

from infra.local.stack import LocalStack, StackOptions
from schemas import topics
from tests.e2e.data_kill import Traffic, column, ids_in_log, latest, wait_until

pytestmark = pytest.mark.timeout(900)  # the whole run is in a fixture

KILLED = ("ingest", "gateway", "broker", "refine", "rollout", "agents", "ingest", "broker", "refine")


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


def rated(lake: Path) -> set[str]:
    return set(latest(lake, "gold/ratings", "rating_id")["response_id"])


def answered_and_rated(lake: Path) -> set[str]:
    answered = set(column(lake / "bronze/outputs", "response_id"))
    return answered & set(column(lake / "bronze/feedback", "response_id"))


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
