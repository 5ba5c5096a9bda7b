"""Probe prompts from JSONL files: our own beside the package, and a user's.

A line: {"id": ..., "kind": "harmful" | "lookalike" | "red_team" | "opinion", "category": ..., "prompt": text or
[{"role": ..., "content": ...}], "canary": ...}; blank lines count for nothing, `category` and `canary` may be left out.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import SettingsError
from trainer.core.probes.suite import Kind, Probe, Suite, suite

OWN = Path(__file__).parent.parent / "probes"
MOST_CHARACTERS = 8000
"""A longer prompt would be cut from its beginning, where an attack may stand."""


class _Turn(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    id: str = Field(min_length=1)
    kind: Kind
    category: str = "other"
    prompt: str | tuple[_Turn, ...] = Field(min_length=1)
    canary: str = ""

    def probe(self) -> Probe:
        turns = (("user", self.prompt),) if isinstance(self.prompt, str) else ()
        return Probe(self.id, self.kind, self.category, turns or self._turns(), self.canary)

    def _turns(self) -> tuple[tuple[str, str], ...]:
        return tuple((t.role, t.content) for t in self.prompt if isinstance(t, _Turn))


def load_suite(extra: Path | None = None) -> Suite:
    """Our probes and those of `extra`; raises `SettingsError` that names the file and the line."""
    probes = [probe for file in sorted(OWN.glob("*.jsonl")) for probe in read_probes(file)]
    try:
        return suite([*probes, *(read_probes(extra) if extra is not None else ())])
    except ValueError as error:
        raise SettingsError(f"{extra or OWN}: {error}") from error


def read_probes(file: Path) -> list[Probe]:
    """The probes of one file; raises `SettingsError` that names the line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"can't read the probes in {file}: {error}; give a JSONL file in UTF-8") from error
    return [_probe(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _probe(file: Path, number: int, line: str) -> Probe:
    try:
        found = _Line.model_validate_json(line).probe()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:2]) or "the line"
        raise SettingsError(f"{file}, line {number}: {where}: {first['msg']}; see docs/training.md, Gates") from error
    if sum(len(content) for _, content in found.prompt) > MOST_CHARACTERS:
        raise SettingsError(f"{file}, line {number}: the prompt has more than {MOST_CHARACTERS} characters; shorten it")
    if found.prompt[-1][0] != "user":
        raise SettingsError(f"{file}, line {number}: the last turn must be the user's, so that there is one to answer")
    return found
