"""United States: social security numbers, and the tax numbers (ITIN) of those who have none.

Source: Social Security Administration, SSN randomization (2011): area not 000, 666 or 900-999, group not 00, serial
not 0000. Internal Revenue Service: an ITIN begins with 9, its fourth and fifth digits are 50-65, 70-88, 90-92 or
94-99. There is no check digit. Printed `123-45-6789` it stands alone unless a word says that it is another number;
other spellings need a key word. Two numbers that were printed in advertisements are known to be nobody's, and are
replaced all the same.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, near, words

_NUMBER = re.compile(LEFT + r"[0-9]{3}([ -]?)[0-9]{2}\1[0-9]{4}" + RIGHT)
_KEY_WORDS = words(
    "ssn", "social sec", "social insurance", "itin", "taxpayer", "tax id", "tin ", "last four", "ss#", "ss number"
)
_OTHER_WORDS = words(
    "part", "order", "sku", "item", "model", "serial", "product", "catalog", "code", "ref", "invoice", "ticket"
)
_ITIN_GROUPS = frozenset([*range(50, 66), *range(70, 89), *range(90, 93), *range(94, 100)])


def valid(number: str) -> bool:
    """Whether nine digits can be a social security number or an ITIN."""
    area, group, serial = number[:3], number[3:5], number[5:]
    if area[0] == "9":
        return int(group) in _ITIN_GROUPS
    return area not in ("000", "666") and group != "00" and serial != "0000"


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """Valid numbers: with hyphens where no word says otherwise, else behind a key word."""
    for match in _NUMBER.finditer(text, start, end):
        if not valid(digits(match[0])):
            continue
        stands_alone = match[1] == "-" and not near(text, match.start(), _OTHER_WORDS, 24)
        if stands_alone or near(text, match.start(), _KEY_WORDS):
            yield Span(*match.span())


US = Recogniser("us_ssn", Kind.NATIONAL_ID, find, digits=9)
