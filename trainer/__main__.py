"""`python -m trainer run | once | reward-only | score | reproduce | distill`: configured by the environment alone.

`once`, `reproduce`, `distill`, and `reward-only` and `score` with --json print one JSON object on stdout; progress
goes to stderr.
"""

import argparse
import logging
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from schemas import logs
from schemas.cycles import CycleStatus
from schemas.errors import ThumbwheelError

if TYPE_CHECKING:
    from trainer.adapters.processes import Processes
    from trainer.settings import TrainerSettings

logger = logging.getLogger("trainer")

REFUSED, STOPPED = 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one program. Exit codes: 0 done (a refused version included), 1 failed, 2 wrong settings.

    Of a distillation also 3, refused by a gate (the student is kept), and 130, stopped.
    """
    given = _parser().parse_args(arguments)
    from trainer.settings import TrainerSettings  # both bring torch, which takes seconds to import: --help does without
    from trainer.stages import Stopped

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
        processes = _processes(given, settings)
        if processes > 1:
            from trainer.adapters.launching import launch

            return launch(processes, sys.argv[1:] if arguments is None else arguments)
        return _led(given, settings, stop)
    except ThumbwheelError as error:
        if given.program == "distill" and isinstance(error, Stopped):
            return STOPPED  # what it has finished can be gone on with
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
    _add_score(commands)
    reproduce = commands.add_parser("reproduce", help="run a version's cycle again and compare the weights")
    reproduce.add_argument("version", help="for example v3")
    _add_distill(commands)
    return parser


def _add_distill(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    distill = commands.add_parser("distill", help="a smaller student of a version; prints its report as JSON")
    distill.add_argument("--teacher", help="a version, or base; the live one")
    student = distill.add_mutually_exclusive_group(required=True)
    student.add_argument("--student", help="a folder with a model, or a Hugging Face id")
    student.add_argument("--layers", type=int, help="so many of the teacher's own blocks")
    distill.add_argument("--student-name", help="how the student's model is called")
    distill.add_argument("--output", type=Path, help="the student's folder")


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = commands.add_parser("score", help="what a reward model says of answers; prints a table")
    score.add_argument("--limit", type=int, default=256, help="at most so many answers, the newest")
    score.add_argument("--version", help="answers of this version alone")
    score.add_argument("--since", type=datetime.fromisoformat, help="answers from this moment on (ISO, with a zone)")
    score.add_argument("--file", type=Path, help="answers of this file: JSONL with prompt and completion")
    score.add_argument("--reward-model", help="for example reward-v3 or v3; the newest that passed its gate")
    score.add_argument("--dry-run", action="store_true", help="write nothing to gold/scores")
    score.add_argument("--json", action="store_true", help="print JSON instead of the table")


def _processes(given: argparse.Namespace, settings: "TrainerSettings") -> int:
    """How many processes are to be started for the program: those of the settings, for a repetition the record's."""
    from trainer.adapters.launching import launched
    from trainer.adapters.registry import Registry

    if launched() or given.program not in ("run", "once", "reproduce"):
        return 1
    if given.program == "reproduce":
        return Registry(settings.registry).record(given.version).config.processes
    return settings.processes


def _led(given: argparse.Namespace, settings: "TrainerSettings", stop: threading.Event) -> int:
    """Run the program; of several processes it is the first one's, and the others help it."""
    from trainer import app
    from trainer.adapters.launching import end_with_the_launcher

    team = app.processes(settings)
    if team is None:
        return _run(given, settings, stop, None)
    end_with_the_launcher()
    if team.rank:
        app.run_helper(settings, team, stop)
        return 0
    try:
        return _run(given, settings, stop, team)
    finally:
        team.close()


def _run(
    given: argparse.Namespace, settings: "TrainerSettings", stop: threading.Event, team: "Processes | None"
) -> int:
    from trainer import app

    if given.program == "run":
        app.run_service(settings, stop, team=team)
        return 0
    if given.program == "once":
        outcome = app.run_once(settings, stop, team=team)
        _print(outcome.model_dump_json(exclude={"announced", "conclusive"}))
        return 1 if outcome.status is CycleStatus.FAILED and not stop.is_set() else 0
    if given.program == "reward-only":
        report = app.run_reward_only(settings, stop)
        _print(report.model_dump_json() if given.json else report.table())
        return 0
    if given.program == "score":
        _print(_scored(given, settings))
        return 0
    if given.program == "distill":
        return _distilled(given, settings, stop)
    found = app.compare(settings, given.version, stop.is_set, team=team)
    _print(found.model_dump_json())
    return 0 if found.same else 1


def _distilled(given: argparse.Namespace, settings: "TrainerSettings", stop: threading.Event) -> int:
    from trainer import app
    from trainer.distill_sources import DistillRequest

    request = DistillRequest(
        teacher=given.teacher,
        model=given.student,
        model_name=given.student_name,
        layers=given.layers,
        output=given.output,
    )
    report = app.distill(settings, request, stop.is_set)
    _print(report.model_dump_json())
    return 0 if report.passed else REFUSED


def _scored(given: argparse.Namespace, settings: "TrainerSettings") -> str:
    from trainer import app
    from trainer.score_report import ScoreRequest, as_json

    names = ("limit", "version", "since", "file", "reward_model", "dry_run")
    report = app.run_score(settings, ScoreRequest(**{name: getattr(given, name) for name in names}))
    return as_json(report) if given.json else report.table()


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the result of a command


if __name__ == "__main__":
    sys.exit(main())
