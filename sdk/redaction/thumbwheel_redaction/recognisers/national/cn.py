"""China: resident identity numbers.

Source: GB 11643-1999: region (six digits), date of birth (eight), serial (three), and a check character, ISO/IEC 7064
MOD 11-2, with X for 10.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, matching

_NUMBER = re.compile(
    LEFT + r"[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]" + RIGHT
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def valid(number: str) -> bool:
    """Whether the check character fits."""
    return "10X98765432"[weighted(number, _WEIGHTS) % 11] == number[17].upper()


CN = Recogniser("cn_resident_id", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=17)
