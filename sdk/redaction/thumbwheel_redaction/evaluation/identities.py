"""National numbers as people write them, each with the word that is usually put in front."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from thumbwheel_redaction.evaluation.numbers import birth_date, digits, grouped, until, with_luhn


class Identity(NamedTuple):
    """A number and its name; `bare` where it is recognisable without its name."""

    number: str
    name: str
    bare: bool = True


def _us(random: Random) -> Identity:
    area = random.choice([n for n in range(1, 900) if n != 666])
    number = f"{area:03}-{random.randint(1, 99):02}-{random.randint(1, 9999):04}"
    style = random.choice(["-", "-", "-", " ", ""])
    return Identity(number.replace("-", style), random.choice(["SSN", "social security number"]), style == "-")


def _gb(random: Random) -> Identity:
    letters = random.choice(["AB", "CE", "JG", "PW", "YZ", "HX", "SR"])
    number = letters + digits(random, 6) + random.choice("ABCD")
    spaced = random.random() < 0.5
    return Identity(
        grouped(number, (2, 2, 2, 2), " ") if spaced else number,
        random.choice(["NI number", "national insurance no."]),
        spaced,
    )


def _de(random: Random) -> Identity:
    def number() -> str | None:
        pool = list("0123456789")
        gone = random.choice(pool)
        pool.remove(gone)
        pool.append(random.choice(pool))
        random.shuffle(pool)
        ten = "".join(pool)
        if ten[0] == "0":
            return None
        rest = 10  # ISO 7064, MOD 11,10 as the standard's flow chart has it
        for digit in ten:
            total = (int(digit) + rest) % 10
            rest = (total if total else 10) * 2 % 11
        return ten + str((11 - rest) % 10)

    written = until(number)
    return Identity(random.choice([written, grouped(written, (2, 3, 3), " ")]), random.choice(["Steuer-ID", "IdNr"]))


def _fr(random: Random) -> Identity:
    body = random.choice("12") + f"{random.randint(40, 99)}{random.randint(1, 12):02}{random.randint(1, 95):02}"
    body += digits(random, 3) + digits(random, 3)
    number = next(body + f"{key:02}" for key in range(1, 98) if (int(body) + key) % 97 == 0)
    style = random.choice(["", " "])
    return Identity(grouped(number, (1, 2, 2, 2, 3, 3), " ") if style else number, random.choice(["NIR", "n° de sécu"]))


def _es(random: Random) -> Identity:
    if random.random() < 0.3:
        letter = random.randrange(3)
        seven = digits(random, 7)
        remainder = (letter * 10_000_000 + int(seven)) % 23
        return Identity("XYZ"[letter] + seven + "TRWAGMYFPDXBNJZSQVHLCKE"[remainder], "NIE")
    eight = digits(random, 8)
    separator = random.choice(["", "-", " "])
    return Identity(eight + separator + "TRWAGMYFPDXBNJZSQVHLCKE"[int(eight) % 23], "DNI")


def _it(random: Random) -> Identity:
    code = "".join(random.choice("BCDFGLMNPRSTVZ") for _ in range(6)) + birth_date(random, "y")
    code += (
        random.choice("ABCDEHLMPRST") + f"{random.randint(1, 28):02}" + random.choice("ABCDEFGHL") + digits(random, 3)
    )
    odd = dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True))
    odd |= dict(
        zip(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
            strict=True,
        )
    )
    total = 0
    for place, character in enumerate(code, start=1):
        if place % 2:
            total += odd[character]
        else:
            total += int(character) if character.isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(character)
    return Identity(code + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[total % 26], random.choice(["codice fiscale", "CF"]))


def _nl(random: Random) -> Identity:
    def number() -> str | None:
        nine = digits(random, 9, "123456789")
        total = sum(int(digit) * weight for digit, weight in zip(nine[:8], range(9, 1, -1), strict=True)) - int(nine[8])
        return nine if total % 11 == 0 else None

    return Identity(until(number), random.choice(["BSN", "burgerservicenummer"]), False)


def _pl(random: Random) -> Identity:
    ten = birth_date(random, "ymd") + digits(random, 4)
    total = sum(int(digit) * int(weight) for digit, weight in zip(ten, "1379137913", strict=True))
    return Identity(ten + str(-total % 10), "PESEL")


def _se(random: Random) -> Identity:
    ten = with_luhn(birth_date(random, "ymd") + digits(random, 3))
    century = random.choice(["", "19"])
    return Identity(f"{century}{ten[:6]}-{ten[6:]}", "personnummer")


def _be(random: Random) -> Identity:
    nine = birth_date(random, "ymd") + digits(random, 3)
    number = nine + f"{97 - int(nine) % 97:02}"
    written = f"{number[:2]}.{number[2:4]}.{number[4:6]}-{number[6:9]}.{number[9:]}"
    return Identity(random.choice([written, number]), "rijksregisternummer")


def _fi(random: Random) -> Identity:
    date, three = birth_date(random, "dmy"), digits(random, 3)
    return Identity(f"{date}-{three}" + "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(date + three) % 31], "henkilötunnus")


def _ch(random: Random) -> Identity:
    twelve = "756" + digits(random, 9)
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(twelve))
    number = twelve + str(-total % 10)
    return Identity(random.choice([number, grouped(number, (3, 4, 4), ".")]), "AHV-Nr.")


def _br(random: Random) -> Identity:
    nine = digits(random, 9)
    for _ in range(2):
        total = sum(int(digit) * weight for digit, weight in zip(reversed(nine), range(2, 12), strict=False))
        nine += str(0 if total % 11 < 2 else 11 - total % 11)
    return Identity(random.choice([nine, f"{nine[:3]}.{nine[3:6]}.{nine[6:9]}-{nine[9:]}"]), "CPF")


def _cn(random: Random) -> Identity:
    body = digits(random, 6, "123456") + f"19{birth_date(random, 'ymd')}" + digits(random, 3)
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(body))
    return Identity(body + "0123456789X"[(12 - total) % 11], random.choice(["身份证", "ID number"]))


def _ca(random: Random) -> Identity:
    number = with_luhn(digits(random, 8, "1245679"))
    style = random.choice(["-", " ", ""])
    return Identity(grouped(number, (3, 3), style), "SIN", style == "-")


def _passport(random: Random) -> Identity:
    number = random.choice("ABCDEHLMNPX") + random.choice(["", random.choice("ABCDEFG")]) + digits(random, 7)
    return Identity(number, random.choice(["passport number", "passport no.", "driving licence number"]), False)


COUNTRIES: tuple[Callable[[Random], Identity], ...] = (
    *(_us, _us, _gb, _de, _fr, _es, _it, _nl, _pl, _se, _be, _fi, _ch, _br, _cn, _ca),
    _passport,
)


def identity(random: Random) -> Identity:
    """A number of one of the countries."""
    return random.choice(COUNTRIES)(random)
