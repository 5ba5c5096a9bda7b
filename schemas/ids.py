"""Identifiers: time-ordered where rows are looked up by them, content hashes where equal things must meet."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from schemas.messages import ChatMessage

RESPONSE_ID_PATTERN = r"^chatcmpl-[0-9a-f]{32}$"
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


def uuid7(milliseconds: int | None = None) -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Time order lets the statistics of a Delta table skip the files that can't hold an id.
    """
    return uuid.UUID(int=_uuid7(milliseconds))


def _uuid7(milliseconds: int | None = None) -> int:
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    value = (now & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    return value & ~(0x3 << 62) | 0x2 << 62  # variant


def new_event_id() -> str:
    """A fresh `ce_id`: the text form of a UUID version 7."""
    digits = f"{_uuid7():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_response_id() -> str:
    """A fresh response id, in the form that OpenAI's clients expect."""
    return f"chatcmpl-{_uuid7():032x}"


def new_cycle_id(moment: datetime) -> str:
    """An update cycle's id: sortable and readable, `c20261121T103000-1a2b`."""
    return f"c{moment.astimezone(UTC):%Y%m%dT%H%M%S}-{os.urandom(2).hex()}"


def new_traceparent() -> str:
    """A fresh W3C trace context, sampled."""
    digits = os.urandom(24).hex()
    return f"00-{digits[:32]}-{digits[32:]}-01"


def is_traceparent(text: str) -> bool:
    """Whether `text` has the form of a W3C `traceparent`."""
    return _TRACEPARENT.match(text) is not None


def content_id(prefix: str, *parts: str) -> str:
    """The id of something that is the same wherever its parts are the same (SHA-256, 128 bits kept)."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
    return f"{prefix}-{digest[:32]}"


def prompt_id(messages: Iterable[ChatMessage]) -> str:
    """The id under which all answers to the same conversation so far meet."""
    return content_id("prompt", *(text for m in messages for text in (m.role, m.content)))
