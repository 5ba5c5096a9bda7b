"""All seeds of a lab, one after the other, and its folder.

<folder>/lab.json        the options, and the trainer's settings that decide what comes out
         results.jsonl   one line for each finished cycle
         report.html     written after every seed and at the end
         seed-000/       tables, log, registry and cycles of a seed, as in a data folder
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from infra.lab.page import write
from infra.lab.results import CycleResult, Results, finished
from infra.lab.stop import Interrupted, Stop
from infra.lab.world import Setup, World, trainer_settings
from schemas.errors import LeaseHeld, SettingsError
from trainer.adapters.cycles import Lease
from trainer.adapters.files import write_whole

OPTIONS = "lab.json"
GROWING = ("seeds", "first_seed", "cycles")
"""Options that may differ when a folder is taken up again: more of the same."""
PLACES = {
    "data", "lake", "lake_options", "kafka", "base_model", "seed", "split_seed", "metrics_port", "log_level",
    "poll_seconds", "min_new_preferences", "max_cycles", "feature_cache_mb",
}  # fmt: skip
"""The trainer's settings that say where things are, or when a service begins a cycle."""

Told = Callable[[int, int, str, float], None]
"""Told seed, cycle, what it is at, and how far that is."""


def run(
    setup: Setup,
    *,
    told: Told = lambda *_: None,
    ended: Callable[[CycleResult], None] = lambda _: None,
    stop: Stop = lambda: False,
) -> list[CycleResult]:
    """Run what is missing, and return all results of the options' seeds and cycles.

    Raises `Interrupted` where it was asked to stop, `SettingsError` where the folder is another lab's or in use; the
    same call goes on from there.
    """
    setup.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as alone:
        try:
            alone.enter_context(Lease(setup.folder))
        except LeaseHeld as error:
            raise SettingsError(
                f"another lab is running in {setup.folder}; wait for it, or give another --data"
            ) from error
        _same_lab(setup)
        results = Results(setup.folder)
        try:
            for seed in setup.options.seed_range:
                if _seed(setup, seed, results, told=told, ended=ended, stop=stop):
                    write(setup.folder, setup.options, results.read())
        except Interrupted:
            write(setup.folder, setup.options, results.read())
            raise
        write(setup.folder, setup.options, results.read())
    return stored(setup)


def stored(setup: Setup) -> list[CycleResult]:
    """The results that there are of the options' seeds and cycles; a folder may hold more."""
    seeds, cycles = setup.options.seed_range, setup.options.cycles
    return [r for r in Results(setup.folder).read() if r.seed in seeds and r.cycle <= cycles]


def _seed(
    setup: Setup, seed: int, results: Results, *, told: Told, ended: Callable[[CycleResult], None], stop: Stop
) -> bool:
    """What is missing of a seed; whether there was something."""
    done = finished(results.read())
    missing = [cycle for cycle in range(1, setup.options.cycles + 1) if (seed, cycle) not in done]
    if not missing:
        return False
    at = missing[0]
    world = World(setup, seed, tell=lambda what, share: told(seed, at, what, share), stop=stop)
    for at in missing:
        result = world.cycle(at)
        results.append(result)
        ended(result)
    return True


def _same_lab(setup: Setup) -> None:
    """Write the options down, or compare them with those that are there."""
    file, wanted = setup.folder / OPTIONS, _described(setup)
    if not file.is_file():
        write_whole(file, json.dumps(wanted, indent=2) + "\n")
        return
    held = json.loads(file.read_text(encoding="utf-8"))
    for part in ("options", "trainer"):
        for name in sorted(wanted[part].keys() | held.get(part, {}).keys()):
            was, now = held.get(part, {}).get(name), wanted[part].get(name)
            if was != now and name not in GROWING:
                raise SettingsError(
                    f"{setup.folder} is a lab with {name} {_short(was)}, and this one has {_short(now)}: give the same,"
                    " or another --data"
                )


def _described(setup: Setup) -> dict[str, Any]:
    trainer = trainer_settings(setup, 0).model_dump(mode="json", exclude=PLACES)
    return json.loads(json.dumps({"options": asdict(setup.options), "trainer": trainer}))


def _short(value: object) -> str:
    return "unset" if value is None else json.dumps(value)[:80]
