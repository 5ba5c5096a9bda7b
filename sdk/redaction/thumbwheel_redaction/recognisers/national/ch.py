"""Switzerland: AHV numbers.

Source: Bundesamt für Sozialversicherungen, AHVN13: 756, nine digits, and a check digit as in EAN-13 (weights 1 and 3).
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(LEFT + r"756[. ]?[0-9]{4}[. ]?[0-9]{4}[. ]?[0-9]{2}" + RIGHT)


def valid(number: str) -> bool:
    """Whether the check digit fits."""
    return weighted(digits(number), (1, 3) * 6 + (1,)) % 10 == 0


CH = Recogniser("ch_ahv", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=13)
