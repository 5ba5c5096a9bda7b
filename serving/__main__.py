"""`python -m serving gateway | rollout`: the two programs of this service, configured by the environment alone."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

from schemas import logs
from schemas.errors import ThumbwheelError
from serving import settings as reader

_EXAMPLES = """\
examples:
  THUMBWHEEL_BASE_MODEL=models/smollm2 THUMBWHEEL_PORT=8000 python -m serving gateway
  THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:9092 python -m serving rollout

Settings are environment variables with the prefix THUMBWHEEL_; serving/settings.py lists them all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Answers chat completions and takes feedback; decides which model version answers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    programs = parser.add_subparsers(dest="program", required=True, metavar="PROGRAM")
    programs.add_parser("gateway", help="the OpenAI-compatible HTTP gateway")
    programs.add_parser("rollout", help="the rollout controller: promotes versions that passed their gates")
    program = parser.parse_args(arguments).program
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the program takes over: ending while a model loads is no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        return _gateway() if program == "gateway" else _rollout()
    except ThumbwheelError as error:
        logging.getLogger("serving").error("can't go on: %s", error)
        return 1


def _gateway() -> int:
    settings = reader.load_gateway()
    logs.configure("gateway", settings.log_level)
    # Imported late: --help must not wait for torch.
    from serving.app import serve

    serve(settings)
    return 0


def _rollout() -> int:
    settings = reader.load_rollout()
    logs.configure("rollout", settings.log_level)
    from serving.controller import run

    run(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
