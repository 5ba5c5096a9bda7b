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
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
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
        figures={name: _figure(svg) for name, svg in _figures(summary, metrics).items()},
        example_versions=_shown_versions(summary),
        command=command(summary.get("settings", {})),
        clock=lambda s: f"{int(s) // 60} min {int(s) % 60:02d} s",
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
        Bar(v["version"], v["preference_rate"], *v["preference_rate_ci"], _thumbs(v), plots.colour_of(v["version"]))
        for v in versions
        if v.get("preference_rate") is not None
    ]
    compared = [
        Bar(v["version"], v["win_rate_vs_base"], *v["win_rate_ci"], "", plots.colour_of(v["version"]))
        for v in versions
        if v.get("win_rate_vs_base") is not None and v["version"] != "base"
    ]
    steps = {name: [r for r in rows if "iteration" in r and "kl" in r] for name, rows in metrics.items()}
    steps = {name: rows for name, rows in steps.items() if rows}
    accuracy = _reward_models(summary, metrics)
    found: dict[str, str] = {}
    if rated:
        found["preference"] = plots.shares(rated, name="preference", label="thumbs up among rated answers")
    if compared:
        found["wins"] = plots.shares(compared, name="wins", label="wins over the base, by true taste", reference=0.5)
    if accuracy:
        found["accuracy"] = plots.shares(accuracy, name="accuracy", label="held-out pairs put right", reference=0.5)
    if steps:
        found["iterations"] = plots.iterations(steps)
    if summary.get("growth") or summary.get("traffic"):
        found["timeline"] = plots.timeline(summary)
    return found


def _thumbs(version: Mapping[str, Any]) -> str:
    return f"{version['thumbs_up'] + version['thumbs_down']:,} rated"


def _reward_models(summary: Mapping[str, Any], metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Bar]:
    """Held-out accuracy of each cycle's reward model, and of the rule that the longer answer is the better one."""
    bars: list[Bar] = []
    for cycle in summary.get("cycles", []):
        name = cycle.get("version") or cycle["cycle_id"]
        rows = [*metrics.get(name, ()), cycle.get("metrics", {})]
        known: dict[str, Any] = {}
        for row in rows:
            known |= {key: row[key] for key in _ACCURACY if isinstance(row.get(key), int | float)}
        bars += _accuracy_bars(name, known)
    return bars


_ACCURACY = (
    "accuracy", "accuracy_low", "accuracy_high", "length_accuracy", "length_accuracy_low", "length_accuracy_high",
)  # fmt: skip


def _accuracy_bars(name: str, known: Mapping[str, float]) -> list[Bar]:
    bars: list[Bar] = []
    for prefix, title, colour in (
        ("accuracy", f"reward model of {name}", plots.colour_of(name)),
        ("length_accuracy", "longer is better", plots.PALETTE[0]),
    ):
        if prefix in known:
            value = known[prefix]
            low, high = known.get(f"{prefix}_low", value), known.get(f"{prefix}_high", value)
            bars.append(Bar(title, value, low, high, "", colour))
    return bars


def _shown_versions(summary: Mapping[str, Any]) -> list[str]:
    """Before and after: the base, and the version that serves (or the last one, where the base still does)."""
    known = [v["version"] for v in summary.get("versions", []) if v.get("true_taste_mean") is not None]
    serving = summary.get("serving")
    after = (
        serving if serving in known and serving != "base" else next((v for v in reversed(known) if v != "base"), None)
    )
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
