"""Temperatures, calibration errors and intervals with values derived by hand."""

import math

import pytest
import torch

from trainer.core.calibration import COLDEST, HOTTEST, calibration_error, fit_temperature, probability_error
from trainer.core.estimates import area_under_curve, mean_over_groups


def test_the_temperature_turns_a_logit_of_two_into_the_share_that_was_right() -> None:
    # 3000 of 4000 cases are right at a logit of 2: sigmoid(2 / T) = 3/4 where 2 / T = log 3; the prior is 1 of 4000.
    labels = torch.cat([torch.ones(3000), torch.zeros(1000)])
    found = fit_temperature(torch.full((4000,), 2.0), labels, torch.ones(4000))
    assert found == pytest.approx(2 / math.log(3), rel=2e-3)


def test_a_label_of_weight_zero_says_nothing_of_the_temperature() -> None:
    logits, weights = torch.full((8000,), 2.0), torch.cat([torch.ones(4000), torch.zeros(4000)])
    labels = torch.cat([torch.ones(3000), torch.zeros(1000), torch.zeros(4000)])
    assert fit_temperature(logits, labels, weights) == pytest.approx(2 / math.log(3), rel=2e-3)


def test_without_cases_the_temperature_is_one_and_it_stays_within_its_bounds() -> None:
    nothing = torch.zeros(0)
    assert fit_temperature(nothing, nothing, nothing) == 1.0
    many = torch.ones(100_000)
    assert COLDEST <= fit_temperature(0.01 * many, many, many) < 0.3
    assert fit_temperature(50 * many, 0 * many, many) == pytest.approx(HOTTEST)


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    # Confidence 0.8 in all four, three of them right: a gap of 0.05. One says 0.2 of a label 0: as sure, and right.
    probs, truth = torch.tensor([0.8, 0.8, 0.8, 0.2]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert calibration_error(probs, truth) == pytest.approx(0.05, abs=1e-6)
    # As probabilities of a rare event: 0.8 against 2/3 in three cases, 0.2 against 0 in one.
    assert probability_error(probs, truth) == pytest.approx(0.75 * (0.8 - 2 / 3) + 0.25 * 0.2, abs=1e-6)
    assert calibration_error(torch.zeros(0), torch.zeros(0)) is None


def test_the_area_under_the_curve_counts_pairs_and_halves_ties() -> None:
    # Positives 3 and 1, negatives 2 and 1: 3 beats both, 1 loses to 2 and ties with 1: 2.5 of 4.
    found = area_under_curve(torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert found is not None and found.mean == 0.625
    # Hanley & McNeil: Q1 = .625/1.375, Q2 = 2*.390625/1.625; variance (.234375 + .063920 + .090144) / 4; SE .311625.
    assert found.low == pytest.approx(0.625 - 1.959964 * 0.311625, abs=1e-4)
    assert area_under_curve(torch.ones(3), torch.ones(3)) is None


def test_a_bootstrap_over_prompts_is_wider_than_one_over_cases_that_repeat_each_other() -> None:
    values = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]).repeat_interleave(20)
    by_prompt = mean_over_groups(values, torch.arange(8).repeat_interleave(20))
    by_case = mean_over_groups(values, torch.arange(160))
    assert by_prompt is not None and by_case is not None
    assert by_prompt.mean == by_case.mean == 0.625
    # The standard errors are sqrt(.625 * .375 / 8) = .171 and sqrt(.625 * .375 / 160) = .038.
    assert by_prompt.high - by_prompt.low > 3 * (by_case.high - by_case.low)
