"""Netherlands: burgerservicenummer, behind a key word.

Source: Besluit burgerservicenummer, the eleven test: weights 9 to 2 and -1 over nine digits give a multiple of 11.
One number in eleven passes, so nine digits count only behind a key word.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching, words

_NUMBER = re.compile(LEFT + r"[0-9]{3,4}[ .]?[0-9]{2}[ .]?[0-9]{3}" + RIGHT)
_KEY_WORDS = words("bsn", "burgerservice", "sofi", "citizen service")


def valid(number: str) -> bool:
    """The eleven test."""
    nine = digits(number)
    return len(nine) == 9 and nine != "000000000" and weighted(nine, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


NL = Recogniser(
    "nl_bsn",
    Kind.NATIONAL_ID,
    matching(_NUMBER, valid, key_words=_KEY_WORDS),
    digits=9,
    words=("bsn", "burgerservice", "sofi", "citizen service"),
)
