"""Values of a row as a person reads them in a terminal: one line, of a bounded width. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_BRIEF = (
    "prompt", "completion", "chosen", "rejected", "label", "thumb", "kind", "text", "verdict", "state", "action",
    "target", "reason", "detail", "version",
)  # fmt: skip
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """`12.3 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def moment(time: datetime | None) -> str:
    """In the time zone of the terminal."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time is not None else ""


def value(of: Any) -> str:
    """Any value on one line: a conversation as `role: text`, a missing one as a dash."""
    if of is None:
        return "-"
    if isinstance(of, datetime):
        return f"{of.astimezone():%Y-%m-%d %H:%M:%S}.{of.microsecond // 1000:03d}"
    if isinstance(of, bool):
        return str(of).lower()
    if isinstance(of, float):
        return f"{of:.4g}"
    if isinstance(of, bytes):
        return _one_line(of.decode("utf-8", "backslashreplace"))
    if isinstance(of, Mapping):
        return _mapping(of)
    if isinstance(of, Sequence) and not isinstance(of, str):
        return " | ".join(value(inner) for inner in of) if of else "(none)"
    return _one_line(str(of))


def cut(text: str, width: int) -> str:
    """At most `width` characters, saying how many more there are."""
    if len(text) <= width:
        return text
    more = f" … +{len(text):,}"
    room = max(1, width - len(more))
    return f"{text[:room]} … +{len(text) - room:,}"


def lines(row: Mapping[str, Any], *, width: int, aside: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Name and value of each column that holds something, long texts cut to `width`."""
    return [(n, cut(value(v), width)) for n, v in row.items() if n not in aside and v is not None and v != []]


def brief(row: Mapping[str, Any], *, width: int) -> str:
    """The row's point on one line."""
    parts = [(name, value(row[name])) for name in _BRIEF if row.get(name) is not None][:4]
    left = width - sum(len(name) + 4 for name, _ in parts)
    rooms: dict[str, int] = {}
    for waiting, (name, text) in enumerate(sorted(parts, key=lambda part: len(part[1]))):
        # The short ones leave what they don't need to the long ones.
        rooms[name] = min(len(text), max(12, left // (len(parts) - waiting)))
        left -= rooms[name]
    return "  ".join(f"{name}: {cut(text, rooms[name])}" for name, text in parts)


def _mapping(of: Mapping[str, Any]) -> str:
    if set(of) == {"role", "content"}:
        return f"{of['role']}: {_one_line(str(of['content']))}"
    return "{" + ", ".join(f"{n}: {value(v)}" for n, v in of.items() if v is not None) + "}"


def _one_line(text: str) -> str:
    """Without line breaks, and without control characters that could move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
