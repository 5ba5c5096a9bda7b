"""A dead letter on a terminal: bytes from anywhere, shown so that they can't steer it."""

import json
from collections.abc import Iterator

SHOWN_BYTES = 4_096
SHOWN_CHARACTERS = 65_536
_ROW = 16


def printable(text: str) -> str:
    """The text with every control character but the line feed and the tab as an escape (`\\x1b`)."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """Printable, and on one line."""
    return " ".join(printable(text).split())


def shown_bytes(raw: bytes | None) -> str:
    """Bytes as text where they are text, else as a Python literal shows them."""
    if raw is None:
        return "(null)"
    try:
        return printable(raw.decode())
    except UnicodeDecodeError:
        return repr(raw)[2:-1]


def shown_value(raw: bytes | None) -> str:
    """JSON with indents, or else the beginning of a hex dump."""
    if raw is None:
        return "(null: a tombstone)"
    if not raw:
        return "(empty)"
    try:
        text = printable(json.dumps(json.loads(raw), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return "\n".join(hexdump(raw[:SHOWN_BYTES])) + _more(len(raw) - SHOWN_BYTES, "bytes")
    return text[:SHOWN_CHARACTERS] + _more(len(text) - SHOWN_CHARACTERS, "characters")


def hexdump(raw: bytes) -> Iterator[str]:
    """Sixteen bytes a line: where, in hex, and as ASCII."""
    for at in range(0, len(raw), _ROW):
        row = raw[at : at + _ROW]
        text = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in row)
        yield f"{at:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{text}|"


def _more(count: int, of_what: str) -> str:
    return f"\n... and {count:,} more {of_what}; --raw writes all of it" if count > 0 else ""
