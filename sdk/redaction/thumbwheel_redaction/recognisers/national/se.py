"""Sweden: personnummer and samordningsnummer.

Source: Folkbokföringslag (1991:481) § 18: date of birth (for a coordination number the day plus 60), a hyphen (a plus
from the age of 100), three digits, a Luhn check digit over the ten. With the hyphen it stands alone; without, behind
a key word.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import luhn
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, near, words

_NUMBER = re.compile(
    LEFT
    + r"(?:19|20)?[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]|6[1-9]|[78][0-9]|9[01])([-+]?)[0-9]{4}"
    + RIGHT
)
_KEY_WORDS = words("personnummer", "pers", "samordning", "pnr", "personal number", "personal identity")


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """Numbers whose last ten digits check out."""
    for match in _NUMBER.finditer(text, start, end):
        if luhn(digits(match[0])[-10:]) and (match[1] or near(text, match.start(), _KEY_WORDS)):
            yield Span(*match.span())


SE = Recogniser("se_personnummer", Kind.NATIONAL_ID, find, digits=10)
