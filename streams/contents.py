"""What a table says, as one number: the same whatever the order of its rows, their revisions, or the layout of files.

The hashes of the rows are added up (AdHash; Bellare & Micciancio 1997, "A new paradigm for collision-free hashing"),
so that a table can be read in slices, in any order, and rows can be taken in one by one. It tells copies apart that
differ by accident; it is no protection against somebody who constructs rows for it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

UNCOUNTED = frozenset({"revision", "retracted"})
"""How often a row was written is the history of a table and not what it says. Retracted rows are not there at all."""

_MODULUS = 1 << 256


def counted(columns: Iterable[str]) -> tuple[str, ...]:
    """The columns that make up a table's content, by name."""
    return tuple(sorted(set(columns) - UNCOUNTED))


def row_hash(row: Mapping[str, Any], columns: Sequence[str]) -> int:
    """The hash of one row's cells; times compare as moments, wherever their zone."""
    text = json.dumps([[name, row[name]] for name in columns], default=_plain, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


class Content:
    """A set of rows as a count and a sum of hashes."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.rows = 0
        self._sum = 0

    def add(self, *hashes: int) -> None:
        """Take in rows by their hashes."""
        self.rows += len(hashes)
        self._sum = (self._sum + sum(hashes)) % _MODULUS

    def merge(self, other: "Content") -> None:
        """Take in all rows of another set."""
        assert self.columns == other.columns
        self.rows += other.rows
        self._sum = (self._sum + other._sum) % _MODULUS

    def __str__(self) -> str:
        """64 hex digits over the names of the columns, the number of rows, and the sum."""
        whole = json.dumps([self.columns, self.rows, f"{self._sum:064x}"])
        return hashlib.sha256(whole.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"no column holds a {type(value).__name__}")
