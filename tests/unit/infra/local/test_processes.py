from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.local.processes import (
    BY_NAME,
    PROCESSES,
    Model,
    environment,
    environments,
    kafka_environment,
    public_name,
)
from schemas.connection import KafkaConnection
from schemas.errors import SettingsError


def test_every_service_of_the_design_is_in_the_table() -> None:
    assert set(BY_NAME) == {"ingest", "refine", "agents", "gateway", "rollout", "trainer"}


def test_a_process_is_found_where_it_is_installed_and_not_where_the_user_stands() -> None:
    assert all("-P" in process.command() for process in PROCESSES)


def test_a_local_model_needs_no_hub_and_an_id_may_ask_it(tmp_path: Path) -> None:
    local = environment(data=tmp_path, kafka=KafkaConnection(), model=Model("m", str(tmp_path)))
    remote = environment(data=tmp_path, kafka=KafkaConnection(), model=Model("m", "owner/m"))
    assert local["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in remote


def test_what_one_process_is_told_goes_before_what_all_are_told() -> None:
    told = environments({"A": "all"}, {"trainer": {"A": "trainer"}}, {"trainer": 7, "ingest": 8})
    assert told["trainer"] == {"A": "trainer", "THUMBWHEEL_METRICS_PORT": "7"}
    assert told["ingest"] == {"A": "all", "THUMBWHEEL_METRICS_PORT": "8", "THUMBWHEEL_INSTANCE_ID": "ingest-0"}
    assert told["gateway"] == {"A": "all"}


def test_settings_for_a_process_that_is_not_there_are_refused() -> None:
    with pytest.raises(SettingsError, match="no process trainr"):
        environments({}, {"trainr": {}}, {})


def test_the_connection_a_child_reads_is_the_one_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import InfraSettings

    given = KafkaConnection(
        bootstrap_servers="kafka-1:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="ada",
        sasl_password=SecretStr("secret"),
        ssl_ca_location=Path("/ca.pem"),
    )
    for name, value in kafka_environment(given).items():
        monkeypatch.setenv(name, value)
    assert InfraSettings().kafka.client_config() == given.client_config()


@pytest.mark.parametrize(
    ("given", "shown"), [("tiny", "tiny"), ("/models/my model", "my-model"), ("owner/name", "name"), (".", "model")]
)
def test_a_model_is_called_by_the_last_part_of_its_path(given: str, shown: str) -> None:
    assert public_name(given) == shown
