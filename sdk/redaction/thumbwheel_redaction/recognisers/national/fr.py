"""France: social security numbers (NIR).

Source: INSEE, décret 82-103: sex (1, 2; 3, 4, 7, 8 while it is being given), year, month (01-12; 20-42 and 50-99
where it is not known), department (two digits, or 2A, 2B), municipality, order, and a key of two digits: 97 - (the
first thirteen modulo 97), with 2A counted as 19 and 2B as 18. Only with its key: the thirteen digits alone could be
anything.
"""

import re

from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, alphanumeric, matching

_NUMBER = re.compile(
    LEFT
    + r"[123478][ .]?[0-9]{2}[ .]?(?:0[1-9]|1[0-2]|[235-9][0-9]|4[0-2])[ .]?(?:[0-9]{2}|2[ABab])"
    + r"[ .]?[0-9]{3}[ .]?[0-9]{3}[ .|/-]{0,3}[0-9]{2}"
    + RIGHT
)


def valid(number: str) -> bool:
    """Whether the key fits."""
    fifteen = alphanumeric(number).replace("2A", "19").replace("2B", "18")
    return len(fifteen) == 15 and fifteen.isdigit() and int(fifteen[13:]) == 97 - int(fifteen[:13]) % 97


FR = Recogniser("fr_nir", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=13)
