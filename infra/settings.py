"""The command line's settings: the only reader of the environment in `infra`, besides what children inherit."""

from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


class InfraSettings(BaseSettings):
    """What the commands take from the environment; options on the command line go before it."""

    model_config = SettingsConfigDict(env_prefix="THUMBWHEEL_", env_nested_delimiter="__", frozen=True, extra="ignore")

    data: Path = Path(".thumbwheel")
    kafka: KafkaConnection = KafkaConnection()
    models: Path | None = None
    """Where prepared base models are kept."""

    @property
    def names_a_broker(self) -> bool:
        """Whether the environment says where the broker is."""
        return "bootstrap_servers" in self.kafka.model_fields_set

    def models_folder(self) -> Path:
        """As set; else `models` in the checkout, wherever the command was called from; else `models` here."""
        if self.models is not None:
            return self.models.expanduser().resolve()
        checkout = (ROOT / "pyproject.toml").is_file()
        return (ROOT if checkout else Path.cwd()) / "models"


def load() -> InfraSettings:
    """The settings from the environment; raises `SettingsError` with the variable to mend."""
    try:
        return InfraSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "THUMBWHEEL_" + "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"the setting {name} can't be used: {first['msg']}; correct it and try again") from error
