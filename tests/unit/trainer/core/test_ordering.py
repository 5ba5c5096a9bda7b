"""How often scores have people's order, against numbers worked out by hand."""

import pytest
import torch
from torch import Tensor

from trainer.core.estimates import Estimate
from trainer.core.ordering import ordering as of_parts
from trainer.core.ordering import thumb_values
from trainer.core.reward_data import RewardData


def data(
    *,
    labels: list[float] = [],  # noqa: B006 - never changed
    weights: list[float] | None = None,
    raters: list[int] | None = None,
    prompts: list[int] | None = None,
    pairs: list[tuple[int, int]] = [],  # noqa: B006
    pair_raters: list[int] | None = None,
) -> RewardData:
    """The nth thumb is on the nth answer; pairs are of answers by their numbers."""
    n = max([len(labels), *(1 + max(pair) for pair in pairs)])
    return RewardData(
        features_NF=torch.zeros(n, 1),
        lengths_N=torch.ones(n, dtype=torch.long),
        groups_N=torch.tensor(prompts) if prompts else torch.arange(n),
        pairs_P2=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        pair_weights_P=torch.ones(len(pairs)),
        raters_P=torch.tensor(pair_raters or [], dtype=torch.long),
        rated_R=torch.arange(len(labels)),
        labels_R=torch.tensor(labels),
        rating_weights_R=torch.tensor(weights) if weights else torch.ones(len(labels)),
        raters_R=torch.tensor(raters or [], dtype=torch.long),
    )


def ordering(scores_N: Tensor, labels: RewardData) -> Estimate | None:
    return of_parts([(scores_N, labels)])


def test_who_calls_every_answer_good_is_right_in_nine_of_ten_thumbs_and_orders_by_chance() -> None:
    found = ordering(torch.full((10,), 2.0), data(labels=[1.0] * 9 + [0.0]))
    assert found is not None and found.mean == 0.5


def test_thumbs_are_compared_with_those_of_the_other_kind() -> None:
    # Up at 3 and 1, down at 2 and 0: of the four pairs (3,2) (3,0) (1,2) (1,0) one is wrong.
    found = ordering(torch.tensor([3.0, 1.0, 2.0, 0.0]), data(labels=[1.0, 1.0, 0.0, 0.0]))
    assert found is not None and (found.mean, found.n) == (0.75, 4)


def test_a_thumb_counts_by_its_weight_and_a_tie_by_half() -> None:
    # Up at 1 (weight 3) and 0 (1), down at 0 (2): (3 * 2 * 1 + 1 * 2 * 0.5) / (4 * 2).
    found = ordering(torch.tensor([1.0, 0.0, 0.0]), data(labels=[1.0, 1.0, 0.0], weights=[3.0, 1.0, 2.0]))
    assert found is not None and found.mean == pytest.approx(7 / 8)


def test_pairs_and_thumbs_count_by_their_numbers() -> None:
    # One pair, right; four thumbs of area 0.75 as above: (1 + 4 * 0.75) / 5.
    given = data(labels=[1.0, 1.0, 0.0, 0.0], pairs=[(0, 3)])
    found = ordering(torch.tensor([3.0, 1.0, 2.0, 0.0]), given)
    assert found is not None and (found.mean, found.n) == (pytest.approx(0.8), 5)


def test_thumbs_of_one_kind_have_no_order_and_pairs_are_counted_without_them() -> None:
    scores = torch.tensor([1.0, 0.0])
    assert ordering(scores, data(labels=[1.0, 1.0])) is None
    found = ordering(scores, data(labels=[1.0, 1.0], pairs=[(1, 0)]))
    assert found is not None and (found.mean, found.n) == (0.0, 1)


def test_the_values_of_thumbs_have_the_variance_of_delong() -> None:
    """var = S_up / n_up + S_down / n_down, with the sample variances of each thumb's share of the others."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(30, generator=generator) + 0.5, torch.randn(70, generator=generator)
    values = thumb_values(torch.cat([up, down]), torch.tensor([1.0] * 30 + [0.0] * 70), torch.ones(100))
    above = (up[:, None] > down[None]).double()
    delong = float(above.mean(1).var() / 30 + above.mean(0).var() / 70)
    assert float(values.mean()) == pytest.approx(float(above.mean()))
    assert float(((values - values.mean()) ** 2).sum() / 100**2) == pytest.approx(delong, rel=0.04)


def test_a_hundred_votes_of_two_people_are_less_sure_than_those_of_a_hundred() -> None:
    """One of the two agrees with the scores always and the other one half of the time; prompts are all their own."""
    labels, scores = [1.0, 0.0] * 50, []
    for n in range(50):
        scores += [1.0, 0.0] if n < 25 or n % 2 else [0.0, 1.0]

    def width(raters: list[int]) -> float:
        found = ordering(torch.tensor(scores), data(labels=labels, raters=raters))
        assert found is not None and found.mean == pytest.approx(0.74, abs=0.02)
        return found.high - found.low

    assert width([n // 50 for n in range(100)]) > 1.5 * width(list(range(100)))


def test_pairs_of_one_person_are_drawn_together() -> None:
    """Twenty pairs, right but for those of one person who gave six: as many people as pairs are surer."""
    scores: Tensor = torch.tensor([1.0, 0.0] * 14 + [0.0, 1.0] * 6)
    pairs = [(2 * n, 2 * n + 1) for n in range(20)]
    one = ordering(scores, data(pairs=pairs, pair_raters=[*range(14), *[99] * 6]))
    many = ordering(scores, data(pairs=pairs, pair_raters=list(range(20))))
    assert one is not None and many is not None and one.mean == many.mean == pytest.approx(0.7)
    assert one.high - one.low > 1.2 * (many.high - many.low)


def test_a_person_who_voted_in_both_parts_is_one_and_prompts_of_two_parts_are_two() -> None:
    """Ten pairs, right, of two people in one part, and ten, wrong, of the same two in another."""
    right, wrong = (torch.tensor(row * 10) for row in ([1.0, 0.0], [0.0, 1.0]))
    part = data(pairs=[(2 * n, 2 * n + 1) for n in range(10)], pair_raters=[n % 2 for n in range(10)])
    found = of_parts([(right, part), (wrong, part)])
    # Either person was right ten times and wrong ten times: drawn as persons, the mean is one half each time. The
    # interval is then that over twenty prompts, of which half are right: 0.5 +- 1.96 * sqrt(0.25 / 20) = 0.28 to 0.72.
    assert found is not None and (found.mean, found.n) == (0.5, 20)
    assert (found.low, found.high) == (pytest.approx(0.28, abs=0.04), pytest.approx(0.72, abs=0.04))
