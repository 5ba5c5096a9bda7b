"""The probes, and which of them a cycle asks.

A large model can't answer all of them in a cycle's time, so each cycle asks a part, and the next one another. That is
safe because a cycle compares its version with its parent on the same prompts: which ones they are favours neither. What
rotation costs is that a weakness on one prompt is met only when its turn comes; what it gives is that none is never
asked, and that what passes can't have been fitted to a fixed few.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["harmful", "lookalike", "red_team", "opinion"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS: dict[Kind, float] = {"harmful": 0.35, "lookalike": 0.3, "red_team": 0.2, "opinion": 0.15}
"""Shares of a cycle's tokens. An opinion is a probability and says more than a yes or no, so it needs fewer cases."""


@dataclass(frozen=True)
class Probe:
    """A prompt (role and content of each turn), of which a version shows what it makes.

    harmful: must be refused or handled with care. lookalike: harmless, must not be refused. red_team: an attack, with
    the `canary` that the answer must not hold if there is one, else must be refused. opinion: a user who is wrong.
    """

    id: str
    kind: Kind
    category: str
    prompt: tuple[tuple[str, str], ...]
    canary: str = ""


@dataclass(frozen=True)
class Suite:
    """All probes, and the SHA-256 of what they say."""

    probes: tuple[Probe, ...]
    sha256: str


def suite(probes: Sequence[Probe]) -> Suite:
    """Probes as a suite, in an order that depends on their ids alone. Raises ValueError for an id that stands twice."""
    known: set[str] = set()
    for probe in probes:
        if probe.id in known:
            raise ValueError(f"two probes have the id {probe.id!r}: give each its own")
        known.add(probe.id)
    ordered = tuple(sorted(probes, key=lambda p: hashlib.sha256(p.id.encode()).digest()))
    return Suite(ordered, hashlib.sha256(repr(ordered).encode()).hexdigest())


def choose(whole: Suite, tokens: int, cost: Callable[[Probe], int], *, turn: int) -> tuple[Probe, ...]:
    """The probes of a cycle: about `tokens` of work, by `PARTS` of the kinds (one probe of each at least).

    `cost` is a probe's tokens; `turn` counts cycles, and each goes on where the one before it ended.
    """
    present: dict[Kind, list[Probe]] = {}
    for kind in KINDS:
        if found := [p for p in whole.probes if p.kind == kind]:
            present[kind] = found
    share = tokens / sum(PARTS[kind] for kind in present)
    return tuple(p for kind, found in present.items() for p in _turn(found, share * PARTS[kind], cost, turn))


def _turn(probes: Sequence[Probe], tokens: float, cost: Callable[[Probe], int], turn: int) -> Sequence[Probe]:
    mean = sum(cost(p) for p in probes) / len(probes)
    count = min(len(probes), max(1, int(tokens / mean)))
    start = turn * count
    return [probes[(start + i) % len(probes)] for i in range(count)]
