"""Reads a run's folder and fills the page's template."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from infra.report import plots
from infra.report.plots import Bar
from schemas.errors import SettingsError

FILE, SUMMARY = "report.html", "summary.json"
FIGURES = ("preference", "wins", "accuracy", "iterations", "timeline")
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.ChainableUndefined,  # a part that is missing is left out, whole
)


def write(folder: Path) -> Path:
    """Write `report.html` in one step; raises `SettingsError` where the folder holds no summary."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{folder} holds no {SUMMARY}: a demo that has not ended has no report") from error
    path, partial = folder / FILE, folder / (FILE + ".partial")
    partial.write_text(render(summary, metrics=read_cycles(folder, summary)), encoding="utf-8")
    return partial.replace(path)


def read_cycles(folder: Path, summary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The metrics of each cycle that wrote some, by its version (or its id, where it made none)."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cycle in summary.get("cycles", []):
        rows = _lines(folder / "cycles" / cycle["cycle_id"] / "metrics.jsonl")
        if rows:
            found[cycle.get("version") or cycle["cycle_id"]] = rows
    return found


def render(summary: Mapping[str, Any], *, metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The page. Whatever is missing in the summary is left out, with a word in its place."""
    versions = summary.get("versions", [])
    return _TEMPLATES.get_template("report.html.j2").render(
        s=summary,
        versions=versions,
        verdict=summary.get("verdict") or {"kind": "inconclusive", "headline": "No verdict.", "sentence": ""},
        events=summary.get("events", {}),
        figures=dict.fromkeys(FIGURES) | {n: _figure(svg) for n, svg in _figures(summary, metrics).items()},
        example_versions=_shown_versions(summary),
        command=command(summary.get("settings", {})),
        clock=lambda s: f"{int(s) // 60}:{int(s) % 60:02d} min",
        colour=plots.colour_of,
    )


def command(settings: Mapping[str, Any]) -> str:
    """The command line that runs the same demo again; the folder is left to be a new one."""
    words = ["thumbwheel", "demo"]
    for name in ("model", "taste", "cycles", "users", "noise", "spammers", "seed", "bootstrap_servers"):
        if settings.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return shlex.join(words)


def _figures(summary: Mapping[str, Any], metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    versions = summary.get("versions", [])
    rated = [
        _bar(v, "preference_rate", note=f"{v['thumbs_up'] + v['thumbs_down']:,} rated")
        for v in versions
        if v.get("preference_rate") is not None
    ]
    compared = [
        _bar(v, "win_rate_vs_base", interval="win_rate_ci")
        for v in versions
        if v.get("win_rate_vs_base") is not None and v["version"] != "base"
    ]
    steps = {name: [r for r in rows if "iteration" in r and "kl" in r] for name, rows in metrics.items()}
    steps = {name: rows for name, rows in steps.items() if rows}
    accuracy = _reward_models(summary.get("cycles", []))
    found: dict[str, str] = {}
    if rated:
        found["preference"] = plots.shares(rated, name="preference", label="thumbs up among rated answers")
    if compared:
        found["wins"] = plots.shares(compared, name="wins", label="wins over the base, by true taste", reference=0.5)
    if accuracy:
        found["accuracy"] = plots.shares(accuracy, name="accuracy", label="held-out labels put right", reference=0.5)
    if steps:
        found["iterations"] = plots.iterations(steps)
    if summary.get("growth") or summary.get("traffic"):
        found["timeline"] = plots.timeline(summary)
    return found


def _bar(version: Mapping[str, Any], key: str, *, interval: str | None = None, note: str = "") -> Bar:
    low, high = version[interval or f"{key}_ci"]
    return Bar(version["version"], version[key], low, high, note, plots.colour_of(version["version"]))


def _reward_models(cycles: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """Held-out accuracy of each cycle's reward model, and of the rule that the longer answer is the better one.

    On pairs, or on single ratings where there were more of those.
    """
    bars: list[Bar] = []
    for cycle in cycles:
        known, name = cycle.get("metrics") or {}, cycle.get("version") or cycle["cycle_id"]
        pairs, ratings = known.get("reward_n_pairs", 0), known.get("reward_n_ratings", 0)
        kind, cases = ("pair", pairs) if pairs >= ratings else ("rating", ratings)
        for figure, title, colour in (
            ("accuracy", f"reward model of {name}", plots.colour_of(name)),
            ("length_baseline", "longer is better", plots.PALETTE[0]),
        ):
            value, low, high = (known.get(f"reward_{kind}_{figure}_{part}") for part in ("mean", "low", "high"))
            if value is not None and low is not None and high is not None:
                bars.append(Bar(title, value, low, high, f"from {cases:,.0f} {kind}s", colour))
    return bars


def _shown_versions(summary: Mapping[str, Any]) -> list[str]:
    """Before and after: the base, and the version that serves (or the last one, where the base still does)."""
    known = [v["version"] for v in summary.get("versions", []) if v.get("true_taste_mean") is not None]
    serving = summary.get("serving")
    others = [v for v in known if v != "base"]
    after = serving if serving in others else others[-1] if others else None
    return [v for v in ("base", after) if v is not None and v in known]


def _figure(svg: str) -> Markup:
    # Drawn by `plots` from numbers and version names, which matplotlib escapes: safe to put in as it is.
    return Markup(svg)  # noqa: S704


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; one cut off in the middle is passed over."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found.append(row)
    return found
