"""Brazil: CPF.

Source: Receita Federal, Instrução Normativa 1548/2015: nine digits and two check digits modulo 11 (weights 10 to 2,
then 11 to 2; 10 counts as 0). Eleven times the same digit passes the check but is given to nobody.
"""

import re

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching

_NUMBER = re.compile(LEFT + r"[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}" + RIGHT)


def valid(number: str) -> bool:
    """Whether both check digits fit."""
    eleven = digits(number)
    first = weighted(eleven, tuple(range(10, 1, -1))) * 10 % 11 % 10
    second = weighted(eleven, tuple(range(11, 1, -1))) * 10 % 11 % 10
    return len(set(eleven)) > 1 and eleven[9:] == f"{first}{second}"


BR = Recogniser("br_cpf", Kind.NATIONAL_ID, matching(_NUMBER, valid), digits=11)
