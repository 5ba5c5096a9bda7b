"""What a benchmark returns: ratios that can be compared between machines, and the details behind them."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """`ratios`: name -> how many times the alternative; `details`: the absolute figures of this one run."""

    name: str
    ratios: dict[str, float]
    details: dict[str, float | str] = field(default_factory=dict[str, float | str])

    def write(self, path: Path) -> None:
        """The result as JSON: `name`, `ratios` (flat, numbers), `details`."""
        body = {"name": self.name, "ratios": self.ratios, "details": self.details}
        path.write_text(json.dumps(body, indent=2) + "\n")


def alternate(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Run both in turn, `rounds` times after one warm-up, so that a machine's drift falls on both alike."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of ours / theirs, pair by pair."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
