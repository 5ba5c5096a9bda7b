"""A hash of what a set of rows says, whatever file format and order they are in.

Each row is written as canonical JSON (sorted names, no spaces, UTF-8, times in UTC as ISO 8601, bytes as base64) and
hashed by SHA-256; the hash of the set is the SHA-256 of these digests, sorted, one after the other.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


class ContentHash:
    """Add rows in any order, then read `hexdigest`. Holds 32 bytes for each row."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def add(self, row: Mapping[str, Any]) -> None:
        text = json.dumps(plain(row), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self._digests.append(hashlib.sha256(text.encode()).digest())

    @property
    def rows(self) -> int:
        return len(self._digests)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """The hash of these rows."""
    whole = ContentHash()
    for row in rows:
        whole.add(row)
    return whole.hexdigest()
