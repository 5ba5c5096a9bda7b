"""The intervals that the demo reports. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964
RESAMPLES = 4000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from `n` independent things."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Estimate | None:
    """A share and its score interval (Wilson, 1927); None where nothing was counted."""
    if n == 0:
        return None
    share, z2 = successes / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), n)


def wins(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How often one of ours beats one of theirs, over all pairs; a tie counts one half."""
    beaten = sum((a > b) + 0.5 * (a == b) for a in ours for b in theirs)
    return beaten / (len(ours) * len(theirs))


def clustered_mean(values: Sequence[float], *, seed: int) -> Estimate:
    """The mean of one value a prompt, with the percentile bootstrap interval over prompts (Efron, 1979).

    Answers to one prompt are not independent, so the prompt is what is drawn again.
    """
    if not values:
        raise ValueError("there is no prompt to take a mean over")
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(array.mean()), float(low), float(high), len(array))
