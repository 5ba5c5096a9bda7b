"""The terminal: one console for what is asked for, one for what is said beside it."""

import os
from functools import cache

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_COLUMNS = 160


@cache
def out() -> Console:
    """Standard output: results, which may be piped."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """Standard error: progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_COLUMNS  # a pipe has no width: rather long lines than broken ones
    return console


def table(*columns: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """An empty table in the one style of all commands.

    The columns in `right` hold numbers; those in `whole` are never broken into lines.
    """
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in whole
        )
    return result
