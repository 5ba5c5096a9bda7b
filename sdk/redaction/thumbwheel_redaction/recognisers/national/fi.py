"""Finland: personal identity codes (HETU).

Source: Valtioneuvoston asetus 128/2010 and 690/2022: date of birth, a sign for the century, three digits, and a check
character: the nine digits modulo 31 in 0123456789ABCDEFHJKLMNPRSTUVWXY.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_CHECKS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_CODE = re.compile(
    LEFT + rf"(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{{2}}[-+A-FU-Y][0-9]{{3}}[{_CHECKS}]" + RIGHT
)


def valid(code: str) -> bool:
    """Whether the check character fits."""
    return _CHECKS[int(digits(code[:-1])) % 31] == code[-1]


FI = Recogniser("fi_hetu", Kind.NATIONAL_ID, matching(_CODE, valid), digits=8)
