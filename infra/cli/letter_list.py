"""Dead letters in lists on the terminal, or as JSON. What they hold is not shown."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from infra.cli.letters import Count, Filed

CELL_CHARACTERS = 160


def print_counts(counts: "Sequence[Count]") -> None:
    """How many there are by topic and reason."""
    from infra.cli.terminal import out, table

    numbers = ("open", "retried", "dropped")
    grid = table(
        "topic", "reason", *numbers, "newest", "for example", right=numbers, whole=("topic", "reason", "newest")
    )
    for c in counts:
        grid.add_row(
            c.topic,
            c.reason,
            f"{c.open:,}",
            f"{c.retried:,}",
            f"{c.dropped:,}",
            shown_moment(c.newest),
            _cell(c.detail),
        )
    out().print(grid)


def print_letters(found: "Sequence[Filed]") -> None:
    """One line each."""
    from infra.cli.terminal import out, table

    if not found:
        out().print("no letter of these is meant")
        return
    grid = table("id", "state", "failed at", "reason", "where", "detail", whole=("id", "state", "failed at", "reason"))
    for f in found:
        where = f"{f.topic.removeprefix('thumbwheel.')}/{f.partition} {f.offset}"
        grid.add_row(f.id, str(f.state), shown_moment(f.failed_at), f.reason, where, _cell(f.detail))
    out().print(grid)


def _cell(text: str) -> "Text":
    from rich.text import Text

    from infra.cli.letter_view import one_line

    whole = one_line(text)
    return Text(whole if len(whole) <= CELL_CHARACTERS else f"{whole[:CELL_CHARACTERS]}...")


def tally(letters: "Sequence[Filed]") -> dict[str, int]:
    """How many of each reason."""
    from collections import Counter

    return dict(sorted(Counter(f.reason for f in letters).items()))


def fields(record: "Count | Filed") -> dict[str, object]:
    """A record for programs."""
    from dataclasses import asdict

    return asdict(record)


def print_json(value: object) -> None:
    """Moments as ISO times."""
    import json

    typer.echo(json.dumps(value, indent=2, default=lambda moment: moment.isoformat()))


def of_ms(milliseconds: int) -> datetime | None:
    """None where no calendar has the moment: a producer may claim any time."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def shown_moment(time: datetime | None) -> str:
    """In local time."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "not known"
