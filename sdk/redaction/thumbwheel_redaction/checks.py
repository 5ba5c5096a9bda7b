"""Check digits. Each function takes a string of digits (or what its docstring says) and tells whether it checks out."""

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # twice the digit, and the sum of that number's digits

# The multiplication of the dihedral group of order 10, and the permutation applied at each position.
_DIHEDRAL = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_PERMUTATIONS = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: from the right, every second digit doubled; the sum of digits is a multiple of 10."""
    total = sum(int(digit) for digit in digits[-1::-2]) + sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def mod_11_10(digits: str) -> bool:
    """ISO/IEC 7064, MOD 11,10: a hybrid system with one check digit at the end."""
    product = 10
    for digit in digits[:-1]:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def mod_97_10(characters: str) -> bool:
    """ISO/IEC 7064, MOD 97-10, over digits and letters (A = 10 ... Z = 35): the number leaves 1 when divided by 97."""
    return int("".join(str(int(character, 36)) for character in characters)) % 97 == 1


def verhoeff(digits: str) -> bool:
    """J. Verhoeff, Error Detecting Decimal Codes (1969): a walk in the dihedral group of order 10 that ends at 0."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = _DIHEDRAL[state][_PERMUTATIONS[place % 8][int(digit)]]
    return state == 0


def weighted(digits: str, weights: tuple[int, ...]) -> int:
    """The sum of digit times weight, over as many as there are weights."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))
