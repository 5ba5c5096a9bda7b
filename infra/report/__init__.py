"""The report of a demo: one HTML file with everything in it, made from the run's folder alone."""

from pathlib import Path

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Make `report.html` from `summary.json` and the cycles' metrics; where a part is missing the page says so."""
    from infra.report.page import write  # heavy: matplotlib, jinja2

    return write(folder)
