"""What all seeds show together. Pure: results in, figures out.

Shapes: S seeds, P prompts, R resamples.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.demo.statistics import RESAMPLES, Estimate
from infra.lab.results import CycleResult
from schemas.cycles import CycleStatus

AS_GOOD = 0.5
"""The win rate over the base where the base itself serves."""


@dataclass(frozen=True)
class Row:
    """One cycle number over all seeds that have finished it.

    `serving` is the mean true win rate over the base of what serves after it (see `over_seeds`).
    """

    cycle: int
    seeds: int
    labels: float
    serving: Estimate
    kl: float | None
    promoted: int
    refused: int
    failed: int
    worse: int
    """Promoted versions whose interval says that they are worse than what they replaced."""
    maybe_worse: int
    """Promoted versions whose point says so, and whose interval does not."""


@dataclass(frozen=True)
class Summary:
    """`final` is of the version that serves at each seed's last cycle; `refusals` counts gates that did not hold, and
    other reasons by their text."""

    rows: tuple[Row, ...]
    seeds: int
    cycles: int
    final: Estimate | None
    highest_kl: float | None
    over_budget: int
    """Promoted versions whose KL is beyond the gate's limit."""
    refused_though_better: int
    """Refused versions whose interval says that they are better than what they would have replaced."""
    refusals: tuple[tuple[str, int], ...]

    @property
    def promoted(self) -> int:
        return sum(row.promoted for row in self.rows)

    @property
    def refused(self) -> int:
        return sum(row.refused for row in self.rows)

    @property
    def failed(self) -> int:
        return sum(row.failed for row in self.rows)

    @property
    def worse(self) -> int:
        return sum(row.worse for row in self.rows)

    @property
    def maybe_worse(self) -> int:
        return sum(row.maybe_worse for row in self.rows)


def summarise(results: Sequence[CycleResult]) -> Summary:
    """The figures of these results."""
    promoted = [r for r in results if r.promoted]
    last = {r.seed: r for r in sorted(results, key=lambda r: r.cycle)}
    beyond = [r for r in promoted if r.kl is not None and r.kl_limit is not None and r.kl > r.kl_limit]
    missed = [r for r in results if r.version and not r.promoted and r.vs_parent is not None and r.vs_parent.low > 0.5]
    return Summary(
        rows=tuple(_row(cycle, results) for cycle in sorted({r.cycle for r in results})),
        seeds=len(last),
        cycles=len(results),
        final=over_seeds(list(last.values())) if last else None,
        highest_kl=max((r.kl for r in promoted if r.kl is not None), default=None),
        over_budget=len(beyond),
        refused_though_better=len(missed),
        refusals=tuple(Counter(reason for r in results for reason in reasons(r)).most_common()),
    )


def serving_rate(result: CycleResult) -> float:
    """The true win rate over the base of what serves after a cycle."""
    return AS_GOOD if result.serving_vs_base is None else result.serving_vs_base.value


def over_seeds(results: Sequence[CycleResult]) -> Estimate:
    """The mean true win rate of what serves, with an interval for other seeds and other prompts.

    Both are drawn again (the pigeonhole bootstrap, Owen 2007, https://arxiv.org/abs/0712.1111): all seeds are judged on
    the same prompts, so to draw either alone would promise too much.
    """
    columns = max(len(r.serving_by_prompt) for r in results) or 1
    rates_SP = np.array([r.serving_by_prompt or (AS_GOOD,) * columns for r in results])
    rng = np.random.default_rng(0)
    seeds_RS, prompts_RP = (rng.multinomial(n, [1 / n] * n, size=RESAMPLES) / n for n in rates_SP.shape)
    low, high = np.quantile(((seeds_RS @ rates_SP) * prompts_RP).sum(axis=1), [0.025, 0.975])
    return Estimate(float(rates_SP.mean()), float(low), float(high), len(results))


def reasons(result: CycleResult) -> tuple[str, ...]:
    """Why a cycle gave no version that serves: the gates that did not hold, or what failed."""
    if result.promoted:
        return ()
    gates = tuple(f"gate {gate.name}" for gate in result.gates if not gate.passed)
    return gates or (f"{result.status.value}: {result.reason.split(':')[0] or 'no reason given'}",)


def _row(cycle: int, results: Sequence[CycleResult]) -> Row:
    mine = [r for r in results if r.cycle == cycle]
    kls = [r.kl for r in mine if r.kl is not None]
    return Row(
        cycle=cycle,
        seeds=len(mine),
        labels=sum(r.labels for r in mine) / len(mine),
        serving=over_seeds(mine),
        kl=sum(kls) / len(kls) if kls else None,
        promoted=sum(r.promoted for r in mine),
        refused=sum(r.status is CycleStatus.REFUSED for r in mine),
        failed=sum(r.status is CycleStatus.FAILED for r in mine),
        worse=sum(r.regression == "yes" for r in mine),
        maybe_worse=sum(r.regression == "unclear" for r in mine),
    )


def verdict(summary: Summary) -> tuple[str, str]:
    """(kind, headline) from what was found, not from what was hoped. Kinds are those of the report's style."""
    if summary.worse:
        many = "1 version was" if summary.worse == 1 else f"{summary.worse} versions were"
        return "harmed", f"{many} promoted that made it worse."
    if summary.final is None or not summary.promoted:
        return "nothing_promoted", "No update was promoted."
    if summary.final.low > AS_GOOD:
        return "helped", "The updates helped, and none that was promoted is known to be worse."
    if summary.final.high < AS_GOOD:
        return "harmed", "The updates did harm."
    return "inconclusive", "Whether the updates helped is not clear."


def sentence(summary: Summary) -> str:
    """The figures behind the headline."""
    if summary.final is None:
        return "No cycle is finished."
    seeds = "1 seed" if summary.seeds == 1 else f"{summary.seeds} seeds"
    final = summary.final
    return (
        f"By the people's true taste what serves at the end beats the base in {final.value:.0%} of comparisons "
        f"(mean of {seeds}, 95% interval {final.low:.0%} to {final.high:.0%}). Of {summary.cycles} cycles "
        f"{summary.promoted} promoted a version, {summary.refused} were refused by their gates and {summary.failed} "
        f"failed. Of the promoted versions {summary.worse} were worse than what they replaced and "
        f"{summary.maybe_worse} perhaps; {summary.refused_though_better} refused ones were better."
    )
