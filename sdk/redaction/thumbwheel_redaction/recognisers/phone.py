"""Telephone numbers.

Source: ITU-T E.164 (a country code, at most 15 digits in all) and its list of assigned codes; for common countries
the lengths of national numbers as their administrations notify them to the ITU; ITU-T E.123 (how numbers are
printed).

Standing alone these count: `+` or `00` with an assigned country code; North American numbers with an area code
(`(415) 555-0132`, `415-555-0132`); numbers with the trunk prefix 0 in two or more groups (`020 7946 0958`, `06 12 34
56 78`, `0171/1234567`); Brazilian and Chinese mobile numbers in their printed groups. Everything else, such as ten
digits in a row, seven digits, or national numbers without a trunk prefix, counts only behind a word like `call` or
`tel`.

Not a number: a date, or what stands behind a word like `order`, `invoice` or `ISBN` with no telephone word nearer.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import REACH, words

# Lengths of the national number by country code, from and to; codes of three digits that are not listed: 6 to 11.
_ONE_AND_TWO_DIGIT_CODES = """
    1:10-10 7:10-10 20:8-10 27:9-9 30:10-10 31:9-9 32:8-9 33:9-9 34:9-9 36:8-9 39:6-11 40:9-9 41:9-9 43:7-13 44:9-10
    45:8-8 46:7-10 47:8-8 48:9-9 49:6-12 51:8-9 52:10-10 53:6-8 54:10-11 55:10-11 56:9-9 57:8-10 58:10-10 60:8-10
    61:9-9 62:8-12 63:8-10 64:8-10 65:8-8 66:8-9 81:9-10 82:8-11 84:9-10 86:9-11 90:10-10 91:10-10 92:9-10 93:9-9
    94:9-9 95:7-10 98:10-10
"""
_LENGTHS = {
    code: range(int(least), int(most) + 1)
    for code, least, most in (re.split("[:-]", entry) for entry in _ONE_AND_TWO_DIGIT_CODES.split())
}
_THREE_DIGIT_CODES = """
    211-213 216 218 220-258 260-269 290-291 297-299 350-359 370-383 385-387 389 420-421 423 500-509 590-599 670 672-683
    685-692 800 808 850 852-853 855-856 870 878 880-883 886 888 960-968 970-977 979 992-996 998
"""
_ASSIGNED_CODES = frozenset(
    str(code)
    for first, _, last in (entry.partition("-") for entry in _THREE_DIGIT_CODES.split())
    for code in range(int(first), int(last or first) + 1)
)
_LENGTHS_ELSEWHERE = range(6, 12)
_LONGEST = 15

_EDGE = r"(?<![0-9A-Za-z_+])(?<![0-9A-Za-z][-/])(?<![0-9][.,:+])"
_END = r"(?![0-9A-Za-z_])(?![-./,][0-9])"
_EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext\.?|extension)[ ]?[0-9]{1,5}(?![0-9A-Za-z_])", re.IGNORECASE)
_FIRST = re.compile(r"[0-9]{1,15}(?![0-9])")
_NEXT = re.compile(r"\)?[ ]{0,2}[-./]?[ ]{0,2}\(?([0-9]{1,15})(?![0-9A-Za-z_])")

_INTERNATIONAL = re.compile(r"(?<![0-9A-Za-z_+])(?:\+[ ]?\(?|\(\+|00[ ]?)(?=[1-9])")
_TRUNK = re.compile(_EDGE + r"(?<![0-9][ ])\(?(?=0[1-9])")
_PRINTED = re.compile(
    _EDGE
    + r"""(?:
        (?:1[ .-])? (?: \([2-9][0-9]{2}\)[ ]?-?[ ]? | [2-9][0-9]{2}[ .-] ) [2-9][0-9]{2}[ .-][0-9]{4}
      | \([1-9][0-9]\)[ ]?9?[0-9]{4}[ -]?[0-9]{4}
      | 1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}
    )"""
    + _END,
    re.VERBOSE,
)
_MORE_NUMBERS = re.compile(r"[ ][0-9]{2}")

TELEPHONE_WORDS = words(
    *(
        "t[eé]l(?!l)",
        "phone",
        "call(?!ed)",
        "cell(?!s|u)",
        "mobile",
        "whats ?app",
        "sms",
        "text (?:me|us|him|her)",
        "fax",
    ),
    *("dial", "hotline", "reach (?:me|us|him|her)", "ring (?:me|us)", "my (?:new )?number", "number is"),
    *("contact number", "mobil", "handy", "ruf(?:nummer| )", "anruf", "nummer ist", "appel", "portable", "num[eé]ro"),
    *("llam", "m[oó]vil", "celular", "n[uú]mero", "chiama", "cellulare", "ligue", "bel me", "zadzwo", "kom[oó]rk"),
    *("ring mig", "telnr"),
)
_CJK_TELEPHONE_WORDS = re.compile("电话|電話|手机|手機|致电|携帯|전화|연락처")
_OTHER_WORDS = words(
    *("order", "invoice", "part", "sku", "serial", "item", "model", "tracking", "ticket", "case", "isbn", "issn"),
    *("ref", "account", "acct", "receipt", "booking", "reservation", "confirmation", "policy", "id[ :]", "product"),
    *("batch", "lot ", "po ", "p/n", "s/n", "article", "ean", "upc", "nr\\.", "doi", "zip", "rows?", "coordinates"),
    *("lat", "transaction", "job", "build", "version", "sequence", "bestell", "rechnung", "artikel", "kunden"),
    *("serien", "commande", "facture", "pedido", "factura"),
)


class Number(NamedTuple):
    """Groups of digits that may be a telephone number, and where the last of them ends."""

    groups: tuple[str, ...]
    end: int

    @property
    def digits(self) -> str:
        """All of them, one behind the other."""
        return "".join(self.groups)


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """Numbers that stand for themselves, and those that a word in front of them makes one."""
    standing_alone = [
        *_international(text, start, end),
        *_with_trunk_prefix(text, start, end),
        *_printed_as_usual(text, start, end),
    ]
    yield from standing_alone
    yield from _behind_a_word(text, start, end, {span.start for span in standing_alone})


def _international(text: str, start: int, end: int) -> Iterator[Span]:
    for sign in _INTERNATIONAL.finditer(text, start, end):
        number = _read(text, sign.end(), _LONGEST)
        while number and not _assigned(number):
            number = _without_last(text, sign.end(), number)
        if number and not (sign[0].startswith("0") and _is_called_otherwise(text, sign.start())):
            # `(+49 30 12345678)`: a parenthesis that closes behind the number isn't part of it.
            opened = text[sign.start()] == "(" and ")" not in text[sign.end() : number.end]
            yield Span(sign.start() + opened, _with_extension(text, number.end))


def _with_extension(text: str, end: int) -> int:
    """Where a number ends with the extension behind it, such as `ext. 12`."""
    extension = _EXTENSION.match(text, end)
    return end if extension is None else extension.end()


def _assigned(number: Number) -> bool:
    """Whether it begins with an assigned country code and is as long as numbers of that country are. A trunk prefix in
    parentheses, `+49 (0)30 ...`, doesn't count."""
    groups = [group for place, group in enumerate(number.groups) if not (place and group == "0")]
    digits = "".join(groups)
    for width in (1, 2):
        lengths = _LENGTHS.get(digits[:width])
        if lengths is not None:
            return len(digits) - width in lengths
    return digits[:3] in _ASSIGNED_CODES and len(digits) - 3 in _LENGTHS_ELSEWHERE


def _with_trunk_prefix(text: str, start: int, end: int) -> Iterator[Span]:
    for sign in _TRUNK.finditer(text, start, end):
        number = _read(text, sign.end(), 12)
        while number and not _national(number):
            number = _without_last(text, sign.end(), number)
        if number and not _is_called_otherwise(text, sign.start()):
            yield Span(sign.start(), number.end)


def _national(number: Number) -> bool:
    lengths = [len(group) for group in number.groups]
    return (
        len(lengths) >= 2
        and 9 <= sum(lengths) <= 12
        and all(2 <= length <= 8 for length in lengths)
        and lengths != [4, 4, 4]  # how order numbers and cut-off card numbers are printed
        and not is_date(number.groups)
    )


def _printed_as_usual(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _PRINTED.finditer(text, start, end):
        plain = not any(sign in match[0] for sign in "()-.")
        if plain and (
            _MORE_NUMBERS.match(text, match.end()) or text[max(0, match.start() - 2) : match.start() - 1].isdigit()
        ):
            continue  # a row of numbers
        if not _is_called_otherwise(text, match.start()):
            yield Span(match.start(), _with_extension(text, match.end()))


def _behind_a_word(text: str, start: int, end: int, known: set[int]) -> Iterator[Span]:
    before = max(0, start - REACH)
    if not any(pattern.search(text, before, end) for pattern in (TELEPHONE_WORDS, _CJK_TELEPHONE_WORDS)):
        return
    done = start
    for sign in _NUMBER_START.finditer(text, start, end):
        if sign.start() < done or sign.start() in known:
            continue
        number = _read(text, sign.end(), 12)
        if number and _may_be_called(text, sign.start(), number) and _is_called_telephone(text, sign.start()):
            done = number.end
            # `(555-0132)`: a parenthesis that closes behind the number isn't part of it.
            yield Span(
                sign.start() if ")" in text[sign.end() : number.end] or text[sign.start()] == "+" else sign.end(),
                number.end,
            )


def _is_called_telephone(text: str, start: int) -> bool:
    """Whether a telephone word stands in front, and no word for another kind of number between."""
    for pattern in (TELEPHONE_WORDS, _CJK_TELEPHONE_WORDS):
        for word in pattern.finditer(text, max(0, start - REACH), start):
            if not _OTHER_WORDS.search(text, word.end(), start):
                return True
    return False


def _may_be_called(text: str, start: int, number: Number) -> bool:
    if min(map(len, number.groups[1:]), default=2) < 2:
        return False  # a row of numbers
    return len(number.digits) >= 7 and not is_date(number.groups) and not _is_amount(text, start, number.end)


_NUMBER_START = re.compile(_EDGE + r"[+(]{0,2}(?=[0-9])")


def _read(text: str, place: int, most: int) -> Number | None:
    """The groups of digits from `place` on, as many whole ones as have at most `most` digits together."""
    first = _FIRST.match(text, place)
    if first is None or first.end() - place > most:
        return None
    groups, end, total = [first[0]], first.end(), first.end() - place
    while following := _NEXT.match(text, end):
        total += len(following[1])
        if total > most:
            break
        groups.append(following[1])
        end = following.end()
    if len(groups) == 1 and text[end : end + 1].isalnum():
        return None
    return Number(tuple(groups), end)


def _without_last(text: str, start: int, number: Number) -> Number | None:
    """One group less, or None where that was the only one."""
    if len(number.groups) == 1:
        return None
    end = number.end - len(number.groups[-1])
    while not text[end - 1].isdigit():
        end -= 1
    return Number(number.groups[:-1], max(start, end))


def is_date(groups: tuple[str, ...]) -> bool:
    """Whether the groups begin with a date: day, month and year in one of the usual orders, in digits."""
    if len(groups) < 3:
        return False
    lengths = tuple(len(group) for group in groups[:3])
    one, two, three = (int(group) for group in groups[:3])
    if lengths[0] == 4 and lengths[1] <= 2 and lengths[2] <= 2:
        return 1000 <= one <= 2999 and 1 <= two <= 12 and 1 <= three <= 31
    if max(lengths[:2]) > 2 or lengths[2] not in (2, 4) or (lengths[2] == 2 and len(groups) >= 5):
        return False
    return 1 <= min(one, two) <= 12 and 1 <= max(one, two) <= 31


def _is_called_otherwise(text: str, start: int) -> bool:
    """Whether a word in front says that it is another kind of number, and no telephone word stands nearer."""
    if text[max(0, start - 1) : start] == "#":
        return True
    named = [match.end() for match in _OTHER_WORDS.finditer(text, max(0, start - REACH), start)]
    if not named:
        return False
    return not any(pattern.search(text, named[-1], start) for pattern in (TELEPHONE_WORDS, _CJK_TELEPHONE_WORDS))


def _is_amount(text: str, start: int, end: int) -> bool:
    before, behind = text[max(0, start - 2) : start].strip(), text[end : end + 2].strip()
    return before in ("$", "€", "£", "¥") or behind[:1] in ("$", "€", "£", "%")


PHONE = Recogniser("phone", Kind.PHONE, find, digits=7)
