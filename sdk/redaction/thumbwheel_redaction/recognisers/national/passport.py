"""Passports and driving licences of any country, behind a key word.

Source: ICAO Doc 9303 part 3: a passport's number has at most nine letters and digits. Licences have no common form.
There is nothing to check, so a code counts only directly behind the words `passport number`, `driver's licence no.`
and their like in a few languages, and only if it holds five digits.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_NUMBER = re.compile(
    r"""(?<![^\W_]) (?: passport | driver['s]{0,3}[ ]licen[cs]e | driving[ ]licen[cs]e | reisepass | f[uü]hrerschein
        | passeport | pasaporte | passaporto | paspoort | national[ ]id | id[ ]card )
        [ ]? (?: number | nummer | num[eé]ro | n[uú]mero | no\.? | nr\.? | num\.? | \# | id )?
        [ ]? (?: is[ ] | ist[ ] | : | = | - | \# | est[ ]le | es[ ] | ,)? [ ]{0,2}
        ([A-Z]{0,5}[ -]?[0-9][0-9A-Z -]{3,14}[0-9A-Z]|[A-Z0-9]{6,12}) (?![0-9A-Za-z_])""",
    re.VERBOSE | re.IGNORECASE,
)
_FEWEST_DIGITS = 5


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """The code behind the words."""
    for match in _NUMBER.finditer(text, start, end):
        first, last = match.span(1)
        # Words may follow the number: it ends with the last group that holds a digit.
        while last > first and not text[last - 1].isdigit() and " " in text[first:last]:
            last = text.rindex(" ", first, last)
        if sum(character.isdigit() for character in text[first:last]) >= _FEWEST_DIGITS:
            yield Span(first, last)


_WORDS = (
    *("pas", "licen", "hrerschein"),  # of passport, reisepass, pasaporte ...; of fuhrerschein and führerschein
    *("national id", "id card"),
)


PASSPORT = Recogniser("passport", Kind.NATIONAL_ID, find, digits=_FEWEST_DIGITS, words=_WORDS)
