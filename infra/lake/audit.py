"""Who took people's content out of the lake, and who brought some in: an event that must arrive."""

import getpass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.local.log import FIRST_ANSWER_SECONDS, Publisher
from schemas import topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable

SOURCE = "infra/cli/tables"


def ensure_reachable(kafka: KafkaConnection, without: str, option: str) -> None:
    """Raises `BrokerUnavailable` before any work is done: `without` a broker what, and which `option` goes on so."""
    client = AdminClient({**kafka.client_config(), "log_level": "0"})
    try:
        found = client.list_topics(topics.AUDIT.name, timeout=FIRST_ANSWER_SECONDS).topics[topics.AUDIT.name]
    except KafkaException as error:
        raise BrokerUnavailable(
            f"no broker answers at {kafka.bootstrap_servers}, so {without};"
            f" start it (`thumbwheel up`), name it by --bootstrap-servers, or say {option}"
        ) from error
    if found.error is not None:
        raise BrokerUnavailable(f"the topic {topics.AUDIT.name} does not exist; run `thumbwheel topics create`")


def publish(kafka: KafkaConnection, action: str, *, target: str, detail: str) -> None:
    """Publish one audit event and wait for its acknowledgement; raises `BrokerUnavailable`."""
    audit = Audit.model_validate({"actor": actor(), "action": action, "target": target[:200], "detail": detail})
    publisher = Publisher(kafka)
    publisher.publish(topics.AUDIT, new_event(audit, source=SOURCE))
    publisher.flush()


def actor() -> str:
    """Who works at the terminal."""
    return f"cli:{getpass.getuser()}"
