"""Canada: social insurance numbers.

Source: Employment and Social Development Canada: nine digits, the first not 8 (and 0 for nobody but in examples), the
last a Luhn check digit; printed in groups of three. In groups it stands alone only with hyphens; otherwise it needs a
key word.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import luhn
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, near, words

_NUMBER = re.compile(LEFT + r"[0-79][0-9]{2}([ -]?)[0-9]{3}\1[0-9]{3}" + RIGHT)
_KEY_WORDS = words("sin(?![a-z])", "social insurance", "nas(?![a-z])", "assurance sociale")


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """Numbers that check out."""
    for match in _NUMBER.finditer(text, start, end):
        if luhn(digits(match[0])) and (match[1] == "-" or near(text, match.start(), _KEY_WORDS)):
            yield Span(*match.span())


CA = Recogniser("ca_sin", Kind.NATIONAL_ID, find, digits=9)
