"""`thumbwheel demo`: the whole loop once around, with simulated users."""

from typing import Annotated

import typer

from infra.cli.options import Bootstrap


def demo(
    model: Annotated[str, typer.Option(help="smollm2, tiny, a folder, or a Hugging Face id.")] = "smollm2",
    taste: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What the users like: (prompt: str, response: str) -> float, higher is better.",
            show_default=False,
        ),
    ] = "",
    cycles: Annotated[int, typer.Option(help="Update cycles to wait for.")] = 2,
    users: Annotated[int, typer.Option(help="Simulated users.")] = 40,
    noise: Annotated[float, typer.Option(help="Share of ratings that say the opposite.")] = 0.2,
    spammers: Annotated[int, typer.Option(help="Users that rate at random, and much.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of users, traffic and training.")] = 0,
    bootstrap_servers: Bootstrap = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Folder of the run (default runs/demo-<time>).")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
) -> None:
    """Run the whole loop on this machine with simulated users, and write a report.

    Examples:

      thumbwheel demo                                             two update cycles of SmolLM2-135M

      thumbwheel demo --model tiny --taste mymodule:mytaste       a small model and a taste of your own
    """
    from pathlib import Path

    from infra.demo import DemoOptions, run

    chosen = {"taste": taste} if taste else {}
    options = DemoOptions(
        model=model,
        cycles=cycles,
        users=users,
        noise=noise,
        spammers=spammers,
        seed=seed,
        bootstrap_servers=bootstrap_servers,
        data=Path(data) if data else None,
        plain=plain,
        **chosen,
    )
    raise typer.Exit(run(options))
