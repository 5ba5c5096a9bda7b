"""What a version is truly worth: by the people's taste, without noise, on prompts that nobody asks in the lab.

The intervals and the counting of wins are the demo's (`infra.demo.statistics`): bootstrap over prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.demo.statistics import Estimate, clustered_mean, wins
from infra.simulate.tastes import Taste

Texts = Sequence[Sequence[str]]
"""For each prompt, a version's answers."""
Standing = Literal["better", "unclear", "worse"]


@dataclass(frozen=True)
class Public:
    """The people: the taste of each segment and its share of them."""

    tastes: Mapping[str, Taste]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class WinRates:
    """Of one version over another: of all people, of each segment, and of all people by prompt."""

    everybody: Estimate
    by_prompt: tuple[float, ...]
    segments: Mapping[str, Estimate]


def win_rates(asked: Sequence[str], ours: Texts, theirs: Texts, public: Public, *, seed: int) -> WinRates:
    """How often one of our answers is worth more than one of theirs to the same prompt; ties count one half."""
    rates: dict[str, list[float]] = {}
    for name, taste in public.tastes.items():
        worth = [[[taste(p, text) for text in side[n]] for side in (ours, theirs)] for n, p in enumerate(asked)]
        rates[name] = [wins(a, b) for a, b in worth]
    mixed = [sum(public.shares[name] * rates[name][n] for name in rates) for n in range(len(asked))]
    return WinRates(
        clustered_mean(mixed, seed=seed),
        tuple(mixed),
        {name: clustered_mean(r, seed=seed) for name, r in rates.items()},
    )


def standing(rate: Estimate) -> Standing:
    """What an interval says: better or worse only where it excludes one half."""
    return "better" if rate.low > 0.5 else "worse" if rate.high < 0.5 else "unclear"


def mean_words(texts: Texts) -> float:
    """Words an answer."""
    every = [len(text.split()) for samples in texts for text in samples]
    return sum(every) / len(every)
