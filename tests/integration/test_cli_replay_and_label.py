"""Labels from a file and from a labeler, up to the log (and from the tables)."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import Schema, write_deltalake
from typer.testing import CliRunner, Result

from infra.cli.app import app
from infra.local.log import read_all
from schemas import tables, topics
from schemas.connection import KafkaConnection
from schemas.errors import BrokerUnavailable, SettingsError
from schemas.labels import Candidate, Label, LabelTask
from schemas.messages import ChatMessage

GOOD = [{"prompt": f"question {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(5)]


@pytest.fixture
def kafka(fresh_broker: str) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=fresh_broker)


def call(kafka: KafkaConnection, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers], input=typed)


def labels(kafka: KafkaConnection) -> list[tuple[str, Label]]:
    return [(event.id, event.data) for event in read_all(kafka, topics.LABELS, Label)]


def test_bad_rows_are_told_by_line_and_stop_nothing(kafka: KafkaConnection, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps(row) for row in GOOD]
    file.write_text("\n".join([*rows[:2], "{broken", "", *rows[2:], '{"prompt": "only"}']) + "\n")
    done = call(kafka, "replay", str(file))
    assert done.exit_code == 0
    assert "5 label events acknowledged" in done.output
    assert "2 bad rows" in done.output
    assert "line 3: not JSON" in done.output
    assert "line 8: chosen is missing" in done.output
    assert [label.prompt[0].content for _, label in labels(kafka)] == [row["prompt"] for row in GOOD]


def test_a_packed_file_in_two_goes_has_the_same_events_as_in_one(kafka: KafkaConnection, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in GOOD).encode()))
    assert "2 label events" in call(kafka, "replay", str(file), "--limit", "2").output
    assert "5 label events" in call(kafka, "replay", str(file)).output
    ids = [event_id for event_id, _ in labels(kafka)]
    assert (len(ids), len(set(ids))) == (7, 5)
    assert {label.labeler_id for _, label in labels(kafka)} == {"replay:rows.jsonl.gz"}


def test_a_file_that_is_not_there_and_a_broker_that_is_not_there_are_said(tmp_path: Path) -> None:
    nobody = KafkaConnection(bootstrap_servers="127.0.0.1:1")
    assert isinstance(call(nobody, "replay", str(tmp_path / "none")).exception, SettingsError)


def test_without_a_broker_a_replay_does_not_claim_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.log.TIMEOUT_SECONDS", 1.0)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD[0]))
    refused = call(KafkaConnection(bootstrap_servers="127.0.0.1:1"), "replay", str(file))
    assert isinstance(refused.exception, BrokerUnavailable)


def queue(data: Path, count: int) -> None:
    table = tables.LABEL_QUEUE
    rows = [
        LabelTask(
            task_id=f"task-{n}",
            prompt_id=f"prompt-{n}",
            prompt=(ChatMessage(role="user", content=f"question {n}"),),
            left=Candidate(completion=f"left {n}", version="secret-1"),
            right=Candidate(completion=f"right {n}", version="secret-2"),
            reason="random",
            uncertainty=0.0,
            selection_probability=1.0,
        ).model_dump()
        | {"queued_at": datetime(2026, 11, 21, 12, n, tzinfo=UTC)}
        for n in range(count)
    ]
    schema = pa.schema(Schema.from_json(table.delta_schema()).to_arrow())
    write_deltalake(str(data / "lake" / table.path), pa.Table.from_pylist(rows, schema=schema))


def test_answers_typed_line_by_line_travel_as_labels(kafka: KafkaConnection, tmp_path: Path) -> None:
    queue(tmp_path, 4)
    done = call(kafka, "label", "--labeler", "ada", "--data", str(tmp_path), typed="1\nnonsense\n2\nu\nt\nq\n")
    assert done.exit_code == 0
    assert [(label.task_id, label.verdict) for _, label in labels(kafka)] == [("task-0", "left"), ("task-1", "tie")]
    assert {label.labeler_id for _, label in labels(kafka)} == {"ada"}
    assert "labels acknowledged: 2 (1 left, 1 tie); tasks left: 2" in done.output


def test_a_labeler_sees_both_answers_and_no_version(kafka: KafkaConnection, tmp_path: Path) -> None:
    queue(tmp_path, 1)
    shown = call(kafka, "label", "--data", str(tmp_path), typed="s\n").output
    assert "question 0" in shown
    assert "left 0" in shown
    assert "right 0" in shown
    assert "secret" not in shown


def test_the_end_of_the_input_ends_the_sitting_and_keeps_what_was_said(kafka: KafkaConnection, tmp_path: Path) -> None:
    queue(tmp_path, 3)
    assert call(kafka, "label", "--data", str(tmp_path), typed="b\n").exit_code == 0
    assert [label.verdict for _, label in labels(kafka)] == ["both_bad"]


def test_an_empty_queue_is_said(kafka: KafkaConnection, tmp_path: Path) -> None:
    assert "nothing to label" in call(kafka, "label", "--data", str(tmp_path)).output
