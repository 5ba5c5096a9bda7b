"""Portugal: taxpayer numbers (NIF), behind a key word.

Source: Decreto-Lei 14/2013, Autoridade Tributária: nine digits, weights 9 to 2, check digit 11 - (sum modulo 11), 10
and 11 counted as 0.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching, words

_NUMBER = re.compile(LEFT + r"[1-35-9][0-9]{2}[ .]?[0-9]{3}[ .]?[0-9]{3}" + RIGHT)
_KEY_WORDS = words("nif", "contribuinte", "identifica[cç][aã]o fiscal")


def valid(number: str) -> bool:
    """Whether the check digit fits."""
    nine = digits(number)
    check = 11 - weighted(nine, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return int(nine[8]) == (0 if check > 9 else check)


PT = Recogniser(
    "pt_nif",
    Kind.NATIONAL_ID,
    matching(_NUMBER, valid, key_words=_KEY_WORDS),
    digits=9,
    words=("nif", "contribuinte", "identifica"),
)
