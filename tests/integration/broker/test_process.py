"""The process: how it starts and stops, what it keeps, and what it says when it can't."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from confluent_kafka import TopicPartition

from infra.local.ports import free_port
from tests.integration.broker.kit import PATIENCE, ROOT, BrokerProcess, Kit, unique, until


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.broker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order_while_a_fetch_is_waiting(tmp_path: Path, how: signal.Signals) -> None:
    server = BrokerProcess(tmp_path / "data").start()
    kit = Kit(server.bootstrap)
    topic = kit.topic()
    with kit.consumer() as consumer:  # a fetch is waiting
        consumer.subscribe([topic])
        consumer.poll(0.5)
        assert server.process is not None
        server.process.send_signal(how)
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_everything_is_there_again_after_a_restart(tmp_path: Path, end: str) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        kit = Kit(server.bootstrap)
        topic, gone, group = kit.topic(3, retention_ms="12345"), kit.topic(), unique("group")
        kit.send_records(topic, [{"key": b"k", "value": b"%d" % n, "partition": n % 3} for n in range(30)])
        with kit.consumer(group) as consumer:
            consumer.commit(offsets=[TopicPartition(topic, 1, 4, "note")], asynchronous=False)
        kit.admin.delete_topics([gone])[gone].result(10)
        cluster = kit.admin.list_topics(timeout=8).cluster_id
        server.kill() if end == "kill" else server.stop()
        server.start()
        again = Kit(server.bootstrap)
        metadata = again.admin.list_topics(timeout=8)
        assert (metadata.cluster_id, topic in metadata.topics, gone in metadata.topics) == (cluster, True, False)
        assert sorted(int(m.value() or b"") for m in again.read_all(topic, 3)) == list(range(30))
        place = again.committed(group, topic, 1)
        assert (place.offset, place.metadata) == (4, "note")
        assert again.send_records(topic, [{"value": b"next", "partition": 1}]) == [(1, 10)]


def test_deleted_records_stay_deleted_after_a_kill(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        kit = Kit(server.bootstrap)
        topic = kit.topic()
        kit.send(topic, *[b"x"] * 10)
        place = TopicPartition(topic, 0, 4)
        kit.admin.delete_records([place])[place].result(10)
        server.kill()
        server.start()
        assert Kit(server.bootstrap).watermarks(topic) == (4, 10)


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        second = run("--port", str(free_port()), "--data", str(server.data))
        assert second.returncode != 0
        assert str(server.data) in second.stderr + second.stdout
        assert "Traceback" not in second.stderr
        assert server.alive


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        server.kill()
        server.start()
        assert server.answers()


def test_a_busy_port_is_told_by_its_number(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run("--port", port, "--data", str(tmp_path / "data"))
    assert ended.returncode != 0
    assert port in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_it_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as server:
        assert server.process is not None
        listening = [c for c in psutil.Process(server.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::1"}


def test_the_help_names_the_options() -> None:
    text = run("--help").stdout
    options = ("--port", "--data", "--auto-create-topics", "--initial-rebalance-delay-ms", "--metrics-port")
    assert [option for option in options if option not in text] == []


def test_topics_are_created_on_first_use_where_that_is_wanted(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data", "--auto-create-topics") as server:
        kit = Kit(server.bootstrap)
        topic = unique("auto")
        assert kit.send(topic, b"x") == [(0, 0)]
        assert [m.value() for m in kit.read_all(topic)] == [b"x"]


def test_metrics_are_served_where_a_port_is_given(tmp_path: Path) -> None:
    port = free_port()
    with BrokerProcess(tmp_path / "data", "--metrics-port", str(port)) as server:
        kit = Kit(server.bootstrap)
        kit.send(kit.topic(), b"x")

        def text() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return answer.read().decode()

        until(lambda: "# TYPE" in text(), "metrics are served")
