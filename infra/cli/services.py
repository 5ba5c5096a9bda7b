"""`thumbwheel gateway | rollout | ingest | refine | agents | trainer`: one service in the foreground."""

from typing import Annotated

import typer

from infra.cli.options import Bootstrap, Data, ModelName, locate

MetricsPort = Annotated[
    int, typer.Option("--metrics-port", min=0, max=65535, help="Port for Prometheus metrics; 0 is off.")
]

_TEXTS = {
    "rollout": "Decide which model version serves: promote what passed its gates, retire what it replaces.",
    "ingest": "Write events from Kafka into bronze tables, exactly once; bad ones to the dead letters.",
    "refine": "Make ratings, preferences and label tasks of what is in bronze.",
    "agents": "Compute live indicators by version (Faust).",
    "trainer": "Wait for enough new preferences and run update cycles.",
}


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Add one subcommand for each service."""
    text = "Answer chat completions and take feedback over HTTP."
    example = "Example: thumbwheel gateway --port 8000 --model tiny"
    app.command(short_help=text, help=text + _NOTE, rich_help_panel=panel, epilog=example)(gateway)
    for name, text in _TEXTS.items():
        example = f"Example: thumbwheel {name} --bootstrap-servers 127.0.0.1:9092 --metrics-port 9101"
        app.command(name, short_help=text, help=text + _NOTE, rich_help_panel=panel, epilog=example)(_runner(name))


_NOTE = " Logs are JSON lines on stderr; Ctrl-C stops it."


def gateway(
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    model: ModelName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    from infra.cli.foreground import become
    from infra.local.ports import is_free
    from infra.local.processes import BY_NAME
    from schemas.errors import SettingsError

    if port and not is_free(port, host):
        raise SettingsError(f"port {port} on {host} is in use or not ours; stop what listens there, or choose another")
    place = locate(data, bootstrap_servers)
    settings = {"THUMBWHEEL_PORT": str(port), "THUMBWHEEL_HOST": host}
    become(place, BY_NAME["gateway"].command(), model=model, settings=settings)


def _runner(name: str):
    def run(
        data: Data = None,
        bootstrap_servers: Bootstrap = None,
        model: ModelName = None,
        metrics_port: MetricsPort = 0,
    ) -> None:
        from infra.cli.foreground import become
        from infra.local.processes import BY_NAME

        place = locate(data, bootstrap_servers)
        settings = {"THUMBWHEEL_METRICS_PORT": str(metrics_port)} if metrics_port else {}
        become(place, BY_NAME[name].command(), model=model, settings=settings)

    return run
