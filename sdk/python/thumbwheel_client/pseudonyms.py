"""User ids that are personal data themselves, where no gateway stands before the log: the gateway's own rule.

An e-mail address, an international telephone number or an IP address as an id becomes `user-<HMAC-SHA-256, 128 bits>`.
With the gateway's key it is the gateway's pseudonym; without a key there is none that could not be guessed.
"""

import hashlib
import hmac
import ipaddress
import re

_EMAIL = re.compile(r"[^@\s]@[^@\s]+\.[^@\s]")
_PHONE = re.compile(r"\+[\d\s().-]+")
_PHONE_DIGITS = range(7, 16)  # E.164: at most 15


def is_personal(identifier: str) -> bool:
    """Whether the id is, or holds, an e-mail address, or is an international telephone number or an IP address."""
    text = identifier.strip()
    if _EMAIL.search(text):
        return True
    if _PHONE.fullmatch(text):
        return sum(character.isdigit() for character in text) in _PHONE_DIGITS
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "." in text or ":" in text


def protected(identifier: str, key: bytes | None, *, prefix: str = "user") -> str | None:
    """The id as it may be kept: itself, or its pseudonym where it is personal; None where that needs a key."""
    if not is_personal(identifier):
        return identifier
    if key is None:
        return None
    normal = identifier.strip().casefold().encode()
    return f"{prefix}-{hmac.digest(key, normal, hashlib.sha256).hex()[:32]}"
