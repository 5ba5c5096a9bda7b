"""Domains: the parts of the traffic that may have a taste of their own, told apart by segment or by tenant.

A label belongs to the domain in which the answer it speaks of was served. A pair of two answers that were served in two
domains belongs to none: it is neither's taste. A prompt belongs to every domain that asked it, in shares of its
answers: one policy answers them all, so what it is to be good at is the mean over whoever will ask.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainer.core.labels import PairRow, Row, Turn, prompt_key, rater_of

By = Literal["none", "segment", "tenant"]
"""What tells domains apart: nothing, or a column of the answers."""
COMMON = ""
"""In place of a domain's name: in none, or nobody knows in which."""
Shares = tuple[tuple[str, float], ...]
"""Domains by name, each with its share; what is missing to 1 is in none."""


@dataclass(frozen=True)
class Traffic:
    """Where answers were served and prompts asked. Empty where nothing is told apart."""

    answered: Mapping[str, str] = field(default_factory=dict[str, str])
    """Domain by response id."""
    asked: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """Answers by domain (`COMMON` too), by the key of their prompt."""
    raters: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who gave the thumb on an answer, by response id: of some pairs it is two people who are behind them."""

    def domain(self, row: Row) -> str:
        """The domain of a label; `COMMON` where its answers are not known or of two domains."""
        responses = row.responses if isinstance(row, PairRow) else (row.response,)
        found = {self.answered[response] for response in responses if response in self.answered}
        return found.pop() if len(found) == 1 else COMMON

    def other(self, row: PairRow) -> str | None:
        """The second person behind a pair, beside the one whom it names; None where there is none."""
        if row.source != "same_prompt":
            return None
        found = {self.raters[response] for response in row.responses if response in self.raters} - {rater_of(row)}
        return min(found) if found else None

    def shares(self, prompt: Iterable[Turn]) -> Shares:
        """In which domains a prompt is asked, by name; nothing for one that nobody is known to have asked."""
        counts = self.asked.get(prompt_key(prompt), {})
        total = sum(counts.values())
        return tuple((name, counts[name] / total) for name in sorted(counts) if name != COMMON)


def alone(name: str) -> Shares:
    """All of it in one domain."""
    return ((name, 1.0),)
