"""Faust on a Kafka connection of ours: credentials, and a consumer that rests while there is nothing to read.

Faust's consumer always has a fetch under way. A broker that answers an empty fetch at once, instead of holding it
back for a while, makes that a loop that costs half a core on each side. So after an empty round the assignment is
paused for a moment, in the consumer's own thread; aiokafka keeps what a fetch brings that was already on its way.
"""

import asyncio
import ssl
from typing import Any

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from faust.types.auth import CredentialsT

from schemas.connection import KafkaConnection

LISTEN_SECONDS = 0.1


def resting_transport(urls: Any, app: faust.App, *, idle_seconds: float) -> driver.Transport:
    """Faust's own Kafka transport with a consumer that rests `idle_seconds` after an empty round."""

    class Thread(driver.AIOKafkaConsumerThread):
        async def _fetch_records(
            self,
            consumer: aiokafka.AIOKafkaConsumer,
            active_partitions: Any,
            timeout: Any = None,
            max_records: Any = None,
        ) -> Any:
            records = await super()._fetch_records(consumer, active_partitions, LISTEN_SECONDS, max_records)
            if not records and idle_seconds > 0:
                await _rest(consumer, idle_seconds)
            return records

    class Consumer(driver.Consumer):
        def _new_consumer_thread(self) -> Thread:
            return Thread(self, loop=self.loop, beacon=self.beacon)

    class Transport(driver.Transport):
        pass

    Transport.Consumer = Consumer
    return Transport(urls, app)


async def _rest(consumer: aiokafka.AIOKafkaConsumer, seconds: float) -> None:
    paused = consumer.assignment()
    consumer.pause(*paused)
    try:
        await asyncio.sleep(seconds)
    finally:
        consumer.resume(*(paused & consumer.assignment()))


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
