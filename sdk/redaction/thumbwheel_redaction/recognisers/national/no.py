"""Norway: fødselsnummer and D-nummer.

Source: Skatteetaten, Folkeregisterforskriften § 2-2-1: date of birth (day plus 40 for a D-number), three digits, two
check digits modulo 11. Of random numbers with eleven digits three in a thousand pass.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(LEFT + r"[0-7][0-9][01][0-9]{3}[ ]?[0-9]{5}" + RIGHT)


def valid(number: str) -> bool:
    """A date, and both check digits."""
    eleven = digits(number)
    day, month = int(eleven[:2]) % 40, int(eleven[2:4])
    first = weighted(eleven, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1))
    second = weighted(eleven, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1))
    return 1 <= day <= 31 and 1 <= month <= 12 and first % 11 == 0 and second % 11 == 0


NO = Recogniser("no_fodselsnummer", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
