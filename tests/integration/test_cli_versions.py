"""Promotion and rollback by hand, against a real broker."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.cli.app import app
from infra.local.log import Publisher, read_all
from schemas import topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.envelope import new_event
from schemas.errors import IllegalTransition, UnknownVersion
from schemas.versions import GateResult, ModelVersion, VersionState


@pytest.fixture
def kafka(fresh_broker: str) -> KafkaConnection:
    """A broker on which base serves, v1 has passed its gates, and v2 has not."""
    kafka = KafkaConnection(bootstrap_servers=fresh_broker)
    passed = GateResult(name="win_rate", passed=True, value=0.61, low=0.55, high=0.67, threshold=0.5)
    failed = GateResult(
        name="win_rate", passed=False, value=0.41, low=0.35, high=0.47, threshold=0.5, cases=64, remedy="more [labels]"
    )
    publisher = Publisher(kafka)
    for version, state, gates in (
        ("base", VersionState.REGISTERED, ()),
        ("base", VersionState.LIVE, ()),
        ("v1", VersionState.REGISTERED, (passed,)),
        ("v2", VersionState.REJECTED, (failed,)),
    ):
        parent = None if version == "base" else "base"
        event = ModelVersion(
            version=version, state=state, gates=gates, parent=parent, base_model="tiny", actor="test", reason="[why]"
        )
        publisher.publish(topics.MODEL_VERSIONS, new_event(event, source="test"))
    publisher.flush()
    return kafka


def call(kafka: KafkaConnection, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["versions", *arguments, "--bootstrap-servers", kafka.bootstrap_servers])


def states(kafka: KafkaConnection) -> dict[str, Any]:
    rows = [json.loads(line) for line in call(kafka, "list", "--json").stdout.splitlines()]
    return {row["version"]: row["state"] for row in rows}


def test_a_promotion_and_its_rollback_leave_the_states_and_an_audit_of_who_did_it(kafka: KafkaConnection) -> None:
    assert call(kafka, "promote", "v1", "--reason", "looks good").exit_code == 0
    assert states(kafka) == {"v2": "rejected", "v1": "live", "base": "retired"}
    assert call(kafka, "rollback").exit_code == 0
    assert states(kafka) == {"v2": "rejected", "v1": "rolled_back", "base": "live"}
    audit = [event.data for event in read_all(kafka, topics.AUDIT, Audit)]
    assert [(a.action, a.target) for a in audit] == [("promotion", "v1"), ("rollback", "v1")]
    assert "looks good" in audit[0].detail
    assert all(a.actor.startswith("cli:") for a in audit)


def test_what_the_transition_table_forbids_is_refused_and_nothing_is_said(kafka: KafkaConnection) -> None:
    before = states(kafka)
    refused = call(kafka, "promote", "v2")
    assert isinstance(refused.exception, IllegalTransition)
    assert "v2 is rejected and can't become live" in str(refused.exception)
    assert isinstance(call(kafka, "promote", "v9").exception, UnknownVersion)
    assert states(kafka) == before
    assert list(read_all(kafka, topics.AUDIT, Audit)) == []


def test_the_list_shows_who_serves_and_a_version_shows_its_gates(kafka: KafkaConnection) -> None:
    listed = call(kafka, "list").output
    assert "live (serves)" in listed
    assert "[why]" in listed
    shown = call(kafka, "show", "v1").output
    assert "win_rate" in shown
    assert "0.550 - 0.670" in shown
    assert "passed" in shown
    assert "to change" not in shown
    refused = call(kafka, "show", "v2").output
    assert "failed" in refused and "64" in refused
    assert "to change win_rate: more [labels]" in refused
