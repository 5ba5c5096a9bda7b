"""The settings of access, consent and redaction as they come from the environment."""

from pathlib import Path

import pytest

from schemas.consent import Purpose
from schemas.errors import SettingsError
from schemas.feedback import FeedbackKind
from serving import settings
from serving.core.access import AccessMode


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("REDACTION", "email, card", "redaction", ("email", "card")),
        ("REDACTION", '["email"]', "redaction", ("email",)),
        ("REDACTION", "off", "redaction", ()),
        ("DEFAULT_PURPOSES", "none", "default_purposes", ()),
        ("DEFAULT_PURPOSES", "labeling", "default_purposes", (Purpose.LABELING,)),
        ("DEFAULT_PURPOSES", '["training","labeling"]', "default_purposes", (Purpose.TRAINING, Purpose.LABELING)),
        ("TOKEN_ACTIONS", "thumbs_up,flag", "token_actions", (FeedbackKind.THUMBS_UP, FeedbackKind.FLAG)),
        ("FEEDBACK_ORIGINS", '["https://a.example"]', "feedback_origins", ("https://a.example",)),
        ("FEEDBACK_ORIGINS", "", "feedback_origins", ()),
        ("TRUSTED_PROXIES", '["10.0.0.1"]', "trusted_proxies", ("10.0.0.1",)),
        ("ACCESS", "required", "access", AccessMode.REQUIRED),
        ("TOKEN_KEYS", "/etc/keys.json", "token_keys_file", Path("/etc/keys.json")),
    ],
)
def test_a_setting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"THUMBWHEEL_{variable}", text)
    assert getattr(settings.load_gateway(), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("REDACTION", "emails"),
        ("REDACTION", "[email"),
        ("DEFAULT_PURPOSES", "all"),
        ("TOKEN_ACTIONS", ""),
        ("ACCESS", "x"),
    ],
)
def test_a_setting_that_can_not_be_used_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(f"THUMBWHEEL_{variable}", text)
    with pytest.raises(SettingsError, match=f"THUMBWHEEL_{variable}"):
        settings.load_gateway()


def test_the_secrets_are_below_the_data_folder_unless_told_otherwise() -> None:
    files = settings.load_access_files(Path("/data"))
    assert files.api_keys_file == Path("/data/secrets/api_keys.json")
    assert files.token_keys_file == Path("/data/secrets/token_keys.json")
    assert files.pseudonym_key_file == Path("/data/secrets/pseudonym_key.json")
