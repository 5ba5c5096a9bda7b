"""The report's figures, as SVG text that takes its colours for text and lines from the page around it.

One style for all: matplotlib draws in two stand-in colours, which become `currentColor` and the page's `--rule`.
So a figure reads well on a light page and on a dark one.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, RULE = "#010203", "#040506"
PALETTE = ("#8a919c", "#3b82c4", "#d9822b", "#3a9d6e", "#a05fb5", "#c4484f")
"""The base is grey; versions follow in order."""

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Bar:
    """A named share with its interval. `note` is written beside it."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""
    colour: str = PALETTE[0]


def style(salt: str) -> AbstractContextManager[None]:
    """The style, with ids of the figure's own: several figures share one page."""
    options: Any = STYLE | {"svg.hashsalt": salt}
    return mpl.rc_context(options)


def colour_of(version: str) -> str:
    """The colour of a version, the same in every figure."""
    digits = version.removeprefix("v")
    return PALETTE[1 + (int(digits) - 1) % (len(PALETTE) - 1)] if digits.isdigit() and digits != "0" else PALETTE[0]


def shares(bars: Sequence[Bar], *, name: str, label: str, reference: float | None = None) -> str:
    """Shares one below the other, each a dot with its interval; a dashed line where nothing would have changed."""
    with style(name):
        figure = Figure(figsize=(6, 0.9 + 0.5 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for row, bar in enumerate(reversed(bars)):
            axes.plot(
                [bar.low, bar.high], [row, row], color=bar.colour, linewidth=5, alpha=0.35, solid_capstyle="round"
            )
            axes.plot(bar.value, row, "o", color=bar.colour, markersize=9)
            axes.annotate(
                f"{bar.value:.0%}",
                (bar.value, row),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                weight="bold",
            )
            axes.annotate(bar.note, (1.0, row), xytext=(6, -4), textcoords="offset points", fontsize=9)
        axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
        axes.set_ylim(-0.6, len(bars) - 0.25)
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.set_xlabel(label)
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        return svg(figure)


def iterations(cycles: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Reward and KL by PPO iteration, a line for each cycle (its rows have `iteration`, `reward`, `kl`)."""
    with style("iterations"):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        panels = figure.subplots(1, 2)
        wanted = (("reward", "mean normalized reward"), ("kl", "KL to the base, nats an answer"))
        for axes, (key, title) in zip(panels, wanted, strict=True):
            for name, rows in cycles.items():
                points = [(r["iteration"], r[key]) for r in rows if key in r]
                if points:
                    xs, ys = zip(*points, strict=True)
                    axes.plot(xs, ys, color=colour_of(name), label=name, marker="o", markersize=3)
            axes.set_title(title)
            axes.set_xlabel("PPO iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
        if len(cycles) > 1:
            panels[0].legend(loc="best")
        return svg(figure)


def timeline(summary: Mapping[str, Any]) -> str:
    """Events and rows over time; below, who answered how often, with the cycles shaded and promotions marked."""
    with style("timeline"):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        growth = summary.get("growth", [])
        seconds = [point["second"] / 60 for point in growth]
        upper.plot(seconds, [p["sent"] for p in growth], color=PALETTE[1], label="events acknowledged")
        upper.plot(
            seconds, [p["rows"] for p in growth], color=PALETTE[2], label="rows in bronze tables", linestyle="--"
        )
        upper.legend(loc="upper left")
        _answers_by_version(lower, summary.get("traffic", []))
        for axes in (upper, lower):
            _cycles(axes, summary.get("cycles", []))
        _promotions(upper, summary.get("promotions", []))
        lower.set_xlabel("minutes since the start (shaded: an update cycle)")
        lower.set_title("answers by version, every 15 s")
        return svg(figure)


def _answers_by_version(axes: Axes, traffic: Sequence[Mapping[str, Any]]) -> None:
    bottoms: dict[float, float] = {}
    for version in dict.fromkeys(point["version"] for point in traffic):
        points = [(p["second"] / 60 + 0.125, p["answers"]) for p in traffic if p["version"] == version]
        xs, heights = [x for x, _ in points], [h for _, h in points]
        axes.bar(xs, heights, 0.22, bottom=[bottoms.get(x, 0) for x in xs], color=colour_of(version), label=version)
        bottoms |= {x: bottoms.get(x, 0) + h for x, h in points}
    if bottoms:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=6)  # above the bars, never on them


def _cycles(axes: Axes, cycles: Sequence[Mapping[str, Any]]) -> None:
    for cycle in cycles:
        if cycle.get("ended_second") is not None:
            axes.axvspan(
                cycle["began_second"] / 60, cycle["ended_second"] / 60, color=PALETTE[0], alpha=0.15, linewidth=0
            )


def _promotions(axes: Axes, promotions: Sequence[Mapping[str, Any]]) -> None:
    for promotion in promotions:
        minute = max(promotion["second"], 0) / 60
        axes.axvline(minute, color=colour_of(promotion["version"]), linewidth=1.2)
        axes.annotate(
            f"{promotion['version']} live", (minute, 0), xytext=(4, 5), textcoords="offset points", fontsize=9,
            color=colour_of(promotion["version"]),
        )  # fmt: skip


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that scales with its column, without the XML head and fixed colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns:xlink="[^"]*"', "", text, count=1).replace("xlink:href", "href")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
