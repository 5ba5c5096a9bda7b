"""Denmark: CPR numbers.

Source: CPR-kontoret: date of birth, a hyphen, four digits. Since 2007 numbers are given out that fail the old check
modulo 11, so there is nothing to check but the date: it needs a key word.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, matching, words

_NUMBER = re.compile(LEFT + r"(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{2}[- ]?[0-9]{4}" + RIGHT)
_KEY_WORDS = words("cpr", "personnummer", "personnr", "civil registration")

DK = Recogniser(
    "dk_cpr",
    Kind.NATIONAL_ID,
    matching(_NUMBER, key_words=_KEY_WORDS),
    digits=10,
    words=("cpr", "personn", "civil registration"),
)
