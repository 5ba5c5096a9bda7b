import json
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from schemas.connection import KafkaConnection
from schemas.errors import SettingsError
from schemas.logs import JsonFormatter


def test_a_log_record_is_one_json_line_with_its_ids() -> None:
    record = logging.LogRecord("serving", logging.INFO, "f.py", 1, "stored %s\nsafely", ("it",), None)
    record.event_id = "e1"
    line = JsonFormatter("gateway").format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["process"], fields["message"], fields["event_id"]) == ("gateway", "stored it\nsafely", "e1")


def test_client_options_hold_what_was_set_and_nothing_else() -> None:
    assert KafkaConnection(bootstrap_servers="k:1").client_config() == {
        "bootstrap.servers": "k:1",
        "security.protocol": "PLAINTEXT",
    }


def test_sasl_and_tls_options_pass_through(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    config = KafkaConnection(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="ada",
        sasl_password_file=secret,
        ssl_ca_location=Path("/ca.pem"),
    ).client_config()
    assert config["sasl.password"] == "hunter2"
    assert (config["sasl.mechanism"], config["ssl.ca.location"]) == ("SCRAM-SHA-512", "/ca.pem")


def test_a_missing_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        KafkaConnection(sasl_password_file=tmp_path / "nowhere").client_config()


def test_a_password_is_not_shown_in_text() -> None:
    assert "hunter2" not in repr(KafkaConnection(sasl_password=SecretStr("hunter2")))


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError):
        KafkaConnection.model_validate({"bootstrap": "k:1"})
