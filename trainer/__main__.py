"""`python -m trainer run | once | reward-only | reproduce`: configured by the environment alone.

`once`, `reward-only --json` and `reproduce` print one JSON object on stdout; progress is logged on stderr.
"""

import argparse
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

from pydantic import ValidationError

from schemas import logs
from schemas.cycles import CycleStatus
from schemas.errors import ThumbwheelError

if TYPE_CHECKING:
    from trainer.settings import TrainerSettings

logger = logging.getLogger("trainer")


def main(arguments: list[str] | None = None) -> int:
    """Run one program. Exit codes: 0 done (a refused version included), 1 failed, 2 wrong settings."""
    given = _parser().parse_args(arguments)
    from trainer.settings import TrainerSettings  # brings torch, which takes seconds to import: --help does without

    try:
        settings = TrainerSettings()
    except ValidationError as error:
        print(f"error: the settings don't work: {error}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2
    logs.configure("trainer", settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        return _run(given, settings, stop)
    except ThumbwheelError as error:
        logger.error(str(error))
        return 0 if stop.is_set() else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Update cycles: labels to a reward model, to a policy, through the gates, to a version."
        " Settings come from the environment: THUMBWHEEL_DATA, THUMBWHEEL_BASE_MODEL,"
        " THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS and so on (trainer/settings.py).",
    )
    commands = parser.add_subparsers(dest="program", required=True, metavar="PROGRAM")
    commands.add_parser("run", help="wait for labels and run cycles, until SIGTERM")
    commands.add_parser("once", help="one cycle now; prints its outcome as JSON")
    reward_only = commands.add_parser("reward-only", help="the reward model on all labels; prints a table")
    reward_only.add_argument("--json", action="store_true", help="print JSON instead of the table")
    reproduce = commands.add_parser("reproduce", help="run a version's cycle again and compare the weights")
    reproduce.add_argument("version", help="for example v3")
    return parser


def _run(given: argparse.Namespace, settings: "TrainerSettings", stop: threading.Event) -> int:
    from trainer import app

    if given.program == "run":
        app.run_service(settings, stop)
        return 0
    if given.program == "once":
        outcome = app.run_once(settings, stop)
        _print(outcome.model_dump_json(exclude={"announced", "conclusive"}))
        return 1 if outcome.status is CycleStatus.FAILED and not stop.is_set() else 0
    if given.program == "reward-only":
        report = app.run_reward_only(settings, stop)
        _print(report.model_dump_json() if given.json else report.table())
        return 0
    found = app.compare(settings, given.version, stop.is_set)
    _print(found.model_dump_json())
    return 0 if found.same else 1


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the result of a command


if __name__ == "__main__":
    sys.exit(main())
