"""Belgium: numbers of the national register.

Source: Koninklijk besluit 3 April 1984: date of birth, serial, and 97 - (the nine digits modulo 97), with a 2 in
front of them for those born from 2000 on.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(LEFT + r"[0-9]{2}[. ]?[0-9]{2}[. ]?[0-9]{2}[-. ]?[0-9]{3}[-. ]?[0-9]{2}" + RIGHT)


def valid(number: str) -> bool:
    """A date, and the check digits of one of the two centuries."""
    eleven = digits(number)
    month, day = int(eleven[2:4]) % 20, int(eleven[4:6])
    checks = (97 - int(century + eleven[:9]) % 97 for century in ("", "2"))
    return month <= 12 and day <= 31 and int(eleven[9:]) in checks


BE = Recogniser("be_national_register", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
