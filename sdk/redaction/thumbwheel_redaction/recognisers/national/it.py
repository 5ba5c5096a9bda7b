"""Italy: codice fiscale.

Source: Decreto Ministeriale 23 December 1976: six letters of the name, year, month (a letter of ABCDEHLMPRST), day
(plus 40 for women), four characters of the place, a check character over the fifteen before it. Where two people
would share a code, digits are replaced by letters of LMNPQRSTUV (omocodia).
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, matching

_DIGIT = "[0-9LMNPQRSTUV]"
_CODE = re.compile(
    LEFT + rf"[A-Z]{{6}}{_DIGIT}{{2}}[ABCDEHLMPRST]{_DIGIT}{{2}}[A-Z]{_DIGIT}{{3}}[A-Z]" + RIGHT, re.IGNORECASE
)
_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def valid(code: str) -> bool:
    """Characters at odd places (from 1) count by a table, at even places by their value; the sum modulo 26 is the last
    letter. A digit d counts as the d-th letter."""
    values = [int(c) if c.isdigit() else ord(c) - ord("A") for c in code.upper()]
    total = sum(_ODD[value] for value in values[:15:2]) + sum(values[1:15:2])
    return total % 26 == values[15]


IT = Recogniser("it_codice_fiscale", Kind.NATIONAL_ID, matching(_CODE, valid), digits=7)
