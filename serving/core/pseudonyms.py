"""User ids that are personal data themselves, replaced by a keyed hash: the same user is the same pseudonym.

A user id is chosen by the operator's app and is kept as it is: by it a person's thumbs are combined, and can be erased.
But an e-mail address, a telephone number or an IP address as an id must not reach the log. It becomes
`user-<HMAC-SHA-256, 128 bits>`. The hash is keyed because addresses can be guessed: without the key nobody can try
them. The key must stay the same for the life of the data; destroying it cuts the tie between people and rows.
"""

import hashlib
import hmac
import ipaddress
import re

# No nested repetition: linear in the id, which has at most 200 characters anyway.
_EMAIL = re.compile(r"[^@\s]@[^@\s]+\.[^@\s]")
_PHONE = re.compile(r"\+[\d\s().-]+")
_PHONE_DIGITS = range(7, 16)  # E.164: at most 15


def is_personal(user_id: str) -> bool:
    """Whether the id is, or holds, an e-mail address, or is an international telephone number or an IP address."""
    text = user_id.strip()
    if "@" in text and _EMAIL.search(text):
        return True
    if text.startswith("+") and _PHONE.fullmatch(text):
        return sum(character.isdigit() for character in text) in _PHONE_DIGITS
    return _is_ip(text)


def pseudonym(identifier: str, key: bytes, *, prefix: str = "user") -> str:
    """The keyed hash under which a personal id goes on. Upper and lower case are one user; so are spaces around."""
    normal = identifier.strip().casefold().encode()
    return f"{prefix}-{hmac.digest(key, normal, hashlib.sha256).hex()[:32]}"


def protected(identifier: str | None, key: bytes, *, prefix: str = "user") -> str | None:
    """The id as it may be kept: itself, or its pseudonym where it is personal."""
    if identifier is None or not is_personal(identifier):
        return identifier
    return pseudonym(identifier, key, prefix=prefix)


def _is_ip(text: str) -> bool:
    if not ("." in text or ":" in text):
        return False  # ip_address takes no such text, and this is the fast way to know
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
