"""`thumbwheel doctor`: what is wrong on this machine, and how to mend it."""

from typing import Annotated

import typer

from infra.cli.options import Bootstrap, Data, locate


def doctor(
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The gateway's port, as `up` will use it.")] = 8000,
) -> None:
    """Check versions, broker, topics, tables, models, ports, disk and memory; each line says how to mend it.

    The exit code is 1 if anything fails; it works with nothing running.

    Example: thumbwheel doctor --bootstrap-servers kafka-1:9092
    """
    from rich.markup import escape

    from infra.cli.checks import Grade, all_checks
    from infra.cli.terminal import out

    place = locate(data, bootstrap_servers)
    marks = {Grade.OK: "[green]ok  [/]", Grade.WARN: "[yellow]warn[/]", Grade.FAIL: "[red]FAIL[/]"}
    found = list[Grade]()
    for check in all_checks(place, gateway_port=port):
        found.append(check.grade)
        out().print(f"{marks[check.grade]}  [bold]{check.subject:<10}[/] {escape(check.found)}")
        if check.mend:
            out().print(f"                  [dim]->[/] {escape(check.mend)}")
    failed, warned = found.count(Grade.FAIL), found.count(Grade.WARN)
    if failed:
        out().print(f"\n{failed} failed, {warned} to look at: mend what fails first, from the top")
        raise typer.Exit(1)
    out().print("\nall is well" if not warned else f"\nit can run; {warned} to look at")
