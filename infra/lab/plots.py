"""The lab's figures, in the report's style."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from infra.lab.results import CycleResult, Range
from infra.lab.summary import serving_rate
from infra.report.plots import INK, PALETTE, style, svg

DASHED = (0, (4, 3))
SPREAD = 0.5
"""The width over which the seeds of one cycle stand beside each other."""
SETS = (("train", "reward model"), ("held_out", "its check"), ("judge", "judge"))


def by_cycle(results: Sequence[CycleResult]) -> str:
    """Left: what serves after each cycle. Right: each cycle's new version, against the one that it would replace."""
    with style("by-cycle"):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        served, made = figure.subplots(1, 2, sharey=True)
        for seed, rows in _by_seed(results):
            xs = [_place(r, results) for r in rows]
            served.plot(xs, [serving_rate(r) for r in rows], color=_colour(seed), linewidth=1.0, alpha=0.6)
            for x, row in zip(xs, rows, strict=True):
                if row.serving_vs_base is None:
                    served.plot(x, 0.5, "o", color=PALETTE[0], markersize=4)
                else:
                    _interval(served, x, row.serving_vs_base, _colour(seed))
                if row.vs_parent is not None:
                    _interval(made, x, row.vs_parent, _colour(seed), filled=row.promoted)
        served.set_title("serves after the cycle, against the base")
        made.set_title("new version, against its parent")
        shown = [rate for r in results for rate in (r.serving_vs_base, r.vs_parent) if rate is not None]
        for axes in (served, made):
            axes.axhline(0.5, color=INK, linewidth=1, linestyle=DASHED)
            axes.set_ylim(*_around_half(end for rate in shown for end in (rate.low, rate.high)))
            axes.yaxis.set_major_formatter(_percent)
            _cycles(axes, results)
        return svg(figure)


def kl_and_labels(results: Sequence[CycleResult]) -> str:
    """KL of each new version with the gate's limit, and the labels that a cycle used, as a mean over seeds."""
    with style("kl-and-labels"):
        figure = Figure(figsize=(9, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for row in results:
            if row.kl is not None:
                _point(left, _place(row, results), row.kl, _colour(row.seed), filled=row.promoted)
        limits = [r.kl_limit for r in results if r.kl_limit is not None]
        if limits:
            left.axhline(max(limits), color=INK, linewidth=1, linestyle=DASHED)
        left.margins(y=0.08)
        left.set_title("KL to the base, nats an answer")
        _labels(right, results)
        for axes in (left, right):
            _cycles(axes, results)
        return svg(figure)


def over_optimization(results: Sequence[CycleResult]) -> str:
    """What the training believed against what is true: its reward, and its judge."""
    with style("over-optimization"):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for row in results:
            if row.vs_base is not None and row.ppo_reward is not None:
                _point(left, row.ppo_reward, row.vs_base.value, _colour(row.seed), filled=row.promoted)
            if row.vs_parent is not None and row.judge_vs_parent is not None:
                _point(right, row.judge_vs_parent.value, row.vs_parent.value, _colour(row.seed), filled=row.promoted)
        left.set_title("true win rate over the base")
        left.set_xlabel("training reward, spreads above the base's answers")
        right.set_title("true win rate over the parent")
        right.set_xlabel("the judge's win rate over the parent")
        right.axline((0.5, 0.5), slope=1, color=INK, linewidth=1, linestyle=":")
        right.axvline(0.5, color=INK, linewidth=1, linestyle=DASHED)
        believed = _around_half(r.judge_vs_parent.value for r in results if r.judge_vs_parent is not None)
        true = _around_half(rate.value for r in results for rate in (r.vs_base, r.vs_parent) if rate is not None)
        for axes in (left, right):
            axes.axhline(0.5, color=INK, linewidth=1, linestyle=DASHED)
            axes.set_ylim(*true)
            axes.yaxis.set_major_formatter(_percent)
        right.set_xlim(*believed)
        right.xaxis.set_major_formatter(_percent)
        return svg(figure)


def refusals(counts: Sequence[tuple[str, int]]) -> str:
    """Why cycles gave no version that serves."""
    with style("refusals"):
        figure = Figure(figsize=(6, 0.8 + 0.35 * len(counts)), layout="constrained")
        axes = figure.subplots()
        names = [name.replace("_", " ") for name, _ in reversed(counts)]
        axes.barh(names, [count for _, count in reversed(counts)], 0.6, color=PALETTE[5])
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("cycles")
        return svg(figure)


def _labels(axes: Axes, results: Sequence[CycleResult]) -> None:
    cycles = sorted({r.cycle for r in results})
    bottoms = [0.0] * len(cycles)
    for (key, name), colour in zip(SETS, PALETTE[1:], strict=False):
        heights = [_mean(r.labels_used.get(key, 0) for r in results if r.cycle == c) for c in cycles]
        axes.bar(cycles, heights, 0.6, bottom=bottoms, color=colour, label=name)
        bottoms = [b + h for b, h in zip(bottoms, heights, strict=True)]
    axes.set_title("labels used, mean of the seeds")
    axes.set_ylim(0, 1.3 * max(bottoms, default=0) or 1)
    axes.legend(loc="upper left", ncols=3, fontsize=9)


def _around_half(values: Iterable[float]) -> tuple[float, float]:
    """The limits of an axis of win rates: one half in the middle, room for all values, and never so little that noise
    looks like much."""
    room = max((abs(value - 0.5) for value in values), default=0.0)
    half = min(0.5, max(0.15, 1.15 * room))
    return 0.5 - half, 0.5 + half


def _percent(value: float, _: int | None = None) -> str:
    return f"{value:.0%}"


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def _interval(axes: Axes, x: float, rate: Range, colour: str, *, filled: bool = True) -> None:
    axes.plot([x, x], [rate.low, rate.high], color=colour, linewidth=3, alpha=0.35, solid_capstyle="round")
    _point(axes, x, rate.value, colour, filled=filled)


def _point(axes: Axes, x: float, y: float, colour: str, *, filled: bool) -> None:
    axes.plot(x, y, "o", markersize=6, color=colour, markerfacecolor=colour if filled else "none")


def _cycles(axes: Axes, results: Sequence[CycleResult]) -> None:
    cycles = sorted({r.cycle for r in results})
    axes.set_xlim(cycles[0] - 0.6, cycles[-1] + 0.6)
    if len(cycles) <= 12:
        axes.set_xticks(cycles)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("cycle")


def _place(result: CycleResult, results: Sequence[CycleResult]) -> float:
    """A cycle's number, with the seeds beside each other."""
    seeds = sorted({r.seed for r in results})
    if len(seeds) == 1:
        return float(result.cycle)
    return result.cycle + SPREAD * (seeds.index(result.seed) / (len(seeds) - 1) - 0.5)


def _by_seed(results: Sequence[CycleResult]) -> list[tuple[int, list[CycleResult]]]:
    seeds = sorted({r.seed for r in results})
    return [(seed, sorted((r for r in results if r.seed == seed), key=lambda r: r.cycle)) for seed in seeds]


def _colour(seed: int) -> str:
    return PALETTE[1 + seed % (len(PALETTE) - 1)]
