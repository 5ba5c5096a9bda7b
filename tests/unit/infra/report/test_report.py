"""The report: whole, partial, and with hostile texts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.demo import summary
from infra.report import page, write_report
from schemas.errors import SettingsError
from tests.unit.infra.demo.outcomes import outcome


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    return json.loads(json.dumps(summary.build(outcome())))


STEPS = [{"iteration": i, "reward": 0.1 * i, "kl": 0.2 * i} for i in range(3)]


def test_a_finished_run_has_its_figures_and_its_verdict(built: dict[str, Any]) -> None:
    html = page.render(built, metrics={"v1": STEPS})
    assert html.count("<svg") == 4
    assert built["verdict"]["sentence"].split("(")[0] in html.replace("&#39;", "'")
    assert "thumbwheel demo --model tiny" in html


def test_the_page_refers_to_nothing_outside_itself(built: dict[str, Any]) -> None:
    html = page.render(built, metrics={"v1": STEPS})
    assert not re.search(r"""(?:src|href)=["'](?!#)""", html)
    assert "@import" not in html
    assert "<script" not in html
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_html_in_answers_is_escaped(built: dict[str, Any]) -> None:
    assert "&lt;b&gt;Thank&lt;/b&gt; you." in page.render(built, metrics={})
    assert "<b>Thank</b>" not in page.render(built, metrics={})


@pytest.mark.parametrize(
    "missing", ["examples", "traffic", "growth", "cycles", "exactly_once", "versions", "verdict", "settings", "events"]
)
def test_a_summary_that_lacks_a_part_still_makes_a_page(built: dict[str, Any], missing: str) -> None:
    assert "</html>" in page.render({k: v for k, v in built.items() if k != missing}, metrics={})


def test_an_empty_summary_makes_a_page_that_says_so() -> None:
    assert "No version could be compared with the base." in page.render({}, metrics={})


def test_versions_that_were_neither_rated_nor_asked_have_a_dash(built: dict[str, Any]) -> None:
    bare = [v | {"preference_rate": None, "win_rate_vs_base": None, "true_taste_mean": None} for v in built["versions"]]
    assert "not asked" in page.render(built | {"versions": bare}, metrics={})


def test_a_metrics_file_that_was_cut_off_loses_its_last_line_only(built: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "cycles" / "c1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps(STEPS[0]) + "\n" + '{"iterat')
    assert page.read_cycles(tmp_path, built) == {"v1": [STEPS[0]]}


def test_the_report_is_written_beside_the_summary_in_one_step(built: dict[str, Any], tmp_path: Path) -> None:
    summary.write(tmp_path, built)
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "summary.json"]


def test_without_a_summary_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no report"):
        write_report(tmp_path)


def test_the_command_to_run_it_again_is_quoted_for_a_shell() -> None:
    assert (
        page.command({"model": "my model", "seed": 1, "plain": False}) == "thumbwheel demo --model 'my model' --seed 1"
    )
