import json
import socket
from pathlib import Path

import pytest

from infra.cli import checks
from infra.cli.checks import Grade
from infra.cli.options import Place
from infra.local import broker
from schemas.connection import KafkaConnection
from schemas.topics import plan

EVERY_TOPIC = {name: partitions for name, (partitions, _) in plan().items()}


def place(data: Path, *, named: bool = False) -> Place:
    # Port 1 answers nobody.
    kafka = KafkaConnection(bootstrap_servers="127.0.0.1:1")
    return Place(data=data, kafka=kafka, models=data / "models", named=named, gateway_url=None, model=None)


def test_an_old_python_fails_and_a_newer_one_is_worth_a_look() -> None:
    assert checks.python_version((3, 10)).grade is Grade.FAIL
    assert checks.python_version((3, 11)).grade is Grade.OK
    assert checks.python_version((3, 13)).grade is Grade.WARN


def test_what_is_not_as_pinned_is_named(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# a set\npytest==0.0.1  # old\nno-such-package==1\n")
    found = checks.pins(checks.read_pins(pins))
    assert found.grade is Grade.WARN
    assert "pytest" in found.found
    assert "(pinned 0.0.1)" in found.found


def test_missing_topics_fail_and_other_partitions_are_worth_a_look() -> None:
    assert checks.topics(EVERY_TOPIC).grade is Grade.OK
    assert checks.topics({}).grade is Grade.FAIL
    more = checks.topics(EVERY_TOPIC | {"thumbwheel.outputs.v1": 9})
    assert more.grade is Grade.WARN
    assert "thumbwheel.outputs.v1 has 9 partitions, planned 2" in more.found


def test_no_broker_is_fine_until_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = broker.answers
    monkeypatch.setattr(broker, "answers", lambda servers, _: answers(servers, 0.1))
    assert [c.grade for c in checks.log(place(tmp_path))] == [Grade.OK]
    assert [c.grade for c in checks.log(place(tmp_path, named=True))] == [Grade.FAIL]


def test_a_lake_without_tables_is_fine_and_a_broken_table_fails(tmp_path: Path) -> None:
    assert checks.lake(tmp_path).grade is Grade.OK
    log = tmp_path / "bronze" / "outputs" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("no commit\n")
    found = checks.lake(tmp_path)
    assert found.grade is Grade.FAIL
    assert "bronze/outputs" in found.found


def test_a_model_is_missing_or_damaged_or_whole(tmp_path: Path) -> None:
    assert checks.model("tiny", tmp_path).grade is Grade.WARN
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    assert checks.model("tiny", tmp_path).grade is Grade.FAIL
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert checks.model("tiny", tmp_path).grade is Grade.FAIL
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    assert checks.model("tiny", tmp_path).grade is Grade.OK


def test_a_port_in_use_is_worth_a_look(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert checks.port(taken.getsockname()[1], place(tmp_path)).grade is Grade.WARN
