"""What is recognised, and the placeholders that stand where it was."""

import re
from enum import StrEnum


class Kind(StrEnum):
    """A kind of personal data. The order is the one in which overlaps of the same length are decided."""

    SECRET = "secret"  # noqa: S105
    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    NATIONAL_ID = "national_id"
    IP = "ip"
    PHONE = "phone"
    NAME = "name"


RANK = {kind: rank for rank, kind in enumerate(Kind)}

PLACEHOLDER = re.compile(r"\[(" + "|".join(kind.upper() for kind in Kind) + r")_([0-9]{1,9})\]")
"""A placeholder in a text; groups: the kind in capitals, the number."""


def placeholder(kind: Kind, number: int) -> str:
    """Such as `[EMAIL_1]`."""
    return f"[{kind.upper()}_{number}]"
