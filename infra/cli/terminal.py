"""The terminal: one console for what is asked for, one for what is said beside it."""

from functools import cache

from rich import box
from rich.console import Console
from rich.table import Table


@cache
def out() -> Console:
    """Standard output: results, which may be piped."""
    return Console(highlight=False, soft_wrap=True)


@cache
def err() -> Console:
    """Standard error: progress and remarks."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table in the one style of all commands; the columns in `right` hold numbers."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result
