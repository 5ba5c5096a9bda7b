"""Runs a service in the foreground, with its settings filled in."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from infra.cli.options import Place


def become(place: Place, command: tuple[str, ...], *, model: str | None, settings: dict[str, str]) -> NoReturn:
    """Replace this process by `command` (signals then reach it directly). Raises `ModelError`, `SettingsError`."""
    os.execve(command[0], list(command), environment_of(place, model=model, settings=settings))  # noqa: S606 - a list of ours


def run_readably(place: Place, command: tuple[str, ...], *, model: str | None, settings: dict[str, str]) -> int:
    """Run `command` to its end, with its log as lines for humans on stderr, and return its exit code.

    Ctrl-C reaches it directly, SIGTERM is passed on; it is waited for while it ends in order.
    """
    from infra.cli.terminal import err
    from infra.local.tether import tethered

    environment = environment_of(place, model=model, settings=settings)
    with (
        undisturbed(),
        subprocess.Popen(tethered(list(command)), env=environment, stderr=subprocess.PIPE, text=True) as child,
    ):
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # a Ctrl-C it gets from the terminal itself
        assert child.stderr is not None
        for line in child.stderr:
            err().print(readable(line), markup=False)
    return child.returncode


def run_with_bar(
    place: Place,
    program: str,
    *arguments: str,
    model: str | None,
    settings: dict[str, str] | None = None,
    stages: tuple[str, ...] | None = None,
) -> tuple[int, dict[str, Any] | None]:
    """Run a program of the trainer with a bar by stage: its exit code, and the JSON object that it printed.

    Ctrl-C reaches it directly and it ends in order; errors and warnings of its log are shown as lines.
    """
    from infra.cli.stage_bar import StageBar
    from infra.cli.terminal import err
    from infra.local.tether import tethered

    command = [sys.executable, "-P", "-m", "trainer", program, *arguments]
    environment = environment_of(place, model=model, settings=settings or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        undisturbed(),
        StageBar(err(), *([stages] if stages else [])) as bar,
        subprocess.Popen(tethered(command), env=environment, **pipes) as child,
    ):
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        assert child.stderr is not None and child.stdout is not None
        for line in child.stderr:
            bar.heard(line)
        printed = child.stdout.read()  # one line at the end: no pipe fills up meanwhile
    told = printed.strip().splitlines()[-1:]
    return child.returncode, json.loads(told[0]) if told else None


def readable(line: str) -> str:
    """A log line without its JSON; an error as `error: ...`, and what is no log line as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line.rstrip()
    if not isinstance(record, dict) or "message" not in record:
        return line.rstrip()
    if record.get("level") in ("error", "critical"):
        return f"error: {record['message']}"
    known = ("time", "level", "process", "logger", "message", "exception")
    more = " ".join(f"{name}={value}" for name, value in record.items() if name not in known)
    return f"{str(record.get('time', ''))[11:19]} {record['message']}  {more}".rstrip()


def environment_of(place: Place, *, model: str | None, settings: dict[str, str]) -> dict[str, str]:
    """The environment of a service: what is inherited, what follows from the options, and `settings`."""
    from infra.cli.terminal import err
    from infra.local.processes import Model, environment, public_name
    from infra.models.catalog import prepare

    name = model or place.model or "smollm2"
    source = prepare(name, place.models, progress=lambda line: err().print(line))
    place.data.mkdir(parents=True, exist_ok=True)
    filled = environment(data=place.data, kafka=place.kafka, model=Model(public_name(name), source))
    # What the user set in the environment goes before what we would choose, not before an option.
    chosen = {k: v for k, v in filled.items() if k not in os.environ or k.startswith("THUMBWHEEL_")}
    return {**os.environ, **chosen, **settings}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """For this block a Ctrl-C does nothing here: processes that we wait for are ending."""
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    # A function and not SIG_IGN, which a child would inherit through exec.
    pass


def find(name: str) -> Path:
    """The path of a file that must exist; raises `SettingsError`."""
    from schemas.errors import SettingsError

    path = Path(name).expanduser()
    if not path.is_file():
        raise SettingsError(f"there is no file {name}; check the path")
    return path
