"""What is found in real texts: how often, and samples to judge by eye."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from thumbwheel_redaction.findings import Finding
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.redactor import Redactor

_AROUND = 30  # characters shown on each side of a sample


@dataclass(slots=True)
class Census:
    """What was found in so many texts. `samples` hold what the texts hold: for the eye, not for a file."""

    texts: int = 0
    characters: int = 0
    found: Counter[Kind] = field(default_factory=Counter[Kind])
    samples: list[tuple[Kind, str]] = field(default_factory=list[tuple[Kind, str]])

    def per_thousand(self, kind: Kind) -> float:
        """Findings in a thousand texts."""
        return 1000 * self.found[kind] / self.texts if self.texts else 0.0


def strings(files: Iterable[Path]) -> Iterator[str]:
    """Every text in files of lines: each line as it is; of a line of JSON (`.jsonl`) each string in it that is longer
    than a word. Files that end in `.gz` are unpacked."""
    for path in files:
        name = path.name.removesuffix(".gz")
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                yield from _strings(json.loads(line)) if name.endswith(".jsonl") else [line.rstrip("\n")]


def _strings(value: object) -> Iterator[str]:
    match value:
        case str() if " " in value:
            yield value
        case dict():
            for part in value.values():  # pyright: ignore[reportUnknownVariableType]
                yield from _strings(part)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            for part in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _strings(part)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            pass


def census(texts: Iterable[str], redactor: Redactor) -> Census:
    """Counts what is found in the texts."""
    counted = Census()
    for text in texts:
        counted.texts += 1
        counted.characters += len(text)
        for finding in redactor.find_with_names(text):
            counted.found[finding.kind] += 1
            counted.samples.append((finding.kind, _sample(text, finding)))
    return counted


def _sample(text: str, finding: Finding) -> str:
    before, behind = text[max(0, finding.start - _AROUND) : finding.start], text[finding.end : finding.end + _AROUND]
    return f"{before}⟦{text[finding.start : finding.end]}⟧{behind}".replace("\n", " ")
