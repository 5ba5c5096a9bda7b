"""The population stability index, with values derived by hand."""

import math

import pytest
import torch

from trainer.core.drift import drift

DECILES = torch.linspace(0, 1, 11)


def test_scores_spread_as_in_training_have_no_drift() -> None:
    found = drift(torch.linspace(0.0005, 0.9995, 1000), DECILES)
    assert found is not None and found.psi == pytest.approx(0, abs=1e-9) and found.meaning == "within chance"


def test_an_index_of_scores_that_fall_into_one_half_is_derived_by_hand() -> None:
    # 200 in each of five bins: with half an answer a bin, p = 200.5 / 1005 in five and 0.5 / 1005 in the other five.
    scores = torch.linspace(0.0005, 0.4995, 1000)
    high, low = 200.5 / 1005, 0.5 / 1005
    expected = 5 * ((high - 0.1) * math.log(high / 0.1) + (low - 0.1) * math.log(low / 0.1))
    found = drift(scores, DECILES)
    assert found is not None and found.psi == pytest.approx(expected, rel=1e-4)
    assert found.meaning.startswith("a large change")


def test_a_handful_of_answers_is_within_chance() -> None:
    found = drift(torch.tensor([0.1, 0.2, 0.45, 0.5]), DECILES)
    assert found is not None and found.meaning == "within chance"


def test_tied_training_scores_share_a_bin() -> None:
    # Three tenths of the training scores are 0.3: quantiles 0.1 and 0.2 of them are the same number.
    tied = torch.tensor([0.0, 0.3, 0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    found = drift(torch.cat([torch.full((300,), 0.3), torch.linspace(0.301, 1.0, 700)]), tied)
    assert found is not None and found.psi < 0.01


def test_without_answers_or_with_one_score_for_all_there_is_nothing_to_compare() -> None:
    assert drift(torch.zeros(0), DECILES) is None
    assert drift(torch.zeros(5), torch.zeros(11)) is None
