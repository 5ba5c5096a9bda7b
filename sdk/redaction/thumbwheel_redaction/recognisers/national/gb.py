"""United Kingdom: national insurance numbers, and NHS numbers behind a key word.

Source: HM Revenue & Customs, National Insurance Manual NIM39110: two letters, neither D, F, I, Q, U or V, the second
not O, not BG, GB, KN, NK, NT, TN or ZZ; six digits; A to D. NHS Data Dictionary: ten digits, the last a check digit
modulo 11. A national insurance number has no check digit: in its printed groups (`AB 12 34 56 C`) it stands alone,
else it needs a key word.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import weighted
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import LEFT, RIGHT, digits, matching, near, words

_NINO = re.compile(
    LEFT
    + r"(?!BG|GB|KN|NK|NT|TN|ZZ)[ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z]([ -]?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}\1[A-D]"
    + RIGHT,
    re.IGNORECASE,
)
_NINO_WORDS = words("national insurance", "nino", "ni number", "ni no", "n\\.i\\.", "ni:", "insurance n")

_NHS = re.compile(LEFT + r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}" + RIGHT)
_NHS_WORDS = words("nhs", "health service")


def _nino(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _NINO.finditer(text, start, end):
        if match[1] or near(text, match.start(), _NINO_WORDS):
            yield Span(*match.span())


def nhs_valid(number: str) -> bool:
    """Weights 10 to 2 over nine digits; the tenth makes the sum a multiple of 11."""
    ten = digits(number)
    return (weighted(ten, (10, 9, 8, 7, 6, 5, 4, 3, 2)) + int(ten[9])) % 11 == 0


GB_NINO = Recogniser("gb_nino", Kind.NATIONAL_ID, _nino, digits=6)
GB_NHS = Recogniser(
    "gb_nhs",
    Kind.NATIONAL_ID,
    matching(_NHS, nhs_valid, key_words=_NHS_WORDS),
    digits=10,
    words=("nhs", "health service"),
)
