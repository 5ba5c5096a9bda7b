"""The reward model on held-out labels, label by label."""

import pytest
import torch

from trainer.core.gates import effective
from trainer.core.gates.labels import LabelOutcomes, outcomes
from trainer.core.reward import RewardData


def data(
    lengths: list[int], *, pairs: list[tuple[int, int]] | None = None, up: list[float] | None = None
) -> RewardData:
    n = len(lengths)
    rated = range(n) if up else ()
    return RewardData(
        features_NF=torch.zeros(n, 1),
        lengths_N=torch.tensor(lengths),
        groups_N=torch.arange(n) // 2,
        pairs_P2=torch.tensor(pairs or [], dtype=torch.long).reshape(-1, 2),
        pair_weights_P=torch.ones(len(pairs or [])),
        rated_R=torch.tensor(list(rated), dtype=torch.long),
        labels_R=torch.tensor(up or []),
        rating_weights_R=torch.ones(len(up or [])),
    )


def sure(right: list[float], confidence: float) -> LabelOutcomes:
    n = len(right)
    half = torch.full((n,), 0.5)
    return LabelOutcomes(torch.tensor(right), torch.tensor(right), half, torch.full((n,), confidence), torch.arange(n))


def test_pairs_are_right_where_the_chosen_answer_scores_higher_and_halves_are_ties() -> None:
    train = data([5, 2], pairs=[(1, 0)])  # here people chose the shorter one
    held = data([9, 3, 4, 4], pairs=[(0, 1), (2, 3)])
    found = outcomes(torch.tensor([2.0, 0.0, 1.0, 1.0]), held, train)
    assert found.right_K.tolist() == [1.0, 0.5]
    assert found.ordered_K.tolist() == [1.0, 0.5]
    # The shorter one is not chosen here; equal lengths decide nothing.
    assert found.length_ordered_K.tolist() == [0.0, 0.5]
    assert found.confidence_K.tolist() == pytest.approx([0.880797, 0.5])
    assert found.groups_K.tolist() == [0, 1]


def test_thumbs_are_right_by_the_sign_of_the_score_and_ordered_among_those_of_the_other_kind() -> None:
    train = data([2, 4, 8], up=[0.0, 1.0, 1.0])  # longer than 4: up
    held = data([9, 1, 8], up=[1.0, 1.0, 0.0])
    found = outcomes(torch.tensor([1.0, -1.0, -3.0]), held, train)
    assert found.right_K.tolist() == [1.0, 0.0, 1.0]
    assert found.ordered_K.tolist() == [1.0, 1.0, 1.0]  # both thumbs up score higher than the one down
    # By length one up is above the one down and one below: an area of 0.5. Either adds (3 / 2) * 0.5 to it or takes it.
    assert found.length_ordered_K.tolist() == [1.25, -0.25, 0.5]


def test_thumbs_that_are_all_up_are_right_or_wrong_each_by_itself() -> None:
    found = outcomes(torch.tensor([1.0, -1.0]), data([3, 3], up=[1.0, 1.0]), data([2, 4], up=[0.0, 1.0]))
    assert found.ordered_K.tolist() == [1.0, 0.0]


def test_the_gain_over_length_is_drawn_by_prompts() -> None:
    right = torch.tensor([1.0, 1.0, 0.0, 1.0])
    length = torch.tensor([0.0, 0.0, 0.0, 1.0])
    found = LabelOutcomes(right, right, length, right, torch.tensor([7, 7, 9, 9])).beyond_length(0)
    assert found is not None and (found.mean, found.n) == (0.5, 4)
    assert (found.low, found.high) == (0.0, 1.0)  # two prompts: one all better, one all equal


def test_a_calibrated_model_has_no_error_beyond_chance_and_an_overconfident_one_has() -> None:
    honest = sure([1.0] * 80 + [0.0] * 20, 0.8).calibration(0)
    assert honest is not None and honest.error == pytest.approx(0.0, abs=1e-6) and honest.low < 0
    boastful = sure([1.0] * 60 + [0.0] * 40, 0.95).calibration(0)
    assert boastful is not None and boastful.error == pytest.approx(0.35)
    # Chance alone would make about 0.8 * sqrt(0.95 * 0.05 / 100) = 0.017 of it.
    assert boastful.excess == pytest.approx(0.35 - 0.017, abs=0.004) and boastful.low > 0.28


def test_on_few_labels_a_large_gap_may_be_chance() -> None:
    few = sure([1.0, 0.0], 0.8).calibration(0)
    assert few is not None and few.error == pytest.approx(0.3) and few.low < 0


def test_without_labels_there_is_nothing_to_say() -> None:
    none = LabelOutcomes(*(torch.zeros(0),) * 5)
    assert none.calibration(0) is None and none.beyond_length(0) is None


def test_the_effective_number_is_that_of_equal_weights_and_clusters_count_once() -> None:
    assert effective([("a", 1.0), ("b", 1.0), ("c", 1.0)]) == pytest.approx(3.0)
    assert effective([("a", 1.0), ("a", 1.0), ("b", 2.0)]) == pytest.approx(2.0)
    assert effective([("a", 3.0), ("b", 1.0)]) == pytest.approx(16 / 10)
    assert effective([]) == 0.0
