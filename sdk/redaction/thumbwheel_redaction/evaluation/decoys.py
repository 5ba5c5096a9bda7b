"""What looks like a value and is none."""

from collections.abc import Callable
from random import Random

from thumbwheel_redaction.evaluation.numbers import digits, failing_luhn, grouped


def decoy(random: Random) -> str:
    """One of them."""
    return random.choice(_DECOYS)(random)


def _hexadecimal(random: Random, count: int) -> str:
    return "".join(random.choice("0123456789abcdef") for _ in range(count))


def _uuid(random: Random) -> str:
    return grouped(_hexadecimal(random, 32), (8, 4, 4, 4), "-")


def _isbn(random: Random) -> str:
    ten = grouped(digits(random, 9), (1, 3, 5), "-")
    return random.choice(
        [f"ISBN 978-{ten}-{digits(random, 1)}", f"ISBN {digits(random, 10)}", f"ISBN-13: 978{digits(random, 10)}"]
    )


def _date(random: Random) -> str:
    day, month, year = random.randint(1, 28), random.randint(1, 12), random.randint(1950, 2027)
    return random.choice(
        [
            *(
                f"{year}-{month:02}-{day:02}",
                f"{day:02}/{month:02}/{year}",
                f"{month:02}/{day:02}/{year}",
                f"{day}.{month}.{year}",
            ),
            *(
                f"{year}-{month:02}-{day:02}T{day:02}:{month:02}:07Z",
                f"{year}{month:02}{day:02}",
                f"{day:02}-{month:02}-{year} {day:02}:15",
            ),
            *(f"{year}-{year + 9}", f"from {year} to {year + 3}"),
        ]
    )


def _order(random: Random) -> str:
    word = random.choice(["order", "Order number", "invoice", "Bestellnummer", "commande", "booking", "ticket", "case"])
    number = random.choice(
        [
            *(
                digits(random, 10, "123456789"),
                digits(random, 8, "123456789"),
                grouped(digits(random, 17), (3, 7), "-"),
            ),
            *(
                f"{digits(random, 3)}-{digits(random, 3)}-{digits(random, 4)}",
                f"A{digits(random, 9)}",
                digits(random, 12, "123456789"),
            ),
        ]
    )
    return f"{word} {random.choice(['', '#', 'no. '])}{number}"


def _price(random: Random) -> str:
    thousands = f"{random.randint(1, 999)},{random.randint(100, 999)},{random.randint(100, 999)}"
    return random.choice(
        [
            f"${thousands}.00",
            f"EUR {thousands}",
            f"{random.randint(1000000, 99999999)} USD",
            f"£{random.randint(1, 99)}.99",
        ]
    )


def _version(random: Random) -> str:
    number = ".".join(str(random.randint(0, 30)) for _ in range(random.choice([3, 4])))
    return random.choice(
        [
            f"version {number}",
            f"v{number}",
            f"firmware {number}",
            f"release {number}",
            f"Chrome/{number}",
            f"build {number}",
        ]
    )


def _tracking(random: Random) -> str:
    return random.choice(
        [f"1Z{digits(random, 16)}", f"tracking 9400{digits(random, 18)}", f"tracking number {digits(random, 12)}"]
    )


def _product(random: Random) -> str:
    return random.choice(
        [
            *(
                f"part {digits(random, 3)}-{digits(random, 3)}-{digits(random, 4)}",
                f"model DE{digits(random, 6)}",
                f"SKU {digits(random, 9)}",
            ),
            *(
                f"item no. {digits(random, 3)}-{digits(random, 2)}-{digits(random, 4)}",
                f"catalogue {digits(random, 4)}-{digits(random, 4)}",
            ),
            f"EAN {digits(random, 13, '4')}",
        ]
    )


def _mathematics(random: Random) -> str:
    a, b = random.randint(1000, 999999), random.randint(1000, 999999)
    return random.choice(
        [
            f"{a} + {b} = {a + b}",
            f"{a} * {b} = {a * b}",
            f"2^{random.randint(40, 99)} is about {a}{b}",
            "3.14159265358979",
        ]
    )


def _statistics(random: Random) -> str:
    numbers = [str(random.randint(100, 9999)) for _ in range(4)]
    return random.choice(
        [
            f"{' '.join(numbers)} points",
            f"{', '.join(numbers)}",
            f"{numbers[0]} million people",
            f"{digits(random, 10, '1')} seconds since 1970",
        ]
    )


def _code(random: Random) -> str:
    return random.choice(
        [
            *(
                "std::vector<int>",
                "a::before",
                "@property",
                "@dataclass(frozen=True)",
                "user@",
                "x @ y.T",
                "Ada::Text",
                "abc::def",
            ),
            *(
                "token = get_token()",
                "password = os.environ['DB']",
                "api_key: str",
                "password: required",
                "key=lambda x: x[1]",
            ),
            *(
                "if password == None",
                "the token: a unit of text",
                "the key point is that",
                "secret: null",
                "password is incorrect",
            ),
            *(
                "the secret is to start early",
                "scikit-learn and sk-learn-contrib",
                "token_count = 4096",
                "tokens: 1234567",
            ),
            *(
                f"#{_hexadecimal(random, 6)}",
                f"commit {_hexadecimal(random, 40)}",
                f"sha256 {_hexadecimal(random, 64)}",
            ),
            *(
                f"0x{_hexadecimal(random, 8)}",
                f"00:1a:2b:{grouped(_hexadecimal(random, 6), (2, 2), ':')}",
                "127.0.0.1",
                "::1",
            ),
            *("255.255.255.0", f"primary key {_uuid(random)}", "git@", "10.1145/3442188.3445922", "<your api key>"),
        ]
    )


def _place(random: Random) -> str:
    return random.choice(
        [
            *(
                f"{random.uniform(-90, 90):.6f}, {random.uniform(-180, 180):.6f}",
                f"section {random.randint(1, 9)}.2.3.4",
            ),
            *(
                f"§ 1.2.{random.randint(1, 9)}.4",
                f"page {random.randint(100, 999)}-{random.randint(1000, 1100)}",
                f"12:30:{random.randint(10, 59)}",
            ),
            *(
                f"ZIP {digits(random, 5)}-{digits(random, 4)}",
                f"room {digits(random, 4)}",
                f"pp. {digits(random, 3, '1')}-{digits(random, 3, '2')}",
            ),
        ]
    )


def _failing_card(random: Random) -> str:
    number = failing_luhn(random, "4" + digits(random, 14))
    return random.choice([number, grouped(number, (4, 4, 4), " ")])


_DECOYS: tuple[Callable[[Random], str], ...] = (
    *(_uuid, _isbn, _date, _date, _order, _order, _price, _version, _tracking, _product, _mathematics, _statistics),
    *(_code, _code, _code, _place, _failing_card),
)
