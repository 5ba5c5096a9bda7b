"""Spain: DNI of citizens, NIE of foreigners.

Source: Real Decreto 1553/2005 and Ministerio del Interior, the table of letters: the letter is number modulo 23 in
TRWAGMYFPDXBNJZSQVHLCKE; for a NIE the first letter X, Y, Z stands for the digit 0, 1, 2.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, alphanumeric, matching

_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_DNI = LEFT + r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}[ -]?[A-HJ-NP-TV-Z]" + RIGHT
_NIE = LEFT + r"[XYZ][ -]?[0-9]{7}[ -]?[A-HJ-NP-TV-Z]" + RIGHT


def valid(number: str) -> bool:
    """Whether the letter at the end is the number's."""
    written = alphanumeric(number)
    value = written[:-1].translate(str.maketrans("XYZ", "012"))
    return len(written) == 9 and _LETTERS[int(value) % 23] == written[-1]


ES_DNI = Recogniser("es_dni", Kind.NATIONAL_ID, matching(re.compile(_DNI, re.IGNORECASE), valid), digits=8)
ES_NIE = Recogniser("es_nie", Kind.NATIONAL_ID, matching(re.compile(_NIE, re.IGNORECASE), valid), digits=7)
