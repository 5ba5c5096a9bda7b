"""Random SIGKILLs of the data plane, two ingest workers in it; `python -m tests.e2e.data_kill` is the full run."""

from pathlib import Path

import pytest

from tests.e2e.data_kill import run

pytestmark = pytest.mark.timeout(600)


def test_nothing_is_lost_doubled_or_derived_wrongly_whatever_is_killed(tmp_path: Path, tiny_model: Path) -> None:
    report = run(tmp_path / "data", tiny_model, kills=8, seed=7)
    assert sum(report.kills.values()) >= 5 and report.acknowledged > 200, report.text()
    assert report.clean, report.text()
