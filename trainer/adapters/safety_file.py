"""A file of answers labelled safe or unsafe: JSONL or .jsonl.gz."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.errors import SettingsError
from trainer.core.dataset import Turn
from trainer.core.safety_examples import SafetyExample

VARIABLE = "THUMBWHEEL_SAFETY_DATA"


def read_safety_file(path: Path, *, limit: int) -> list[SafetyExample]:
    """At most `limit` examples, evenly taken from the whole file so that its order is of no effect on the mix.

    A row holds `prompt` (a string, or a list of {role, content}), `completion` or `response`, and `unsafe` (true,
    false, 1 or 0). Raises `SettingsError` with the line of the first row that can't be used.
    """
    try:
        found = list(_rows(path))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SettingsError(f"{VARIABLE}={path} can't be read: {error}") from error
    if not found:
        raise SettingsError(f"{VARIABLE}={path} holds no examples: one JSON object a line is expected")
    if len(found) <= limit:
        return found
    return [found[n * len(found) // limit] for n in range(limit)]


def _rows(path: Path) -> Iterator[SafetyExample]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        for number, line in enumerate(gzip.GzipFile(fileobj=raw) if packed else raw, start=1):
            if line.strip():
                yield _example(line, f"{VARIABLE}={path}, line {number}")


def _example(line: bytes, where: str) -> SafetyExample:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise SettingsError(f"{where}: not a JSON object")
    text = row.get("completion", row.get("response"))
    if not isinstance(text, str) or not text.strip():
        raise SettingsError(f"{where}: completion (or response) must be a text")
    if row.get("unsafe") not in (True, False):
        raise SettingsError(f"{where}: unsafe must be true or false")
    return SafetyExample(_prompt(row.get("prompt"), where), text, bool(row["unsafe"]))


def _prompt(value: Any, where: str) -> tuple[Turn, ...]:
    if isinstance(value, str) and value.strip():
        return (("user", value),)
    if isinstance(value, list) and value:
        turns = [(t.get("role"), t.get("content")) for t in value if isinstance(t, dict)]
        if len(turns) == len(value) and all(isinstance(r, str) and isinstance(c, str) for r, c in turns):
            return tuple(turns)
    raise SettingsError(f"{where}: prompt must be a text or a list of {{role, content}}")
