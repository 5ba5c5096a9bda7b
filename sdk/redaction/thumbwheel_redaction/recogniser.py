"""What a recogniser is, and the cheap look at a text that tells which ones are worth running, and where."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind

Find = Callable[[str, int, int], Iterator[Span]]
"""`find(text, start, end)`: the spans of what is recognised in characters `start` to `end` of a folded text (see
`folding`). It may look at what stands around them: key words in front, edges of words."""


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One rule, in time linear in the length of the text, and what a text must hold for the rule to be tried at all.

    digits: its values hold at least so many digits. From `FEWEST_DIGITS` on they stand close together, and it is tried
        only around numbers that long; with fewer, anywhere in a text that has a digit; 0: anywhere.
    run: its values hold so many characters without white space; 0: any number.
    marks: one of these stands in the text, as it is written.
    words: one of these (in small letters) stands in the text, in whatever case. With both, either will do.
    """

    name: str
    kind: Kind
    find: Find
    digits: int = 0
    run: int = 0
    marks: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class Region(NamedTuple):
    """A stretch of text around a number: where it begins and ends, and how many digits the number has."""

    start: int
    end: int
    digits: int


FEWEST_DIGITS = 6  # of what recognisers with `digits` look for
_MARGIN = 40  # characters around a number; no value reaches further
_NUMBER = re.compile(r"[0-9](?:[^0-9\n]{0,6}[0-9]){5,400}")
_DIGIT = re.compile(r"[0-9]")


class Glance:
    """Facts about a text that cost little; those that cost more are computed once, where a recogniser asks for them.

    They are made of substring tests, which run at memory speed: ordinary text is let through within microseconds,
    because this sits in the path of every request. (No `functools.cached_property`: in Python 3.11 it takes a lock.)
    """

    __slots__ = ("_longest_run", "_regions", "has_digit", "lower", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.lower = lower(text)  # for finding words
        self.has_digit = _DIGIT.search(text) is not None
        self._longest_run: int | None = None
        self._regions: list[Region] | None = None

    @property
    def longest_run(self) -> int:
        """The most characters that stand together without white space."""
        if self._longest_run is None:
            self._longest_run = max(map(len, self.text.split()), default=0)
        return self._longest_run

    @property
    def regions(self) -> list[Region]:
        """Where numbers of at least `FEWEST_DIGITS` digits stand, whatever separates the digits. Regions that touch are
        one, with the digits of its longest number."""
        if self._regions is None:
            self._regions = _regions(self.text) if self.has_digit else []
        return self._regions

    def permits(self, recogniser: Recogniser) -> bool:
        """Whether the text is of the kind that the recogniser asks for, and holds a mark or a word of it."""
        if recogniser.digits and not self.has_digit:
            return False
        if recogniser.run and recogniser.run > self.longest_run:
            return False
        if recogniser.marks and _holds(self.text, recogniser.marks):
            return True
        if recogniser.words and _holds(self.lower, recogniser.words):
            return True
        return not recogniser.marks and not recogniser.words


def _regions(text: str) -> list[Region]:
    regions: list[Region] = []
    for match in _NUMBER.finditer(text):
        start, end, digits = max(0, match.start() - _MARGIN), match.end() + _MARGIN, len(_DIGIT.findall(match[0]))
        if regions and start <= regions[-1].end:
            start, _, digits_before = regions.pop()
            digits = max(digits, digits_before)
        regions.append(Region(start, end, digits))
    return regions


def lower(text: str) -> str:
    """The text in small letters, each character at its place (`İ` and its like, that become two, stay)."""
    small = text.lower()
    if len(small) == len(text):
        return small
    return "".join(form if len(form := character.lower()) == 1 else character for character in text)


def _holds(text: str, parts: Iterable[str]) -> bool:
    for part in parts:  # noqa: SIM110  (a generator would take as long as the tests themselves)
        if part in text:
            return True
    return False
