"""`thumbwheel up`: everything on this machine until Ctrl-C."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap, Data, locate

if TYPE_CHECKING:
    from infra.local.stack import LocalStack
    from infra.local.supervisor import Status

LOOK_SECONDS = 0.5


def up(
    model: Annotated[str, typer.Option(help="smollm2, tiny, a folder, or a Hugging Face id.")] = "smollm2",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")] = 8000,
    broker_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The embedded broker's port; 0 takes a free one.")
    ] = 0,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Run everything on this machine until Ctrl-C: broker, streams, gateway, rollout controller, trainer.

    All state is under one folder, so that the next start goes on where this one stopped. A process that dies is
    started again. Other commands on the same folder find the running stack by themselves.

    Examples:

      thumbwheel up

      thumbwheel up --model tiny --port 8080 --data /var/lib/thumbwheel

      thumbwheel up --bootstrap-servers kafka-1:9092        (your Kafka instead of the embedded broker)
    """
    from infra.cli.errors import shown
    from infra.cli.foreground import undisturbed
    from infra.cli.terminal import err
    from infra.local.stack import LocalStack, StackOptions

    place = locate(data, bootstrap_servers)
    options = StackOptions(
        data=place.data,
        model=model,
        models_dir=place.models,
        kafka=place.kafka if place.named else None,
        gateway_port=port,
        broker_port=broker_port,
    )
    stack = LocalStack(options, progress=lambda line: err().print(line))
    with terminated_like_interrupted(), contextlib.suppress(KeyboardInterrupt):
        try:
            stack.start()
            err().print("waiting for the gateway (it loads the model)")
            stack.wait_until_ready()
            _greet(stack)
            _watch(stack)
        finally:
            with undisturbed():
                if stack.running:
                    err().print("stopping")
                stack.stop()
    err().print(f"stopped; the state is kept in {shown(stack.data)}")


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _greet(stack: "LocalStack") -> None:
    from infra.cli.errors import shown
    from infra.cli.terminal import out

    url = stack.gateway_url
    place = "" if stack.data == Path(".thumbwheel").resolve() else f" --data {shown(stack.data)}"
    own = "" if stack.options.kafka else " (embedded)"
    out().print(
        f"""
[bold green]Thumbwheel is up.[/] Ctrl-C stops it.

  gateway   {url}/v1        OpenAI's chat completions, model `thumbwheel`
  broker    {stack.bootstrap_servers}{own}
  state     {shown(stack.data)}   logs in {shown(stack.logs)}

[bold]Ask, and rate the answer by its id:[/]
  curl -s {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "thumbwheel", "messages": [{{"role": "user", "content": "Where is my parcel?"}}]}}'
  curl -s {url}/v1/feedback -H 'content-type: application/json' \\
    -d '{{"response_id": "chatcmpl-...", "kind": "thumbs_up"}}'

[bold]In another terminal:[/]
  thumbwheel versions list{place}        also: label, train --now, topics describe, doctor
"""
    )


def _watch(stack: "LocalStack") -> None:
    """Say what changes, until a process stays down (raises `StackFailed`) or someone interrupts."""
    from infra.cli.terminal import out

    before: dict[str, Status] = {}
    while True:
        stack.check()
        now = {status.name: status for status in stack.processes()}
        for line in changes(before, now):
            out().print(f"[dim]{time.strftime('%H:%M:%S')}[/] {line}")
        before = now
        time.sleep(LOOK_SECONDS)


def changes(before: "dict[str, Status]", now: "dict[str, Status]") -> list[str]:
    """What happened to the processes between two looks, in words."""
    lines = list[str]()
    for name, status in now.items():
        old = before.get(name)
        if old is None or old == status:
            continue
        if status.restarts > old.restarts:
            lines.append(f"[yellow]{name}[/] ended with code {status.exit_code} and runs again as {status.pid}")
        elif old.running and not status.running:
            lines.append(f"[yellow]{name}[/] ended with code {status.exit_code}; its log: {status.log}")
    return lines
