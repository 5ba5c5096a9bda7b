"""The port through which a statistical model finds people's names, and a fake of it."""

import re
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from thumbwheel_redaction.findings import Span


@runtime_checkable
class NameFinder(Protocol):
    """Finds people's names. One finder serves every thread, so it keeps nothing between calls."""

    def find(self, text: str) -> Iterable[Span]:
        """The spans of names in the text, in any order; they may overlap."""
        ...


class KnownNames:
    """A finder that knows a list of names, in whatever case. For tests, and for names that are known beforehand."""

    def __init__(self, names: Iterable[str]) -> None:
        # Longer names first, so that `Ann Smith` isn't found as `Ann`.
        listed = sorted({name for name in names if name}, key=len, reverse=True)
        self._pattern = (
            re.compile(r"\b(?:" + "|".join(map(re.escape, listed)) + r")\b", re.IGNORECASE) if listed else None
        )

    def find(self, text: str) -> Iterable[Span]:
        """Where the listed names stand as whole words."""
        return [] if self._pattern is None else [Span(*match.span()) for match in self._pattern.finditer(text)]
