"""An ensemble against a single reward model at 25 % label noise, judged by the true reward (after 2310.02743).

The policy is best-of-n: the further it optimizes (larger n), the more it finds answers with rare features, of which 150
noisy pairs tell little. Truly these are worth nothing: each costs a little.
"""

import pytest
import torch
from torch import Tensor

from trainer.core.reward import RewardConfig, RewardData, RewardEnsemble, fit_ensemble
from trainer.core.reward_data import folds_of
from trainer.core.reward_fit import choose_l2, fit

PAIRS, PROMPTS, FURTHEST = 150, 100, 1024
COMMON, RARE = 6, 40
TRUE = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.3, 0.2] + [-0.3] * RARE)


def answers(n: int, generator: torch.Generator) -> Tensor:
    """Six features that every answer has, and forty that one in fifty has, strongly."""
    present = (torch.rand(n, RARE, generator=generator) < 0.02).float()
    strength = 4.0 * (0.5 + torch.rand(n, RARE, generator=generator))
    return torch.cat([torch.randn(n, COMMON, generator=generator), present * strength], 1)


def noisy_pairs(generator: torch.Generator) -> RewardData:
    x = answers(2 * PAIRS, generator)
    true = (x @ TRUE).view(-1, 2)
    flipped = torch.rand(PAIRS, generator=generator) < 0.25
    rows = torch.arange(2 * PAIRS).view(-1, 2)
    chosen = torch.where(((true[:, 0] > true[:, 1]) ^ flipped)[:, None], rows, rows.flip(1))
    return RewardData(
        features_NF=x,
        lengths_N=torch.full((2 * PAIRS,), 10),
        groups_N=torch.arange(2 * PAIRS) // 2,
        pairs_P2=chosen,
        pair_weights_P=torch.ones(PAIRS),
    )


def single_model(data: RewardData) -> RewardEnsemble:
    """One head without a bootstrap."""
    config = RewardConfig(remove_length=False)
    l2 = choose_l2(data, config, folds_of(data.groups_N, config.folds, torch.Generator().manual_seed(0)))
    found = fit(data, config, l2, torch.ones(PAIRS, 1))
    return RewardEnsemble(found.standardizer.mean_F, found.standardizer.scale_F, found.weight_FH, found.bias_H)


def curve(ensemble: RewardEnsemble, discount: float, x_BNF: Tensor) -> Tensor:
    """The true reward of the best of n by the model, n = 1, 4, 16, ..., 1024; the mean over prompts."""
    scores_BNH = ensemble.score(x_BNF.flatten(0, 1)).view(PROMPTS, FURTHEST, -1)
    spread_BN = scores_BNH.std(2) if discount else torch.zeros(())
    seen_BN, true_BN = scores_BNH.mean(2) - discount * spread_BN, x_BNF @ TRUE
    taken = [seen_BN[:, : 4**k].argmax(1) for k in range(6)]
    return torch.stack([true_BN.gather(1, best[:, None]).mean() for best in taken])


@pytest.fixture(scope="module")
def curves() -> dict[str, Tensor]:
    """The mean curves of three populations."""
    found: dict[str, list[Tensor]] = {}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        data = noisy_pairs(generator)
        x_BNF = answers(PROMPTS * FURTHEST, generator).view(PROMPTS, FURTHEST, -1)
        ensemble, _ = fit_ensemble(data, RewardConfig(remove_length=False), torch.Generator().manual_seed(seed))
        found.setdefault("single", []).append(curve(single_model(data), 0.0, x_BNF))
        for discount in (0.0, 0.5, 3.0):
            found.setdefault(f"k={discount}", []).append(curve(ensemble, discount, x_BNF))
    return {name: torch.stack(each).mean(0) for name, each in found.items()}


def test_a_single_reward_model_turns_over(curves: dict[str, Tensor]) -> None:
    single = curves["single"]
    assert float(single.max()) > float(single[0]) + 1.0
    assert float(single[-1]) < float(single.max()) - 0.8


def test_the_mean_of_an_ensemble_alone_turns_over_as_well(curves: dict[str, Tensor]) -> None:
    assert float(curves["k=0.0"][-1]) < float(curves["k=0.0"].max()) - 0.5


def test_a_mean_discounted_by_three_spreads_ends_within_five_percent_of_its_peak(curves: dict[str, Tensor]) -> None:
    discounted = curves["k=3.0"]
    assert float(discounted[-1]) > 0.95 * float(discounted.max()) > 2.0


def test_the_default_discount_loses_less_than_none_but_does_not_hold_by_itself(curves: dict[str, Tensor]) -> None:
    # Half a spread leaves the rest to the KL budget and to the judge, who chooses the state that is kept.
    default = curves["k=0.5"]
    assert RewardConfig().spread_discount == 0.5
    assert float(curves["single"][-1]) + 0.4 < float(default[-1]) < 0.95 * float(default.max())
