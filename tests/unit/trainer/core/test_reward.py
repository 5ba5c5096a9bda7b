"""The ensemble on data whose truth is known."""

from pathlib import Path

import pytest
import torch

from schemas.errors import NotEnoughData
from tests.unit.trainer.core.language import language_model
from trainer.core.reward import (
    Example,
    RewardConfig,
    RewardData,
    RewardEnsemble,
    as_metrics,
    features,
    fit_ensemble,
    signal,
    wilson,
)

QUICK = RewardConfig(heads=4, l2_grid=(0.001,), folds=2)


def separable(seed: int, *, pairs: bool = True, ratings: bool = True) -> RewardData:
    """200 answers to 50 prompts; the third feature decides, the other nineteen are noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 20, generator=generator)
    truth = x[:, 2]
    groups = torch.arange(200) // 4
    chosen = torch.stack(
        [torch.where(truth[0::2] > truth[1::2], 0, 1), torch.where(truth[0::2] > truth[1::2], 1, 0)], 1
    )
    made = chosen + torch.arange(0, 200, 2)[:, None]
    return RewardData(
        features_NF=x,
        lengths_N=torch.randint(5, 30, (200,), generator=generator),
        groups_N=groups,
        pairs_P2=made if pairs else made[:0],
        pair_weights_P=torch.ones(100 if pairs else 0),
        rated_R=torch.arange(200 if ratings else 0),
        labels_R=(truth > 0).float()[: 200 if ratings else 0],
        rating_weights_R=torch.ones(200 if ratings else 0),
    )


@pytest.mark.parametrize(("pairs", "ratings"), [(True, True), (True, False), (False, True)])
def test_the_ensemble_learns_a_separable_toy_from_pairs_and_from_thumbs(pairs: bool, ratings: bool) -> None:
    data = separable(0, pairs=pairs, ratings=ratings)
    ensemble, report = fit_ensemble(data, RewardConfig(), torch.Generator().manual_seed(0), held_out=separable(1))
    assert report.pair_accuracy is not None and report.pair_accuracy.mean > 0.9
    assert report.rating_accuracy is not None and (not ratings or report.rating_accuracy.mean > 0.9)
    assert report.pair_length_baseline is not None and report.pair_length_baseline.low < 0.5
    assert ensemble.score(data.features_NF).shape == (200, 16)


def test_a_row_of_weight_zero_teaches_nothing() -> None:
    data = separable(0, ratings=False)
    flipped = data.pairs_P2.flip(1)
    poisoned = RewardData(
        data.features_NF,
        data.lengths_N,
        data.groups_N,
        torch.cat([data.pairs_P2, flipped, flipped]),
        torch.cat([torch.ones(100), torch.zeros(200)]),
    )
    _, report = fit_ensemble(poisoned, QUICK, torch.Generator().manual_seed(0), held_out=separable(1))
    assert report.pair_accuracy is not None and report.pair_accuracy.mean > 0.9


def test_the_spread_is_wider_where_there_were_no_data() -> None:
    ensemble, _ = fit_ensemble(separable(0), RewardConfig(), torch.Generator().manual_seed(0))
    near, far = torch.zeros(50, 20), torch.zeros(50, 20)
    far[:, 5] = 30.0
    assert float(ensemble.score(far).std(1).mean()) > 2 * float(ensemble.score(near).std(1).mean())


def test_the_same_seed_fits_the_same_heads_and_saving_keeps_them(tmp_path: Path) -> None:
    first, _ = fit_ensemble(separable(0), QUICK, torch.Generator().manual_seed(4))
    second, _ = fit_ensemble(separable(0), QUICK, torch.Generator().manual_seed(4))
    first.save(tmp_path / "reward.safetensors")
    loaded = RewardEnsemble.load(tmp_path / "reward.safetensors")
    x = separable(2).features_NF
    assert torch.equal(first.score(x), second.score(x))
    assert torch.equal(first.score(x), loaded.score(x))


def test_rewards_are_normalized_on_reference_answers_discounted_and_clipped() -> None:
    ensemble = RewardEnsemble(
        mean_F=torch.zeros(1), scale_F=torch.ones(1), weight_FH=torch.tensor([[1.0, 3.0]]), bias_H=torch.zeros(2)
    )
    # Scores x, 3x: mean 2x, spread sqrt(2) |x|; k = sqrt(2) / 2 takes off |x|: 1 -> 1, 3 -> 3; center 2, scale sqrt(2).
    config = RewardConfig(spread_discount=0.5**0.5, clip=3.0)
    made = signal(ensemble, torch.tensor([[1.0], [3.0]]), config)
    found = made(torch.tensor([[1.0], [3.0], [2.0], [100.0]]))
    torch.testing.assert_close(found, torch.tensor([-(0.5**0.5), 0.5**0.5, 0.0, 3.0]))


def test_without_labels_there_is_an_error_that_says_so() -> None:
    empty = separable(0, pairs=False, ratings=False)
    with pytest.raises(NotEnoughData, match="collect some feedback"):
        fit_ensemble(empty, RewardConfig(), torch.Generator().manual_seed(0))


def test_the_wilson_interval_of_eight_in_ten_is_the_textbooks() -> None:
    found = wilson(8, 10)
    assert (found.mean, round(found.low, 4), round(found.high, 4)) == (0.8, 0.4902, 0.9433)


def test_a_report_is_flat_numbers() -> None:
    _, report = fit_ensemble(separable(0), QUICK, torch.Generator().manual_seed(0))
    metrics = as_metrics(report)
    assert metrics["n_pairs"] == 100 and metrics["pair_accuracy_low"] is not None


def test_features_of_answers_come_in_the_order_they_were_given() -> None:
    lm = language_model()
    long, short = ({"role": "user", "content": "abcdefgh"},), ({"role": "user", "content": "b"},)
    examples = [Example(short, "cd"), Example(long, "efghij"), Example(short, "x")]
    together = features(lm, examples)
    for n, example in enumerate(examples):
        torch.testing.assert_close(together[n : n + 1], features(lm, [example]), atol=1e-5, rtol=1e-5)
