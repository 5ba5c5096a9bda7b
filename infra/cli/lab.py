"""`thumbwheel lab`: the update cycle against simulated populations, with many seeds."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.lab.options import LabOptions

EPILOG = (
    "Examples: thumbwheel lab --model tiny --seeds 5 --cycles 3 | thumbwheel lab --poisoners 0.05 --data runs/poison | "
    "thumbwheel lab --segment shop=my.tastes:short --segment help=my.tastes:kind"
)
STOPPED = 130


def lab(
    model: Annotated[str, typer.Option(help="tiny, smollm2, a folder, or a Hugging Face id.")] = "tiny",
    taste: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What people like: (prompt: str, response: str) -> float, higher is better.",
            show_default=False,
        ),
    ] = "",
    segments: Annotated[
        list[str] | None,
        typer.Option(
            "--segment", metavar="NAME=MODULE:FUNCTION", help="A part of the people with a taste of its own; repeat it."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many populations, one after the other.")] = 5,
    first_seed: Annotated[int, typer.Option(help="The seed of the first.")] = 0,
    cycles: Annotated[int, typer.Option(help="Update cycles of each.")] = 3,
    users: Annotated[int, typer.Option(help="Users of each, all kinds together.")] = 60,
    answers: Annotated[int, typer.Option(help="Answers that they are given in each cycle.")] = 1000,
    flips: Annotated[float, typer.Option(help="Share of people's votes that say the opposite.")] = 0.2,
    spammers: Annotated[float, typer.Option(help="Share of users who vote without looking, and much.")] = 0.1,
    poisoners: Annotated[float, typer.Option(help="Share of users who vote together for a bad property.")] = 0.0,
    poison: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="That property (default: rudeness).", show_default=False)
    ] = "",
    drift_at: Annotated[
        int, typer.Option(metavar="CYCLE", help="The cycle from which on everybody's taste is --drift-taste.")
    ] = 0,
    drift_taste: Annotated[str, typer.Option(metavar="MODULE:FUNCTION", show_default=False)] = "",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Folder of the run (default runs/lab-<time>); go on with one."),
    ] = None,
) -> None:
    """Judge the update cycle itself: run it whole, without a broker, against simulated people whose taste is known.

    Writes results.jsonl and report.html. What is finished is not run again: the same command with the same --data goes
    on after Ctrl-C or a crash, and more --seeds or --cycles add to it. The trainer's settings (THUMBWHEEL_PPO__...)
    apply.
    """
    from infra.lab.options import LabOptions, segment

    chosen = {"taste": taste, "poison": poison}
    options = LabOptions(
        model=model,
        segments=tuple(map(segment, segments or ())),
        drift_at=drift_at,
        drift_taste=drift_taste,
        seeds=seeds,
        first_seed=first_seed,
        cycles=cycles,
        users=users,
        answers=answers,
        flips=flips,
        spammers=spammers,
        poisoners=poisoners,
        **{name: value for name, value in chosen.items() if value},
    )
    raise typer.Exit(_run(options, data))


def _run(options: "LabOptions", data: str | None) -> int:
    """The lab with a progress bar; the exit code."""
    from datetime import UTC, datetime
    from pathlib import Path

    from infra import settings
    from infra.cli.errors import shown
    from infra.cli.terminal import err, out, table
    from infra.lab import runner, screen
    from infra.lab.page import FILE
    from infra.lab.stop import Interrupted
    from infra.lab.world import Setup
    from infra.models.catalog import prepare
    from infra.simulate import tastes

    folder = Path(data or f"runs/lab-{datetime.now(UTC):%Y%m%dT%H%M%S}").expanduser().resolve()
    loaded = {name: tastes.load(name) for name in options.taste_names()}
    base = prepare(options.model, settings.load().models_folder(), progress=lambda line: err().print(line))
    setup = Setup(options, folder, base, loaded)
    screen.log_to(folder)
    try:
        with screen.watched(options, err(), finished=len(runner.stored(setup))) as watched:
            results = runner.run(setup, told=watched.told, ended=watched.ended, stop=watched.stop)
    except Interrupted:
        err().print(f"stopped; the same command with --data {shown(folder)} goes on", markup=False)
        return STOPPED
    out().print(screen.table(results, table(*screen.columns(), right=screen.columns(), whole=screen.columns())))
    out().print(screen.closing(results), markup=False)
    out().print(f"report: {shown(folder / FILE)}", markup=False)
    return 0
