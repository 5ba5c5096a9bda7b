"""International bank account numbers.

Source: ISO 13616-1 and the SWIFT IBAN registry: two letters of the country, two check digits, and for each country a
fixed length; the whole, with its first four characters moved to the end, leaves 1 modulo 97. Printed in groups of
four, written also without separators, with hyphens, or in small letters.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.checks import mod_97_10
from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_LENGTHS_BY_COUNTRY = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
    FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
    RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS_BY_COUNTRY.split()}

_HEAD = re.compile(r"(?<![0-9A-Za-z_])[A-Za-z]{2}[ -]?[0-9]{2}")
_SEPARATORS = " -"
_GROUP = 4


def valid(iban: str) -> bool:
    """Whether an IBAN in capitals without separators has its country's length and checks out."""
    return len(iban) == LENGTHS.get(iban[:2]) and mod_97_10(iban[4:] + iban[:4])


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """From each country code with two digits on, as many characters as that country's numbers have."""
    for head in _HEAD.finditer(text, start, end):
        length = LENGTHS.get(head[0][:2].upper())
        if length is None:
            continue
        iban, last, printed = _read(text, head.start(), length)
        # Other separators than between groups of four only among digits: `no 15 people ...` begins like an IBAN too.
        if (printed or iban[4:].isdigit()) and valid(iban) and not text[last : last + 1].isalnum():
            yield Span(head.start(), last)


def _read(text: str, start: int, length: int) -> tuple[str, int, bool]:
    """The next `length` ASCII letters and digits, single separators between them left out; where they end; whether the
    separators stand between groups of four, or there are none."""
    characters: list[str] = []
    printed = True
    place = start
    while place < len(text) and len(characters) < length:
        character = text[place]
        if character.isascii() and character.isalnum():
            characters.append(character.upper())
        elif character in _SEPARATORS and text[place - 1] not in _SEPARATORS:
            printed = printed and len(characters) % _GROUP == 0
        else:
            break
        place += 1
    return "".join(characters), place, printed


IBAN = Recogniser("iban", Kind.IBAN, find, digits=8)
