"""Turkey: identity numbers (T.C. kimlik no).

Source: Nüfus Hizmetleri Kanunu, NVİ: eleven digits, the first not 0. Tenth: (7 times the sum of the odd places minus
the sum of the even ones) modulo 10; eleventh: the sum of the ten modulo 10.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, matching

_NUMBER = re.compile(LEFT + r"[1-9][0-9]{10}" + RIGHT)


def valid(number: str) -> bool:
    """Whether both check digits fit."""
    d = [int(digit) for digit in number]
    return d[9] == (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10 and d[10] == sum(d[:10]) % 10


TR = Recogniser("tr_kimlik", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
