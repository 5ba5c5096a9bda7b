"""Faust on a Kafka connection of ours: addresses and credentials."""

import ssl

import faust
from faust.types.auth import CredentialsT

from schemas.connection import KafkaConnection


def broker_urls(kafka: KafkaConnection) -> list[str]:
    """The bootstrap servers as Faust names them."""
    return [f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")]


def credentials(kafka: KafkaConnection) -> CredentialsT | None:
    """SASL and TLS as Faust names them; None for a plain connection."""
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = _tls(kafka) if kafka.security_protocol.endswith("SSL") else None
    if kafka.sasl_mechanism is None:
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username,
        password=kafka.password(),
        mechanism=kafka.sasl_mechanism,
        ssl_context=context,
    )


def _tls(kafka: KafkaConnection) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(kafka.ssl_ca_location) if kafka.ssl_ca_location else None)
    if kafka.ssl_certificate_location:
        context.load_cert_chain(kafka.ssl_certificate_location, kafka.ssl_key_location)
    return context
