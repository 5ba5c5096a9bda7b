"""`thumbwheel train`: an update cycle now, or the reward model alone."""

import sys
from typing import Annotated

import typer

from infra.cli.options import Bootstrap, Data, ModelName, locate


def train(
    now: Annotated[bool, typer.Option("--now", help="Run one update cycle at once, however little is new.")] = False,
    reward_only: Annotated[
        bool, typer.Option("--reward-only", help="Train the reward model alone, and report its held-out accuracy.")
    ] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    model: ModelName = None,
) -> None:
    """Run one update cycle on what is in the tables, or train the reward model alone.

    Examples:

      thumbwheel train --now            reward model, policy, gates, and a version if it passes

      thumbwheel train --reward-only    held-out accuracy with an interval, beside the length baseline
    """
    from infra.cli.foreground import run_readably

    if now == reward_only:
        raise typer.BadParameter("say either --now or --reward-only (`thumbwheel trainer` waits for enough new labels)")
    place = locate(data, bootstrap_servers)
    program = "once" if now else "reward-only"
    command = (sys.executable, "-P", "-m", "trainer", program)
    raise typer.Exit(run_readably(place, command, model=model, settings={}))
