"""The verdict says what the interval says."""

import pytest

from infra.demo.statistics import Estimate
from infra.demo.verdict import judge_run


@pytest.mark.parametrize(
    ("value", "low", "high", "kind"),
    [
        (0.70, 0.61, 0.79, "helped"),
        (0.51, 0.501, 0.52, "helped"),
        (0.55, 0.48, 0.62, "inconclusive"),
        (0.55, 0.50, 0.60, "inconclusive"),
        (0.50, 0.44, 0.56, "did_not_help"),
        (0.46, 0.40, 0.52, "did_not_help"),
        (0.30, 0.20, 0.40, "harmed"),
    ],
)
def test_the_verdict_follows_from_the_interval(value: float, low: float, high: float, kind: str) -> None:
    assert judge_run("v2", Estimate(value, low, high, 80), cycles=2).kind == kind


def test_an_update_that_is_no_better_is_said_to_have_not_helped() -> None:
    verdict = judge_run("v1", Estimate(0.48, 0.40, 0.56, 80), cycles=1)
    assert verdict.headline == "The update did not help."
    assert "no better than the base model" in verdict.sentence
    assert "48% of comparisons (95% interval 40% to 56%)" in verdict.sentence


@pytest.mark.parametrize("serving", [None, "base"])
def test_where_the_base_still_serves_nothing_was_promoted(serving: str | None) -> None:
    verdict = judge_run(serving, Estimate(0.5, 0.5, 0.5, 80), cycles=2)
    assert verdict.kind == "nothing_promoted"
    assert verdict.sentence.startswith("2 update cycles ran")
