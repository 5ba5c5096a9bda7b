import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.app import app
from infra.local.broker import EmbeddedBroker, answers
from infra.local.topics import create_topics, describe_topics
from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable, SettingsError
from schemas.topics import plan


def test_a_broker_starts_in_a_folder_that_does_not_exist_yet_and_stops(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "not" / "yet" / "data")
    with broker:
        assert answers(broker.bootstrap_servers)
    assert broker.status is None
    assert not answers(broker.bootstrap_servers, timeout=0.2)


def test_topics_and_events_are_there_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "data") as broker:
        create_topics(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
    with EmbeddedBroker(tmp_path / "data") as broker:
        done = create_topics(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
    assert (done.created, len(done.existing), done.differing) == ((), len(plan()), ())


def test_a_busy_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="is in use"):
            EmbeddedBroker(tmp_path / "data", taken.getsockname()[1]).start()


def test_a_broker_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(BrokerUnavailable, match=r"broker\.log"):
        EmbeddedBroker(tmp_path / "data").start()


def test_topics_are_created_once_and_compared_afterwards(fresh_broker: str) -> None:
    again = CliRunner().invoke(app, ["topics", "create", "--bootstrap-servers", fresh_broker])
    assert again.exit_code == 0
    assert f"0 topics created, {len(plan())} were there" in again.output


def test_every_topic_is_described_with_its_partitions(broker: str) -> None:
    found = {t.name: t.partitions for t in describe_topics(KafkaConnection(bootstrap_servers=broker))}
    assert found == {name: partitions for name, (partitions, _) in plan().items()}
    shown = CliRunner().invoke(app, ["topics", "describe", "--bootstrap-servers", broker])
    assert all(name in shown.output for name in plan())


@pytest.mark.usefixtures("impatient")
def test_without_a_broker_it_is_said_where_nobody_answers(tmp_path: Path) -> None:
    asked = CliRunner().invoke(app, ["topics", "describe", "--bootstrap-servers", "127.0.0.1:1"])
    assert isinstance(asked.exception, BrokerUnavailable)
    assert "no broker answers at 127.0.0.1:1" in str(asked.exception)


def test_the_doctor_finds_a_broker_and_its_topics(broker: str, tmp_path: Path) -> None:
    seen = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path), "--bootstrap-servers", broker])
    assert f"{broker} answers" in seen.output
    assert f"all {len(plan())} exist" in seen.output


def test_the_doctor_works_with_nothing_running(tmp_path: Path) -> None:
    seen = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path / "none")])
    assert seen.exception is None or isinstance(seen.exception, SystemExit)
    assert "none runs here" in seen.output


def test_the_listing_of_versions_is_empty_on_a_new_broker(fresh_broker: str) -> None:
    asked = CliRunner().invoke(app, ["versions", "list", "--json", "--bootstrap-servers", fresh_broker])
    assert [json.loads(line) for line in asked.stdout.splitlines()] == []
