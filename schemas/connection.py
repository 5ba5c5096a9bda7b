"""How a process names its Kafka cluster: the same fields in every service's settings."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from schemas.errors import SettingsError


class KafkaConnection(BaseModel):
    """Bootstrap servers and security options, passed through to the clients.

    From the environment: `THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS`, `THUMBWHEEL_KAFKA__SASL_PASSWORD_FILE`, and so on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    ssl_ca_location: Path | None = None
    ssl_certificate_location: Path | None = None
    ssl_key_location: Path | None = None

    def password(self) -> str | None:
        """The SASL password, from the setting or its file; raises `SettingsError` when the file can't be read."""
        if self.sasl_password_file is None:
            return self.sasl_password.get_secret_value() if self.sasl_password else None
        try:
            return self.sasl_password_file.read_text().strip()
        except OSError as error:
            raise SettingsError(
                f"can't read the SASL password from {self.sasl_password_file}: {error.strerror}"
            ) from error

    def client_config(self) -> dict[str, str]:
        """The options as librdkafka names them."""
        options = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.password(),
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
        }
        return {name: str(value) for name, value in options.items() if value is not None}
