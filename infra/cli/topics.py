"""`thumbwheel topics`: the topics on a broker."""

from typing import Annotated

import typer

from infra.cli.options import Bootstrap, Data, locate

SHOWN_PLACES = 20

app = typer.Typer(help="Create the topics on a broker, see what is on them, or move them.", no_args_is_help=True)


@app.command(epilog="Example: thumbwheel topics create --bootstrap-servers kafka-1:9092")
def create(data: Data = None, bootstrap_servers: Bootstrap = None) -> None:
    """Create every topic that is missing; those that exist stay as they are."""
    from infra.cli.terminal import err, out
    from infra.local.topics import create_topics

    place = locate(data, bootstrap_servers)
    done = create_topics(place.kafka)
    out().print(
        f"{len(done.created)} topics created, {len(done.existing)} were there ({place.kafka.bootstrap_servers})"
    )
    for name in done.created:
        out().print(f"  {name}")
    for difference in done.differing:
        err().print(f"[yellow]note:[/] {difference}; recreate the topic, or leave it if that is on purpose")


@app.command(epilog="Example: thumbwheel topics describe")
def describe(data: Data = None, bootstrap_servers: Bootstrap = None) -> None:
    """Each topic's partitions, how long it is kept, and how many events it holds."""
    from infra.cli.terminal import err, out, table
    from infra.local.topics import describe_topics
    from schemas.topics import plan

    place = locate(data, bootstrap_servers)
    found = describe_topics(place.kafka)
    grid = table(
        "topic", "parts", "offsets", "events", "kept", right=("parts", "offsets", "events"), whole=("topic", "kept")
    )
    for topic in found:
        offsets = f"{topic.end_offset - topic.events:,} - {topic.end_offset:,}" if topic.end_offset else "-"
        grid.add_row(topic.name, str(topic.partitions), offsets, f"{topic.events:,}", kept(topic.settings))
    out().print(grid)
    missing = len(plan()) - len(found)
    if missing:
        err().print(f"[yellow]note:[/] {missing} topics are missing; `thumbwheel topics create` makes them")


@app.command(epilog="Example: thumbwheel topics copy --from 127.0.0.1:9092 --bootstrap-servers kafka-1:9092")
def copy(
    source: Annotated[str, typer.Option("--from", metavar="HOST:PORT", help="The broker to copy from.")],
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out messages whose headers no client can read (a name is not UTF-8), instead of stopping.",
        ),
    ] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Move to another Kafka: all events into its empty topics, each at the offset that it had.

    Nothing may write to either side meanwhile: stop the gateways first, copy, and start everything on the new one. The
    tables go on where they were. An interrupted copy is taken up by the same command.
    """
    from rich.progress import Progress

    from infra.cli.terminal import err, out, table
    from infra.local.copying import copy_log
    from schemas.connection import KafkaConnection

    place = locate(data, bootstrap_servers)
    with Progress(console=err(), transient=True) as progress:
        task = progress.add_task("copying", total=None)
        copied = copy_log(
            KafkaConnection(bootstrap_servers=source),
            place.kafka,
            skip_unreadable=skip_unreadable,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    grid = table("topic", "events", "padding", right=("events", "padding"), whole=("topic",))
    for topic in copied:
        grid.add_row(topic.topic, f"{topic.events:,}", f"{topic.padded:,}")
    out().print(grid)
    out().print(f"copied from {source} to {place.kafka.bootstrap_servers}; every event has the offset that it had")
    for topic in copied:
        if topic.skipped:
            places = ", ".join(f"{partition}/{offset}" for partition, offset in topic.skipped[:SHOWN_PLACES])
            more = f" and {len(topic.skipped) - SHOWN_PLACES:,} more" if len(topic.skipped) > SHOWN_PLACES else ""
            err().print(
                f"[yellow]note:[/] {len(topic.skipped):,} messages of {topic.topic} were left out, their headers can't"
                f" be read: partition/offset {places}{more}"
            )


def kept(settings: dict[str, str]) -> str:
    """Retention in words: `7 d, 1 GiB a part`, or `compacted`."""
    if settings.get("cleanup.policy") == "compact":
        return "compacted"
    days = int(settings["retention.ms"]) / 86_400_000
    size = int(settings["retention.bytes"]) / (1 << 30)
    return f"{days:g} d, {size:g} GiB a part"
