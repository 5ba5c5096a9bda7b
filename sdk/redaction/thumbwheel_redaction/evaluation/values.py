"""Made-up values of every kind, in the forms in which people write them."""

import base64
import json
from collections.abc import Callable
from random import Random

from thumbwheel_redaction.evaluation.numbers import digits, grouped, with_luhn

FIRST_NAMES = (
    *("Anna", "James", "Wei", "Fatima", "Lucas", "Sofia", "Oluwaseun", "Priya", "Hans", "Chloé", "Mateusz", "Yuki"),
    *("Carlos", "Ingrid", "Ahmed", "Giulia", "Thomas", "Maria", "Daniel", "Emma"),
)
LAST_NAMES = (
    *("Schmidt", "Okafor", "Tanaka", "Rossi", "Nowak", "Garcia", "Andersson", "Dubois", "Patel", "Johnson"),
    *("van Dijk", "Silva", "Kowalska", "Haddad", "Müller", "Brown", "Nguyen", "Lefèvre", "Novák", "Murphy"),
)
_ASCII = str.maketrans("éèüá ", "eeua-")
_DOMAINS = (
    *("example.org", "example.com", "mail.example.net", "gmail.com", "web.de", "orange.fr", "uni-example.ac.uk"),
    *("firma-example.at", "example.co.jp", "correo.example.es", "example.info", "posta.example.it"),
)
_BASE62 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def name(random: Random) -> str:
    """First and last name."""
    return f"{random.choice(FIRST_NAMES)} {random.choice(LAST_NAMES)}"


def email(random: Random) -> str:
    """An address; one in ten spelled against harvesters."""
    first = random.choice(FIRST_NAMES).lower().translate(_ASCII)
    last = random.choice(LAST_NAMES).lower().translate(_ASCII)
    number = random.choice(["", "", str(random.randint(1, 99)), str(random.randint(1950, 2009))])
    local = random.choice(
        [f"{first}.{last}{number}", f"{first[0]}{last}{number}", f"{first}_{last}", f"{first}{number}", f"{first}+news"]
    )
    domain = random.choice(_DOMAINS)
    if random.random() < 0.1:
        dotted = random.choice([domain, domain.replace(".", " (dot) ")])
        return local + random.choice([" (at) ", " [at] ", "(at)"]) + dotted
    written = f"{local}@{domain}"
    return random.choice([written, written, written, written.title(), written.upper()])


def phone(random: Random) -> str:
    """A number of one of sixteen countries, national or international."""
    return random.choice(_PHONES)(random)


def _us_phone(random: Random) -> str:
    area, exchange = digits(random, 3, "23456789"), digits(random, 3, "23456789")
    line = digits(random, 4)
    return random.choice(
        [
            *(f"({area}) {exchange}-{line}", f"{area}-{exchange}-{line}", f"{area}.{exchange}.{line}"),
            *(f"+1 {area} {exchange} {line}", f"+1-{area}-{exchange}-{line}", f"1-{area}-{exchange}-{line}"),
            *(f"+1{area}{exchange}{line}", f"{area} {exchange} {line}"),
        ]
    )


def _with_trunk(
    code: str, areas: tuple[str, ...], count: int, groups: tuple[tuple[int, ...], ...]
) -> Callable[[Random], str]:
    """Numbers of a country with trunk prefix 0: an area code without it, so many digits behind, cut in these ways."""

    def make(random: Random) -> str:
        area = random.choice(areas)
        rest = digits(random, count - len(area))
        printed = grouped(rest, random.choice(groups), " ")
        return random.choice(
            [
                *(f"+{code} {area} {printed}", f"+{code}{area}{rest}", f"0{area} {printed}", f"0{area}/{rest}"),
                *(f"00{code} {area} {printed}", f"+{code} (0){area} {printed}", f"0{area}-{rest}"),
            ]
        )

    return make


def _without_trunk(code: str, firsts: str, count: int, groups: tuple[int, ...]) -> Callable[[Random], str]:
    """Numbers of a country without trunk prefix."""

    def make(random: Random) -> str:
        number = digits(random, count, firsts)
        printed = grouped(number, groups, " ")
        return random.choice([f"+{code} {printed}", f"+{code}{number}", f"00{code}{number}", printed, number])

    return make


def _french_phone(random: Random) -> str:
    number = random.choice("1234567") + digits(random, 8)
    pairs = grouped("0" + number, (2, 2, 2, 2), random.choice([" ", ".", "-"]))
    return random.choice([pairs, pairs, f"+33 {grouped(number, (1, 2, 2, 2), ' ')}", f"+33{number}"])


def _brazilian_phone(random: Random) -> str:
    area, number = str(random.randint(11, 99)), "9" + digits(random, 8)
    return random.choice([f"({area}) {number[:5]}-{number[5:]}", f"+55 {area} {number[:5]}-{number[5:]}"])


def _chinese_phone(random: Random) -> str:
    number = "1" + random.choice("3578") + digits(random, 9)
    return random.choice([number, grouped(number, (3, 4), " "), grouped(number, (3, 4), "-"), f"+86 {number}"])


_PHONES: tuple[Callable[[Random], str], ...] = (
    *(_us_phone, _us_phone, _us_phone, _french_phone, _brazilian_phone, _chinese_phone),
    _with_trunk("44", ("20", "121", "7700", "7911"), 10, ((3, 3), (4,))),
    _with_trunk("49", ("30", "89", "171", "152"), 10, ((3,), (4,), (2, 2, 2))),
    _with_trunk("43", ("1", "664", "512"), 10, ((3,), (4,))),
    _with_trunk("41", ("44", "79", "31"), 9, ((3, 2),)),
    _with_trunk("46", ("70", "8", "31"), 9, ((3, 2),)),
    _with_trunk("61", ("2", "4"), 9, ((4,),)),
    _with_trunk("81", ("3", "90", "6"), 10, ((4,),)),
    _with_trunk("31", ("20", "6", "10"), 9, ((3, 2), (4,))),
    _without_trunk("34", "679", 9, (3, 3)),
    _without_trunk("48", "5678", 9, (3, 3)),
    _without_trunk("91", "6789", 10, (5,)),
    _without_trunk("39", "3", 10, (3, 3)),
    _without_trunk("45", "234567", 8, (2, 2, 2)),
)


def card(random: Random) -> str:
    """A number of one of seven issuers."""
    start, length, groups = random.choice(
        [
            *(("4", 16, (4, 4, 4)), ("4", 16, (4, 4, 4)), (f"5{random.randint(1, 5)}", 16, (4, 4, 4))),
            *((f"{random.randint(2221, 2720)}", 16, (4, 4, 4)), (random.choice(["34", "37"]), 15, (4, 6))),
            *(("6011", 16, (4, 4, 4)), ("3530", 16, (4, 4, 4)), ("36", 14, (4, 6)), ("62", 16, (4, 4, 4))),
        ]
    )
    number = with_luhn(start + digits(random, length - len(start) - 1))
    return random.choice(
        [number, grouped(number, groups, " "), grouped(number, groups, " "), grouped(number, groups, "-")]
    )


_BANK_CODES = {
    "DE": "9" * 18,
    "AT": "9" * 16,
    "BE": "9" * 12,
    "CH": "9" * 17,
    "ES": "9" * 20,
    "PL": "9" * 24,
    "SE": "9" * 20,
    "NO": "9" * 11,
    "GB": "A" * 4 + "9" * 14,
    "NL": "A" * 4 + "9" * 10,
    "FR": "9" * 10 + "C" * 11 + "9" * 2,
    "IT": "A" + "9" * 10 + "C" * 12,
    "IE": "A" * 4 + "9" * 14,
    "MT": "A" * 4 + "9" * 5 + "C" * 18,
}
"""The SWIFT registry's structure of what follows the check digits: A a letter, 9 a digit, C either."""


def iban(random: Random) -> str:
    """An account in one of fourteen countries."""
    country, structure = random.choice(list(_BANK_CODES.items()))
    account = "".join(
        random.choice({"A": _BASE62[:26], "9": "0123456789", "C": "0123456789"}[kind]) for kind in structure
    )
    as_number = "".join(str(ord(c) - 55) if c.isalpha() else c for c in account + country + "00")
    number = f"{country}{98 - int(as_number) % 97:02}{account}"
    return random.choice([number, grouped(number, (4,) * (len(number) // 4), " "), number.lower()])


def ip(random: Random) -> str:
    """An address of a host, three in four of version 4."""
    if random.random() < 0.75:
        first = random.choice([10, 192, 172, 81, 93, 203, 8, 145, 52])
        return f"{first}.{random.choice([168, 20, 0, 113])}.{random.randint(0, 255)}.{random.randint(1, 254)}"
    groups = [f"{random.randrange(65536):x}" for _ in range(6)]
    return random.choice(
        [
            "2001:db8:" + ":".join(groups),
            f"2a02:{groups[0]}::{random.randrange(1, 65536):x}",
            f"fe80::{groups[0]}:{groups[1]}:{groups[2]}:{random.randrange(1, 65536):x}",
            f"2001:4860:4860::{random.randrange(1000, 9999)}",
        ]
    )


def _drawn(random: Random, count: int, characters: str = _BASE62) -> str:
    return "".join(random.choice(characters) for _ in range(count))


def _base64(data: dict[str, str | int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


def secret(random: Random) -> str:
    """A key or token with its issuer's mark, a JSON Web Token, or a private key."""
    lines = "\n".join(_drawn(random, 64, _BASE62 + "+/") for _ in range(random.randint(3, 6)))
    return random.choice(
        [
            "AKIA" + _drawn(random, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
            random.choice(["ghp_", "gho_", "ghs_"]) + _drawn(random, 36),
            f"github_pat_{_drawn(random, 22)}_{_drawn(random, 59)}",
            f"xoxb-{digits(random, 12)}-{digits(random, 12)}-{_drawn(random, 24)}",
            random.choice(["sk_live_", "sk_test_", "rk_live_"]) + _drawn(random, 24),
            random.choice(["sk-", "sk-proj-"]) + _drawn(random, 48),
            "sk-ant-api03-" + _drawn(random, 95, _BASE62 + "-_") + "AA",
            "AIza" + _drawn(random, 35, _BASE62 + "-_"),
            f"twk_{_drawn(random, 8)}_{_drawn(random, 40)}",
            f"glpat-{_drawn(random, 20)}",
            ".".join((_base64({"alg": "HS256"}), _base64({"sub": _drawn(random, 8), "iat": 17}), _drawn(random, 43))),
            f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----",
        ]
    )


def password(random: Random) -> str:
    """What people take for one: a word with something added, or characters drawn at random."""
    word = random.choice(["sunshine", "Dragon", "hunter", "Liverpool", "qwerty", "Kaffee", "monkey", "Bonjour"])
    return random.choice(
        [
            *(
                f"{word}{random.randint(1, 2024)}",
                f"{word}!{random.randint(1, 99)}",
                f"{word[::-1]}#{random.randint(1, 9)}",
            ),
            *(_drawn(random, 12), _drawn(random, 16, _BASE62 + "!#%&*+?")),
        ]
    )


def opaque_key(random: Random) -> str:
    """A key without a mark."""
    return random.choice([_drawn(random, 32, "0123456789abcdef"), _drawn(random, 40), _drawn(random, 28)])
