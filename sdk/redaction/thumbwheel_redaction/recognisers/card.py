"""Numbers of payment cards.

Source: ISO/IEC 7812-1 (at most 19 digits, the Luhn check digit) and the issuers' published number ranges: Visa 4
(16 or 19; 13 have not been given out for decades, and article numbers have as many);
Mastercard 51-55 and 2221-2720; American Express 34, 37; Discover 6011, 644-649, 65; Diners Club 300-305, 3095, 36,
38, 39; JCB 3528-3589; UnionPay 62, 81; Maestro 50, 56-58, 6 (12 to 19 digits; those under 13 are left out); Mir
2200-2204.

Digits may be separated one from the other by single spaces, hyphens or dots. A number that fails the check is none:
nearly nine of ten order numbers fail it, and with the issuers' ranges and lengths most of the rest.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import luhn
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_SHORTEST, _LONGEST = 13, 19

# (first digits from, to, lengths)
_RANGES: tuple[tuple[str, str, frozenset[int]], ...] = (
    ("4", "4", frozenset({16, 19})),
    ("51", "55", frozenset({16})),
    ("2221", "2720", frozenset({16})),
    ("34", "34", frozenset({15})),
    ("37", "37", frozenset({15})),
    ("6011", "6011", frozenset({16, 19})),
    ("644", "659", frozenset({16, 19})),
    ("300", "305", frozenset({14, 16, 19})),
    ("3095", "3095", frozenset({14, 16, 19})),
    ("36", "36", frozenset({14, 16, 19})),
    ("38", "39", frozenset({14, 16, 19})),
    ("3528", "3589", frozenset({16, 17, 18, 19})),
    ("62", "62", frozenset({16, 17, 18, 19})),
    ("81", "81", frozenset({16, 17, 18, 19})),
    ("50", "50", frozenset({13, 14, 15, 16, 17, 18, 19})),
    ("56", "58", frozenset({13, 14, 15, 16, 17, 18, 19})),
    ("6304", "6304", frozenset({13, 14, 15, 16, 17, 18, 19})),
    ("67", "67", frozenset({13, 14, 15, 16, 17, 18, 19})),
    ("2200", "2204", frozenset({16, 17, 18, 19})),
)

_RUN = re.compile(r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z]-)(?<![0-9][.,])[2-68][0-9]{0,18}(?:[ .-][0-9]{1,19}){0,18}")
_GROUP = re.compile(r"[0-9]{1,19}")


def issued(number: str) -> bool:
    """Whether an issuer gives out numbers that begin like this and have this length."""
    return any(
        low <= number[: len(low)] <= high and len(number) in lengths for low, high, lengths in _RANGES
    )  # as text: both sides have the same number of digits


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """In a run of groups of digits, the longest series of whole groups from one group on that is a card's number."""
    for run in _RUN.finditer(text, start, end):
        if run.end() - run.start() < _SHORTEST or text[run.end() : run.end() + 1].isalnum():
            continue
        groups = [group.span() for group in _GROUP.finditer(text, run.start(), run.end())]
        first = 0
        while first < len(groups):
            last = _card(text, groups, first)
            if last is not None:
                yield Span(groups[first][0], groups[last][1])
                first = last
            first += 1


def _card(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The index of the last group of the longest card number that begins with group `first`."""
    number, found = "", None
    for index in range(first, len(groups)):
        number += text[slice(*groups[index])]
        if len(number) > _LONGEST:
            break
        if len(number) >= _SHORTEST and issued(number) and luhn(number):
            found = index
    return found


CARD = Recogniser("card", Kind.CARD, find, digits=_SHORTEST)
