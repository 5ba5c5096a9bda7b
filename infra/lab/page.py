"""The lab's page: one HTML file with everything in it, made from the results alone."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from infra.lab import plots
from infra.lab.options import LabOptions
from infra.lab.results import CycleResult
from infra.lab.summary import sentence, summarise, verdict

FILE = "report.html"
_HERE = Path(__file__).parent
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([_HERE, _HERE.parent / "report"]),  # the report lends its style sheet
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def write(folder: Path, options: LabOptions, results: Sequence[CycleResult]) -> Path:
    """Write `report.html` in one step."""
    path, partial = folder / FILE, folder / (FILE + ".partial")
    partial.write_text(render(options, results), encoding="utf-8")
    return partial.replace(path)


def render(options: LabOptions, results: Sequence[CycleResult]) -> str:
    """The page of all results that there are; it may be none."""
    summary = summarise(results)
    kind, headline = verdict(summary)
    return _TEMPLATES.get_template("lab.html.j2").render(
        o=options,
        s=summary,
        results=results,
        kind=kind,
        headline=headline,
        sentence=sentence(summary),
        figures={name: Markup(drawn) for name, drawn in _figures(results).items()},  # noqa: S704 - drawn from numbers
        command=command(options),
        tastes=options.tastes_at(1),
    )


def command(options: LabOptions) -> str:
    """The command line that runs the same lab again, into a new folder."""
    words = ["thumbwheel", "lab", "--model", options.model]
    if options.segments:
        words += [word for name, taste in options.segments for word in ("--segment", f"{name}={taste}")]
    else:
        words += ["--taste", options.taste]
    names = ["seeds", "first_seed", "cycles", "users", "answers", "flips", "spammers", "poisoners"]
    names += ["poison"] if options.poisoners else []
    names += ["drift_at", "drift_taste"] if options.drift_at else []
    for name in names:
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return shlex.join(words)


def _figures(results: Sequence[CycleResult]) -> dict[str, str]:
    if not results:
        return {}
    found = {"by_cycle": plots.by_cycle(results), "kl_and_labels": plots.kl_and_labels(results)}
    if any(r.vs_base for r in results):
        found["over_optimization"] = plots.over_optimization(results)
    counts = summarise(results).refusals
    if counts:
        found["refusals"] = plots.refusals(counts)
    return found
