"""What the safety head learns from: answers that users flagged, and a labelled file.

An answer that somebody flagged is unsafe; one that was rated and not flagged is safe, and weighs less: people rate
without looking for danger. A flag can't be withdrawn (a withdrawal takes back a thumb), and goes with the erasure of
its user. How many users flagged an answer says how sure that is: f users weigh f / (f + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.core.dataset import Turn

UNFLAGGED_WEIGHT = 0.25
SAFE_PER_UNSAFE = 4
"""Of the safe answers of production no more are read than this multiple of the flagged ones: the rest adds little."""


@dataclass(frozen=True, slots=True)
class SafetyExample:
    """An answer with the label that it is safe or not, and what the label weighs."""

    prompt: tuple[Turn, ...]
    completion: str
    unsafe: bool
    weight: float = 1.0
    response: str = ""
    """Id of the answer; empty for one of a file."""

    @property
    def key(self) -> tuple[tuple[Turn, ...], str]:
        """By which features are found."""
        return self.prompt, self.completion


@dataclass(frozen=True, slots=True)
class FlagRow:
    """A production answer that was flagged or rated."""

    response_id: str
    prompt: tuple[Turn, ...]
    completion: str
    flags: int


def from_flags(rows: Sequence[FlagRow]) -> list[SafetyExample]:
    """Every flagged answer, and the newest unflagged ones up to `SAFE_PER_UNSAFE` times as many; by response id."""
    ordered = sorted((row for row in rows if row.completion.strip()), key=lambda row: row.response_id)
    flagged = [row for row in ordered if row.flags > 0]
    others = [row for row in ordered if row.flags <= 0]
    safe = others[max(0, len(others) - SAFE_PER_UNSAFE * len(flagged)) :]
    return [
        *(SafetyExample(r.prompt, r.completion, True, r.flags / (r.flags + 1), r.response_id) for r in flagged),
        *(SafetyExample(r.prompt, r.completion, False, UNFLAGGED_WEIGHT, r.response_id) for r in safe),
    ]
