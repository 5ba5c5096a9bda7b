"""Numbers with check digits, made from the issuers' descriptions by trying, so without the recognisers' arithmetic."""

from collections.abc import Callable
from random import Random


def digits(random: Random, count: int, first: str = "0123456789") -> str:
    """So many random digits, the first one of these."""
    return random.choice(first) + "".join(random.choice("0123456789") for _ in range(count - 1)) if count else ""


def luhn_sum(number: str) -> int:
    """The Luhn sum the long way: the digits of the doubled ones are added one by one."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        total += sum(int(part) for part in str(int(digit) * (1 + place % 2)))
    return total


def with_luhn(number: str) -> str:
    """The number with the one digit behind it that makes its Luhn sum end in 0."""
    return next(number + check for check in "0123456789" if luhn_sum(number + check) % 10 == 0)


def failing_luhn(random: Random, number: str) -> str:
    """The number with a digit behind it that doesn't."""
    return number + random.choice([check for check in "0123456789" if luhn_sum(number + check) % 10])


def until(make: Callable[[], str | None]) -> str:
    """The first that isn't None."""
    while True:
        made = make()
        if made is not None:
            return made


def birth_date(random: Random, order: str) -> str:
    """A date of birth in two-digit parts, in an order such as `dmy` or `ymd`."""
    parts = {
        "d": f"{random.randint(1, 28):02}",
        "m": f"{random.randint(1, 12):02}",
        "y": f"{random.randint(40, 99):02}",
    }
    return "".join(parts[part] for part in order)


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    """The text cut into groups of these sizes; what is left over is a group of its own."""
    groups: list[str] = []
    for size in sizes:
        groups.append(text[:size])
        text = text[size:]
    return separator.join(group for group in [*groups, text] if group)
