"""`thumbwheel keys` works on the files, and audits what it does; the events themselves: tests/integration."""

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli.access import app
from schemas.errors import BrokerUnavailable, SettingsError
from serving.adapters import keys, secret_files
from serving.core.access import ApiKeys, Scope, authenticate
from serving.core.tokens import TokenKeys

NOBODY = ["--bootstrap-servers", "127.0.0.1:1"]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.cli.access.AUDIT_SECONDS", 0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data", str(folder)], catch_exceptions=False)


def change(folder: Path, *words: str) -> Result:
    return run(folder, *words, *NOBODY, "--without-audit")


def held(folder: Path) -> ApiKeys:
    return keys.read_api_keys(folder / "secrets" / "api_keys.json")


def test_a_new_key_is_printed_once_and_kept_as_a_hash(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    done = change(folder, "create", "--name", "shop", "--scopes", "feedback,chat", "--tenant", "t1", "--rate", "7")
    text = done.stdout.strip()
    [key] = held(folder).keys
    assert authenticate(text, held(folder), now=key.created) == key
    assert (key.name, key.scopes, key.tenant, key.rate) == ("shop", (Scope.CHAT, Scope.FEEDBACK), "t1", 7)
    secret = text.split("_")[2]
    assert secret not in (folder / "secrets" / "api_keys.json").read_text()
    assert secret not in done.stderr
    assert secret not in caplog.text
    assert secret not in run(folder, "list").output + run(folder, "list", "--json").output


def test_the_list_shows_what_a_key_may_do_and_whether_it_still_may(folder: Path) -> None:
    for name in ("one", "two"):
        change(folder, "create", "--name", name, "--expires-days", "30")
    first = held(folder).keys[0]
    change(folder, "revoke", first.id)
    rows = [json.loads(line) for line in run(folder, "list", "--json").stdout.splitlines()]
    assert [(row["name"], "revoked" in row) for row in rows] == [("one", True), ("two", False)]
    assert "secret_sha256" not in rows[0]
    page = run(folder, "list").stdout
    assert ("revoked" in page, "active" in page, first.id in page) == (True, True, True)


def test_nothing_is_done_that_can_not_be_audited(folder: Path) -> None:
    for words in (("create", "--name", "shop"), ("rotate",)):
        with pytest.raises(BrokerUnavailable, match="nothing was done, because it could not be audited"):
            run(folder, *words, *NOBODY)
    assert not (folder / "secrets").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "--name", "x", "--scopes", "chat,admin"), "not admin"),
        (("create", "--name", "x", "--scopes", ""), "not none"),
        (("create", "--name", ""), "--name can't be used"),
        (("revoke", "3f9c0a1b2d4e"), "there is no API key of this id"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        change(folder, *words)


def test_to_revoke_twice_is_no_error_and_keeps_the_first_time(folder: Path) -> None:
    change(folder, "create", "--name", "shop")
    [key] = held(folder).keys
    change(folder, "revoke", key.id)
    first = held(folder).keys[0].revoked
    assert "was revoked before" in change(folder, "revoke", key.id).stdout
    assert first is not None
    assert held(folder).keys[0].revoked == first


def test_a_rotation_adds_a_key_and_drops_old_ones_where_told(folder: Path) -> None:
    for words in (("rotate",), ("rotate",), ("rotate", "--retire-older-than", "30")):
        assert "dropped" not in change(folder, *words).stdout
    file = folder / "secrets" / "token_keys.json"
    assert len(secret_files.read(file, TokenKeys).keys) == 3
    assert change(folder, "rotate", "--retire-older-than", "0").stdout.count("is dropped") == 3
    assert len(secret_files.read(file, TokenKeys).keys) == 1
