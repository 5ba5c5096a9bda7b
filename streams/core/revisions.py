"""Derived tables as revisions: what must be appended so that the latest rows are the rows that are wanted.

A derived row is a function of the evidence alone, so recomputing it from scratch and reaching it by increments
give the same latest rows; only the revision numbers tell the paths apart.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from schemas.tables import AnnotatorRow, PreferenceRow, RatingRow, ResponseRow

Row = TypeVar("Row", ResponseRow, RatingRow, PreferenceRow, AnnotatorRow)


def revise(current: Mapping[str, Row], wanted: Mapping[str, Row]) -> list[Row]:
    """The rows to append, in the order of their ids.

    `current` holds the latest revision of every row that might have to change (retracted ones as well: their
    revision numbers go on), `wanted` what should be there. A row that is already right is not written again.
    """
    changed = [_next(current.get(row_id), row) for row_id, row in sorted(wanted.items())]
    gone = [_retract(row) for row_id, row in sorted(current.items()) if row_id not in wanted and not row.retracted]
    return [row for row in changed if row is not None] + gone


def latest(rows: list[Row], key: Callable[[Row], str]) -> dict[str, Row]:
    """The row with the highest revision of each id."""
    found: dict[str, Row] = {}
    for row in rows:
        known = found.get(key(row))
        if known is None or known.revision < row.revision:
            found[key(row)] = row
    return found


def _next(current: Row | None, wanted: Row) -> Row | None:
    if current is None:
        return wanted.model_copy(update={"revision": 1, "retracted": False})
    renewed = wanted.model_copy(update={"revision": current.revision, "retracted": False})
    if renewed == current:
        return None
    return renewed.model_copy(update={"revision": current.revision + 1})


def _retract(row: Row) -> Row:
    return row.model_copy(update={"revision": row.revision + 1, "retracted": True})
