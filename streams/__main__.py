"""`python -m streams ingest | refine | agents`: one program a process, configured by the environment alone."""

import argparse
import logging
import signal
import sys
import threading

from pydantic import ValidationError

from schemas import logs
from schemas.errors import ThumbwheelError
from streams.metrics import Metrics
from streams.settings import StreamSettings

logger = logging.getLogger("streams")

_PROGRAMS = {
    "ingest": "topics into bronze tables, exactly once; what is no event becomes a dead letter",
    "refine": "bronze into responses, ratings and preferences; scores into label tasks",
    "agents": "live indicators by version and segment (Faust)",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one program until SIGTERM or SIGINT; the exit code is 0 after an orderly stop."""
    program = _parser().parse_args(arguments).program
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = StreamSettings()
    except ValidationError as error:
        print(f"error: the settings don't work: {error}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2
    logs.configure(program, settings.log_level)
    try:
        _run(program, settings, stop)
    except ThumbwheelError as error:
        logger.error(str(error))
        return 1
    logger.info("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streams",
        description="Kafka to Delta. Settings come from the environment: THUMBWHEEL_DATA,"
        " THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS, THUMBWHEEL_METRICS_PORT and so on (streams/settings.py).",
    )
    commands = parser.add_subparsers(dest="program", required=True, metavar="PROGRAM")
    for name, what in _PROGRAMS.items():
        commands.add_parser(name, help=what, description=what)
    return parser


def _run(program: str, settings: StreamSettings, stop: threading.Event) -> None:
    """Each program is imported where it runs: deltalake, polars and Faust take a second or two."""
    metrics = Metrics()
    metrics.serve(settings.metrics_port)
    logger.info("starting", extra={"lake": str(settings.lake), "kafka": settings.kafka.bootstrap_servers})
    if program == "ingest":
        from streams.ingest import Ingest

        Ingest(settings, metrics, stop).run()
    elif program == "refine":
        from streams.refine import Refine

        Refine(settings, metrics, stop).run()
    else:
        from streams.agents import run

        run(settings, metrics, stop)


if __name__ == "__main__":
    sys.exit(main())
