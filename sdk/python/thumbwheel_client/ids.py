"""Identifiers in the forms that Thumbwheel's events have: time-ordered UUIDs, and content hashes of prompts."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable

RESPONSE_ID = re.compile(r"chatcmpl-[0-9a-f]{32}")


def uuid7(milliseconds: int | None = None) -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    value = (now & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return uuid.UUID(int=value)


def new_event_id() -> str:
    """A fresh idempotency key: the text form of a UUID version 7."""
    return str(uuid7())


def new_response_id() -> str:
    """A fresh response id, for an answer that was given elsewhere."""
    return f"chatcmpl-{uuid7().hex}"


def is_response_id(text: str) -> bool:
    """Whether `text` has the form of the response ids that Thumbwheel knows answers by."""
    return RESPONSE_ID.fullmatch(text) is not None


def prompt_id(turns: Iterable[tuple[str, str]]) -> str:
    """The id under which all answers to the same conversation meet; `turns` are its roles and texts.

    The same hash as the gateway's (SHA-256 of a JSON list, 128 bits kept), so answers meet whichever way they came.
    """
    parts = [text for turn in turns for text in turn]
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
    return f"prompt-{digest[:32]}"
