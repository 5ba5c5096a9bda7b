"""What is no property of an answer moves no score: who rated it, how long it is, and numbers that are none."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from schemas.errors import NotEnoughData
from trainer.core.reward import RewardConfig, RewardData, RewardEnsemble, fit_ensemble
from trainer.core.reward_data import finite, without_one_sided
from trainer.core.reward_fit import bootstrap, fit, length_terms

QUICK = RewardConfig(heads=2, l2_grid=(0.01,), folds=2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ensemble_of(data: RewardData) -> RewardEnsemble:
    return fit_ensemble(data, QUICK, generator())[0]


def thumbs(labels_R: Tensor, raters_R: Tensor, features_NF: Tensor) -> RewardData:
    """One thumb on each answer, each answer to a prompt of its own."""
    n = len(features_NF)
    return RewardData(
        features_NF=features_NF,
        lengths_N=torch.full((n,), 10),
        groups_N=torch.arange(n),
        rated_R=torch.arange(n),
        labels_R=labels_R,
        rating_weights_R=torch.ones(n),
        raters_R=raters_R,
    )


def by_length(n: int = 400) -> RewardData:
    """Of two answers the longer one always wins, and the first feature is its length with noise as large again."""
    lengths = torch.randint(5, 200, (n,), generator=generator(1))
    logs = torch.log(lengths.float())
    features = torch.randn(n, 8, generator=generator(2))
    features[:, 0] = (logs - logs.mean()) / logs.std() + torch.randn(n, generator=generator(3))
    left, right = torch.arange(0, n, 2), torch.arange(1, n, 2)
    first = lengths[left] >= lengths[right]
    pairs = torch.stack([torch.where(first, left, right), torch.where(first, right, left)], 1)
    return RewardData(features, lengths, torch.arange(n) // 2, pairs, torch.ones(n // 2))


def test_labels_by_length_alone_teach_a_reward_that_is_nearly_flat() -> None:
    data = by_length()
    config = replace(QUICK, l2_grid=(0.01, 0.1))
    biased, before = fit_ensemble(data, replace(config, remove_length=False), generator())
    plain, after = fit_ensemble(data, config, generator())
    # Undone the temperature: it would blow up what is left of a score that tells nothing.
    spread = [float(e.score(data.features_NF).mean(1).std()) * e.temperature for e in (biased, plain)]
    assert spread[1] < 0.25 * spread[0]
    assert before.length_correlation > 0.5
    assert after.length_correlation_before > 0.9
    assert after.pair_length_baseline is not None and after.pair_length_baseline.mean == 0.9975  # one tie in 200


def test_what_is_good_is_learned_where_longer_answers_are_better_liked_too() -> None:
    data = by_length()
    quality = data.features_NF[:, 3]
    chosen, rejected = data.pairs_P2.unbind(1)
    gain = torch.log(data.lengths_N.float()) + 2 * quality
    right = (gain[chosen] > gain[rejected])[:, None]
    mixed = replace(data, pairs_P2=torch.where(right, data.pairs_P2, data.pairs_P2.flip(1)))
    scores = ensemble_of(mixed).score(data.features_NF).mean(1)
    assert float(torch.corrcoef(torch.stack([scores, quality]))[0, 1]) > 0.9


def test_the_length_covariates_of_one_deviation_above_the_mean_are_one_and_nought() -> None:
    # log(1 + 9) = 2.302585; center 1.302585, scale 1: z = 1, (z^2 - 1) / 2 = 0. At z = 0 it is -1/2.
    found = length_terms(torch.tensor([9]), 1.302585, 1.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(length_terms(torch.tensor([0]), 0.0, 1.0), torch.tensor([[0.0, -0.5]]))


def test_a_user_who_thumbs_everything_up_moves_nothing() -> None:
    features = torch.randn(60, 5, generator=generator())
    labels, raters = (features[:, 1] > 0).float(), torch.arange(60) % 12
    honest = thumbs(labels, raters, features)
    again = torch.arange(40).repeat(2)
    crowd = replace(
        honest,
        rated_R=torch.cat([honest.rated_R, again]),
        labels_R=torch.cat([labels, torch.ones(80)]),
        rating_weights_R=torch.cat([honest.rating_weights_R, torch.ones(80)]),
        raters_R=torch.cat([raters, torch.full((80,), 99)]),
    )
    plain, moved = ensemble_of(honest), ensemble_of(crowd)
    assert torch.equal(plain.weight_FH, moved.weight_FH) and torch.equal(plain.bias_H, moved.bias_H)


def test_a_strict_and_a_lenient_rater_of_the_same_taste_are_understood_as_such() -> None:
    """Both like the first feature, one from -1 on and the other from +1 on, and each rates answers of one kind.

    The second feature marks whose answers they are. Without offsets it is taken for quality.
    """
    n = 400
    features = torch.randn(n, 2, generator=generator())
    lenient = torch.arange(n) % 2 == 0
    features[:, 1] = torch.where(lenient, 1.0, -1.0) + 0.5 * torch.randn(n, generator=generator(5))
    labels = (features[:, 0] > torch.where(lenient, -1.0, 1.0)).float()
    raters = torch.where(lenient, 0, 1)

    def share_of_the_mark(config: RewardConfig) -> float:
        data = thumbs(labels, raters, features)
        weight = fit(data, config, 0.001, torch.ones(n, 1)).weight_FH[:, 0].abs()
        return float(weight[1] / weight.sum())

    without = share_of_the_mark(replace(QUICK, rater_spread=0.0))
    # The prior holds an offset back, so some of it is left: with a wide prior next to nothing.
    assert share_of_the_mark(QUICK) < 0.75 * without
    assert share_of_the_mark(replace(QUICK, rater_spread=10.0)) < 0.4 * without


def test_one_sided_is_who_gave_eight_thumbs_alike() -> None:
    labels = torch.tensor([1.0] * 8 + [0.0] * 8 + [1.0] * 7 + [1.0] * 7 + [0.0] + [1.0] * 9)
    raters = torch.tensor([0] * 8 + [1] * 8 + [2] * 7 + [3] * 8 + [-1] * 9)
    left, dropped = without_one_sided(thumbs(labels, raters, torch.zeros(40, 1)), 8)
    assert dropped == 16
    assert sorted(left.raters_R.unique().tolist()) == [-1, 2, 3]  # seven alike, a mixed one, and unknown people


def test_a_rater_whom_nobody_knows_has_no_offset() -> None:
    features = torch.randn(40, 3, generator=generator())
    labels = (features[:, 0] > 0).float()
    unknown = thumbs(labels, torch.full((40,), -1), features)
    not_told = replace(unknown, raters_R=torch.zeros(0, dtype=torch.long))
    weights = bootstrap(40, 2, generator())
    assert torch.equal(fit(unknown, QUICK, 0.01, weights).weight_FH, fit(not_told, QUICK, 0.01, weights).weight_FH)


def test_labels_on_numbers_that_are_none_are_left_out_and_counted() -> None:
    data = by_length(40)
    features, weights = data.features_NF.clone(), data.pair_weights_P.clone()
    features[0, 0], features[3, 1], weights[5] = float("nan"), float("inf"), float("nan")  # of pairs 0, 1 and 5
    left, dropped = finite(replace(data, features_NF=features, pair_weights_P=weights))
    assert (dropped, len(left.pairs_P2)) == (3, 17)
    ensemble, report = fit_ensemble(replace(data, features_NF=features, pair_weights_P=weights), QUICK, generator())
    assert report.dropped == 3 and bool(ensemble.weight_FH.isfinite().all())


def test_where_no_label_is_left_the_error_says_why() -> None:
    data = by_length(40)
    with pytest.raises(NotEnoughData, match="20 had features or weights that are no finite numbers"):
        fit_ensemble(replace(data, pair_weights_P=torch.full((20,), float("nan"))), QUICK, generator())
