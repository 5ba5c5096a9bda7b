"""India: Aadhaar numbers, and PAN behind a key word.

Source: UIDAI: twelve digits, the first 2 to 9, the last a Verhoeff check digit; printed in groups of four. One in ten
random numbers passes, so in a row of twelve digits it needs a key word. Income Tax Department: a PAN is five letters
(the fourth one of ABCFGHJLPT), four digits, a letter; it has no check that is published.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import verhoeff
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching, near, words

_AADHAAR = re.compile(LEFT + r"(?<![0-9] )[2-9][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}" + RIGHT + r"(?! [0-9])")
_AADHAAR_WORDS = words("aadha?ar", "uidai", "uid ")

_PAN = re.compile(LEFT + r"[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z]" + RIGHT, re.IGNORECASE)
_PAN_WORDS = words("pan ", "pan:", "pan-", "permanent account", "income tax")


def _aadhaar(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _AADHAAR.finditer(text, start, end):
        if verhoeff(digits(match[0])) and (match[1] or near(text, match.start(), _AADHAAR_WORDS)):
            yield Span(*match.span())


AADHAAR = Recogniser("in_aadhaar", Kind.NATIONAL_ID, _aadhaar, digits=12)
PAN = Recogniser(
    "in_pan",
    Kind.NATIONAL_ID,
    matching(_PAN, key_words=_PAN_WORDS),
    digits=4,
    words=("pan", "permanent account", "income tax"),
)
