"""Turns this process into one of the services, with its settings filled in."""

import os
from pathlib import Path
from typing import NoReturn

from infra.cli.options import Place


def become(place: Place, command: tuple[str, ...], *, model: str | None, settings: dict[str, str]) -> NoReturn:
    """Replace this process by `command` (signals then reach it directly). Raises `ModelError`, `SettingsError`."""
    from infra.cli.terminal import err
    from infra.local.processes import Model, environment, public_name
    from infra.models.catalog import prepare

    name = model or place.model or "smollm2"
    source = prepare(name, place.models, progress=lambda line: err().print(line))
    place.data.mkdir(parents=True, exist_ok=True)
    filled = environment(data=place.data, kafka=place.kafka, model=Model(public_name(name), source))
    # What the user set in the environment goes before what we would choose, not before an option.
    chosen = {k: v for k, v in filled.items() if k not in os.environ or k.startswith("THUMBWHEEL_")}
    os.execve(command[0], list(command), {**os.environ, **chosen, **settings})  # noqa: S606 - an argument list of ours


def find(name: str) -> Path:
    """The path of a file that must exist; raises `SettingsError`."""
    from schemas.errors import SettingsError

    path = Path(name).expanduser()
    if not path.is_file():
        raise SettingsError(f"there is no file {name}; check the path")
    return path
