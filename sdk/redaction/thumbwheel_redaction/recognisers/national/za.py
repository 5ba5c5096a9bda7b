"""South Africa: identity numbers.

Source: Identification Act 68 of 1997, Department of Home Affairs: date of birth, four digits, citizenship (0, 1, 2),
a digit that is 8 or 9, a Luhn check digit.
"""

import re

from thumbwheel_redaction.checks import luhn
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(
    LEFT + r"[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[ ]?[0-9]{4}[ ]?[012][89][0-9]" + RIGHT
)

ZA = Recogniser("za_id", Kind.NATIONAL_ID, matching(_NUMBER, lambda number: luhn(digits(number))), digits=13)
