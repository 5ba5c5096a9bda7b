"""Options that several subcommands share, and what they come to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from schemas.connection import KafkaConnection

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of all state (default ./.thumbwheel; THUMBWHEEL_DATA).",
        show_default=False,
    ),
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        help="The Kafka to use (THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS; SASL and TLS by the variables beside it).",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Base model: smollm2 (default), tiny, a folder, or a Hugging Face id.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Place:
    """Where a command works. `named`: the user named a broker; `gateway_url` and `model` are the running stack's."""

    data: Path
    kafka: "KafkaConnection"
    models: Path
    named: bool
    gateway_url: str | None
    model: str | None


def locate(data: Path | None, bootstrap_servers: str | None) -> Place:
    """The folder and the broker: as given, else by the environment, else those of the stack that runs on the folder.

    Raises `SettingsError` for a variable that can't be used.
    """
    from infra import settings as reader
    from infra.local.state import running_stack

    settings = reader.load()
    folder = (data or settings.data).expanduser().resolve()
    running = running_stack(folder)
    named = bool(bootstrap_servers) or settings.names_a_broker
    servers = bootstrap_servers or (running.bootstrap_servers if running and not settings.names_a_broker else None)
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": servers}) if servers else settings.kafka
    return Place(
        folder,
        kafka,
        settings.models_folder(),
        named,
        running.gateway_url if running else None,
        running.model if running else None,
    )
