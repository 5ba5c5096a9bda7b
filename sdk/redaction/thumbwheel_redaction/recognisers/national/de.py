"""Germany: tax identification numbers (Steuer-ID).

Source: Bundeszentralamt für Steuern, § 139b AO: eleven digits, the first not 0; among the first ten exactly one digit
occurs twice or three times (if three times, not all three side by side); the last is a check digit, ISO/IEC 7064 MOD
11,10. Of random numbers with eleven digits four in a thousand pass.
"""

import re
from collections import Counter

from thumbwheel_redaction.checks import mod_11_10
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(LEFT + r"[1-9][0-9](?:[ ]?[0-9]{3}){3}" + RIGHT)


def valid(number: str) -> bool:
    """The rule of repeated digits, and the check digit."""
    eleven = digits(number)
    repeated = sorted(count for count in Counter(eleven[:10]).values() if count > 1)
    thrice = any(digit * 3 in eleven[:10] for digit in "0123456789")
    return repeated in ([2], [3]) and not thrice and mod_11_10(eleven)


DE = Recogniser("de_steuer_id", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
