"""The lab's page: whole, empty, and with hostile texts."""

import re

import pytest

from infra.lab import page, screen
from infra.lab.options import LabOptions
from infra.lab.results import CycleResult
from tests.unit.infra.lab.made import failed, promoted, rate, refused

OPTIONS = LabOptions(poisoners=0.05, drift_at=2, drift_taste="my.tastes:other")
RESULTS = [
    promoted(0, 1),
    refused(0, 2, parent="v1", serving="v1", serving_vs_base=rate(0.7, 0.6, 0.8)),
    promoted(1, 1, regression="yes", vs_parent=rate(0.4, 0.3, 0.49)),
    failed(1, 2),
]


def test_a_run_has_its_figures_and_each_cycle_a_row() -> None:
    html = page.render(OPTIONS, RESULTS)
    assert html.count("<svg") == 4
    assert "v1 promoted, worse" in html and "v2 refused" in html
    assert "kl: 9.00 nats an answer against the base, at most 7.50" in html
    assert "there are 8 labels in all and 20 are needed" in html


def test_worse_versions_make_the_headline() -> None:
    assert "<h1>1 version was promoted that made it worse.</h1>" in page.render(OPTIONS, RESULTS)


@pytest.mark.parametrize("results", [[], [failed(0, 1)], [promoted(0, 1)], [refused(0, 1), refused(1, 1)]])
def test_whatever_there_is_makes_a_page(results: list[CycleResult]) -> None:
    html = page.render(LabOptions(), results)
    assert html.rstrip().endswith("</html>")
    assert ("No cycle is finished yet." in html) == (not results)


def test_segments_have_their_own_rates() -> None:
    by_segment = {"shop": rate(0.9, 0.8, 0.95), "help": rate(0.3, 0.2, 0.4)}
    html = page.render(LabOptions(), [promoted(0, 1, vs_base_by_segment=by_segment)])
    assert "shop 90% (80% to 95%)" in html and "help 30% (20% to 40%)" in html


def test_the_page_refers_to_nothing_outside_itself() -> None:
    html = page.render(OPTIONS, RESULTS)
    assert not re.search(r"""(?:src|href)=["'](?!#)""", html)
    assert "@import" not in html and "<script" not in html
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_html_in_reasons_and_names_is_escaped() -> None:
    html = page.render(LabOptions(taste="<b>:f"), [refused(0, 1, reason="<i>no</i>", gates=())])
    assert "&lt;i&gt;no&lt;/i&gt;" in html and "<i>no</i>" not in html and "<b>:f" not in html


def test_the_command_names_every_option_that_shapes_the_result() -> None:
    options = LabOptions(
        segments=(("a b", "m:f"), ("c", "m:g")), seeds=2, poisoners=0.1, drift_at=2, drift_taste="m:h", users=50
    )
    assert page.command(options) == (
        "thumbwheel lab --model tiny --segment 'a b=m:f' --segment c=m:g --seeds 2 --first-seed 0 --cycles 3 --users 50"
        " --answers 1000 --flips 0.2 --spammers 0.1 --poisoners 0.1 --poison infra.lab.poisons:rude --drift-at 2"
        " --drift-taste m:h"
    )


def test_a_line_in_the_terminal_says_what_came_of_a_cycle() -> None:
    lines = [screen.line(result) for result in RESULTS]
    assert lines[0] == "seed 0, cycle 1: v1 promoted; true win rate over the base 70% (60% to 80%)"
    assert lines[1].startswith("seed 0, cycle 2: refused: kl: 9.00 nats")
    assert "v1 promoted, WORSE than its parent" in lines[2]
    assert lines[3].startswith("seed 1, cycle 2: failed: there are 8 labels")
