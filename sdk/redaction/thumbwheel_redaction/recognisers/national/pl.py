"""Poland: PESEL.

Source: Ustawa o ewidencji ludności, art. 15: date of birth (the century is added to the month: 1900s +0, 2000s +20,
2100s +40, 2200s +60, 1800s +80), serial, check digit with the weights 1, 3, 7, 9. Of random numbers with eleven
digits two in a hundred pass.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, matching

_NUMBER = re.compile(LEFT + r"[0-9]{11}" + RIGHT)


def valid(number: str) -> bool:
    """A date, and the check digit."""
    month, day = int(number[2:4]) % 20, int(number[4:6])
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return 1 <= month <= 12 and 1 <= day <= 31 and weighted(number, weights) % 10 == 0


PL = Recogniser("pl_pesel", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
