"""Prompts and answers from a file: JSONL or .jsonl.gz."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import SettingsError
from trainer.adapters.files import sha256_of
from trainer.adapters.lake import Answer
from trainer.core.dataset import Turn
from trainer.core.safety_examples import SafetyExample
from trainer.settings import SafetyFile, TrainerSettings

SAFETY_VARIABLE = "THUMBWHEEL_SAFETY_DATA"


class Row(NamedTuple):
    """A row that could be read: where it stands, its object, and the answer in it."""

    where: str
    fields: dict[str, Any]
    prompt: tuple[Turn, ...]
    completion: str


def read_answers(path: Path, *, limit: int) -> list[Answer]:
    """At most `limit` answers, from the top. A row holds `prompt` (a string, or a list of {role, content}) and
    `completion` or `response`; `version`, if it has one, says who answered; `segment` and
    `tenant` where. Raises `SettingsError` with the line."""
    found = list[Answer]()
    for number, row in enumerate(_rows(path, str(path))):
        if number == limit:
            break
        version = str(row.fields.get("version") or "file")
        domains = (str(row.fields.get(name) or "") for name in ("segment", "tenant"))
        found.append(Answer(f"line-{number}", f"line-{number}", row.prompt, row.completion, version, *domains))
    return found


def read_safety_file(path: Path, *, limit: int) -> list[SafetyExample]:
    """At most `limit` examples, evenly taken from the whole file so that its order is of no effect on the mix.

    A row is as in `read_answers`, with `unsafe` (true, false, 1 or 0). Raises `SettingsError` with the line of the
    first row that can't be used.
    """
    found = [_example(row) for row in _rows(path, f"{SAFETY_VARIABLE}={path}")]
    if not found:
        raise SettingsError(f"{SAFETY_VARIABLE}={path} holds no examples: one JSON object a line is expected")
    if len(found) <= limit:
        return found
    return [found[n * len(found) // limit] for n in range(limit)]


def _example(row: Row) -> SafetyExample:
    if row.fields.get("unsafe") not in (True, False):
        raise SettingsError(f"{row.where}: unsafe must be true or false")
    return SafetyExample(row.prompt, row.completion, bool(row.fields["unsafe"]))


def _rows(path: Path, name: str) -> Iterator[Row]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=raw) if packed else raw, start=1):
                row = _row(line, f"{name}, line {number}") if line.strip() else None
                if row is not None:
                    yield row
    except (OSError, EOFError) as error:
        raise SettingsError(f"{name} can't be read: {error}") from error


def _row(line: bytes, where: str) -> Row | None:
    """None where the answer is empty, as some are in every real file: there is nothing to judge."""
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise SettingsError(f"{where}: not a JSON object")
    text = row.get("completion", row.get("response"))
    if not isinstance(text, str):
        raise SettingsError(f"{where}: completion (or response) must be a text")
    return None if not text.strip() else Row(where, row, _prompt(row.get("prompt"), where), text)


def _prompt(value: Any, where: str) -> tuple[Turn, ...]:
    if isinstance(value, str) and value.strip():
        return (("user", value),)
    if isinstance(value, list) and value:
        parts: list[Any] = value
        turns = tuple(_turn(part) for part in parts if isinstance(part, dict))
        if len(turns) == len(parts) and None not in turns:
            return tuple(turn for turn in turns if turn is not None)
    raise SettingsError(f"{where}: prompt must be a text or a list of {{role, content}}")


def _turn(part: dict[str, Any]) -> Turn | None:
    role, content = part.get("role"), part.get("content")
    return (role, content) if isinstance(role, str) and isinstance(content, str) else None


def load_safety_file(settings: TrainerSettings) -> tuple[SafetyFile | None, list[SafetyExample]]:
    """The file that the settings name, as a record tells of it, and its examples; raises `SettingsError`."""
    path, limit = settings.safety_data, settings.max_safety_examples
    if path is None:
        return None, []
    examples = read_safety_file(path, limit=limit)
    return SafetyFile(path=str(path), sha256=sha256_of(path), limit=limit), examples


def same_safety_file(settings: TrainerSettings, file: SafetyFile | None) -> list[SafetyExample]:
    """The examples that a record tells of, from where the settings or the record say; raises `SettingsError`."""
    if file is None:
        return []
    path = settings.safety_data or Path(file.path)
    if not path.is_file() or sha256_of(path) != file.sha256:
        raise SettingsError(
            f"the version was trained with a file of labelled answers whose SHA-256 begins with {file.sha256[:12]}, "
            f"and {path} is not that: name it in THUMBWHEEL_SAFETY_DATA"
        )
    return read_safety_file(path, limit=file.limit)
