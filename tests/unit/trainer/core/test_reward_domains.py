"""Weights of a domain's own: who has them, how far they go from the common ones, and what they change nowhere else."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer.adapters.trees import from_bytes, to_bytes
from trainer.core.domains import alone
from trainer.core.reward import (
    OwnHeads,
    RewardConfig,
    RewardData,
    RewardEnsemble,
    cross_validate,
    fit_ensemble,
    scores_of,
    signal,
)
from trainer.core.reward_data import LabelDomains, OwnLabels
from trainer.core.reward_domains import NEVER, choose_own, fit_own, one_domain_each, prepared
from trainer.core.reward_fit import CrossFitted, Fit, Standardizer
from trainer.core.reward_looks import DomainReward

QUICK = RewardConfig(heads=2, l2_grid=(0.001, 0.01), folds=2, domain_labels=30)
NOBODY = -1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_taste(seed: int, tastes: dict[str, float], pairs: int = 240, *, users: int = 10) -> RewardData:
    """Pairs dealt out to domains in turns; the third of six features decides, in the sense of the domain's taste."""
    x = torch.randn(2 * pairs, 6, generator=generator(seed))
    names = tuple(list(tastes)[n % len(tastes)] for n in range(pairs))
    sense = torch.tensor([tastes[name] for name in names])
    margins = sense * (x[0::2, 2] - x[1::2, 2]) + 0.3 * torch.randn(pairs, generator=generator(seed + 100))
    first = torch.arange(0, 2 * pairs, 2)
    chosen = torch.where(margins > 0, first, first + 1)
    return RewardData(
        features_NF=x,
        lengths_N=torch.randint(5, 30, (2 * pairs,), generator=generator(seed)),
        groups_N=torch.arange(2 * pairs) // 2,
        pairs_P2=torch.stack([chosen, 2 * first + 1 - chosen], 1),
        pair_weights_P=torch.ones(pairs),
        raters_P=torch.arange(pairs) // len(tastes) % users,
        domains=LabelDomains(names, (), torch.full((pairs,), NOBODY)),
    )


def thumbs_of(people: list[int], name: str = "shop") -> RewardData:
    """A thumb on an answer of its own by each of these people."""
    n = len(people)
    return RewardData(
        features_NF=torch.randn(n, 3, generator=generator()),
        lengths_N=torch.full((n,), 9),
        groups_N=torch.arange(n),
        rated_R=torch.arange(n),
        labels_R=(torch.arange(n) % 2).float(),
        rating_weights_R=torch.ones(n),
        raters_R=torch.tensor(people),
        domains=LabelDomains((), (name,) * n, torch.zeros(0, dtype=torch.long)),
    )


def test_two_domains_of_opposite_tastes_are_each_rated_by_their_own() -> None:
    train, held = by_taste(0, {"a": 1.0, "b": -1.0}), by_taste(1, {"a": 1.0, "b": -1.0})
    _, common = fit_ensemble(replace(train, domains=None), QUICK, generator(), held_out=held)
    ensemble, report = fit_ensemble(train, QUICK, generator(), held_out=held)
    assert common.pair_accuracy is not None and 0.35 < common.pair_accuracy.mean < 0.65
    assert report.pair_accuracy is not None and report.pair_accuracy.mean > 0.85
    assert report.domains_gain is not None and report.domains_gain.difference.low > 0.2
    assert [(d.crowd.name, d.crowd.labels, d.crowd.users, d.crowd.own) for d in report.domains] == [
        ("a", 120, 10, True), ("b", 120, 10, True),
    ]  # fmt: skip
    liked, disliked = torch.zeros(1, 6), torch.zeros(1, 6)
    liked[0, 2], disliked[0, 2] = 1.0, -1.0
    for name, sense in (("a", 1.0), ("b", -1.0)):
        difference = ensemble.score_in(liked, [name]) - ensemble.score_in(disliked, [name])
        assert float(sense * difference.mean()) > 1.0


def test_where_tastes_are_alike_nobody_has_weights_of_their_own() -> None:
    data = by_taste(0, {"a": 1.0, "b": 1.0})
    ensemble, report = fit_ensemble(data, QUICK, generator())
    assert ensemble.own is None and report.own_l2 == NEVER
    assert [d.crowd.own for d in report.domains] == [False, False]


def test_the_common_weights_are_those_of_a_model_without_domains() -> None:
    data = by_taste(0, {"a": 1.0, "b": -1.0})
    plain, _ = fit_ensemble(replace(data, domains=None), QUICK, generator())
    ensemble, _ = fit_ensemble(data, QUICK, generator())
    # The temperature differs, for it is fitted on scores by own weights, and is divided out of the weights.
    torch.testing.assert_close(plain.weight_FH * plain.temperature, ensemble.weight_FH * ensemble.temperature)


def one_feature(labels: int, others: int) -> tuple[RewardData, Fit]:
    """`labels` pairs of domain a and `others` of none, all for 1 over -1, and a common model that says nothing."""
    pairs = labels + others
    data = RewardData(
        features_NF=torch.tensor([[1.0], [-1.0]]).repeat(pairs, 1),
        lengths_N=torch.full((2 * pairs,), 9),
        groups_N=torch.arange(2 * pairs) // 2,
        pairs_P2=torch.arange(2 * pairs).reshape(-1, 2),
        pair_weights_P=torch.ones(pairs),
    )
    domains_N = torch.where(torch.arange(2 * pairs) < 2 * labels, 0, -1)
    data = replace(data, own=OwnLabels(("a",), domains_N, torch.ones(pairs), torch.zeros(0)))
    return data, Fit(Standardizer(torch.zeros(1), torch.ones(1)), torch.zeros(1, 1), torch.zeros(1), None)


@pytest.mark.parametrize(
    ("labels", "others", "expected"),
    # The slope of 0.5 l2 v^2 - w (0.95 log s(2v) + 0.05 log s(-2v)) is 0 where l2 v = 2 w (0.95 - s(2v)), w the
    # domain's share of the labels. With l2 = 0.8 / (3 log 3): v = log(3) / 2 at w = 1/3, where s(2v) = 3/4.
    [(4, 8, log(3) / 2), (1, 11, 0.231045), (1, 119, 0.029873)],
)
def test_a_domain_goes_as_far_from_the_common_weights_as_its_labels_are_many(
    labels: int, others: int, expected: float
) -> None:
    data, whole = one_feature(labels, others)
    config = RewardConfig(smoothing=0.05, remove_length=False, rater_spread=0.0)
    own = fit_own(data, config, whole, torch.tensor([0.8 / (3 * log(3))]), torch.ones(12 * 10, 1))
    assert own is not None
    assert float(own.weight_DFH) == pytest.approx(expected, abs=1e-4)
    assert float(own.bias_DH) == 0.0  # pairs say nothing of the level


def test_the_domain_that_starts_at_common_weights_keeps_the_sum() -> None:
    """The common weights are the middle of the prior, and not zero: with w = log(3) / 2 given and the same labels the
    slope at v = 0 is 2 w (0.95 - 3/4), so v > 0; without any labels v = 0 whatever w is."""
    data, whole = one_feature(4, 8)
    given = replace(whole, weight_FH=torch.tensor([[log(3) / 2]]))
    config = RewardConfig(remove_length=False, rater_spread=0.0)
    own = fit_own(data, config, given, torch.tensor([1e6]), torch.ones(12, 1))
    assert own is not None and float(own.weight_DFH.abs()) < 1e-5
    empty = replace(data, own=OwnLabels(("a",), torch.full((24,), -1), torch.zeros(12), torch.zeros(0)))
    own = fit_own(empty, config, given, torch.tensor([0.01]), torch.ones(12, 1))
    assert own is not None and float(own.weight_DFH) == 0.0


@pytest.mark.parametrize(
    ("people", "counted", "users", "own"),
    [
        ([n % 8 for n in range(40)], 40.0, 8, True),
        ([n % 7 for n in range(40)], 40.0, 7, False),  # too few people
        ([n % 8 for n in range(24)], 24.0, 8, False),  # too few labels
        ([NOBODY] * 40, 40.0, 1, False),  # nobody knows whether they are one person
        # Seven thumbs of seven people, and 33 of one who may hold 2/8 of what is left: c = (7 + c) / 4, c = 7/3.
        ([*range(7), *[7] * 33], 7 + 7 / 3, 8, False),
    ],
)
def test_a_domain_needs_labels_and_people(people: list[int], counted: float, users: int, own: bool) -> None:
    _, _, (crowd,) = prepared(thumbs_of(people), QUICK)
    assert (crowd.labels, crowd.users, crowd.own) == (len(people), users, own)
    assert crowd.counted == pytest.approx(counted)


def test_the_second_person_behind_a_pair_is_cut_as_well() -> None:
    """Twelve pairs by twelve people, all with user 99's thumb on the other answer: nothing is left of them."""
    data = by_taste(0, {"a": 1.0}, 12, users=12)
    names = ("a",) * 12
    apart = prepared(data, QUICK)[2][0]
    together = prepared(replace(data, domains=LabelDomains(names, (), torch.full((12,), 99))), QUICK)[2][0]
    assert (apart.users, apart.counted) == (12, 12.0)
    assert together.users == 13 and together.counted < 4.0


def test_one_user_who_makes_a_domain_moves_no_reward() -> None:
    crowd, loud = by_taste(0, {"a": 1.0}, 160), by_taste(3, {"mine": -1.0}, 160, users=1)
    n = len(crowd.features_NF)
    both = RewardData(
        features_NF=torch.cat([crowd.features_NF, loud.features_NF]),
        lengths_N=torch.cat([crowd.lengths_N, loud.lengths_N]),
        groups_N=torch.cat([crowd.groups_N, loud.groups_N + 160]),
        pairs_P2=torch.cat([crowd.pairs_P2, loud.pairs_P2 + n]),
        pair_weights_P=torch.cat([torch.ones(160), torch.full((160,), 0.01)]),  # as the data set's caps leave them
        raters_P=torch.cat([crowd.raters_P, torch.full((160,), 50)]),
        domains=LabelDomains(("a",) * 160 + ("mine",) * 160, (), torch.full((320,), NOBODY)),
    )
    ensemble, report = fit_ensemble(both, QUICK, generator())
    mine = next(d for d in report.domains if d.crowd.name == "mine")
    assert not mine.crowd.own and mine.gain is None
    x = both.features_NF[n:]
    assert torch.equal(ensemble.score_in(x, ["mine"] * len(x)), ensemble.score(x))


def heads(own: OwnHeads | None) -> RewardEnsemble:
    """Two heads x and 3x on one feature."""
    return RewardEnsemble(torch.zeros(1), torch.ones(1), torch.tensor([[1.0, 3.0]]), torch.zeros(2), own=own)


OWN = OwnHeads(("a", "b"), torch.tensor([[[1.0, 1.0]], [[-2.0, -6.0]]]), torch.tensor([[0.0, 0.0], [4.0, 4.0]]))


def test_the_same_seed_fits_the_same_own_weights() -> None:
    data = by_taste(0, {"a": 1.0, "b": -1.0}, 120)
    found = [fit_ensemble(data, QUICK, generator())[0].own for _ in range(2)]
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0].weight_DFH, found[1].weight_DFH) and torch.equal(found[0].bias_DH, found[1].bias_DH)


def test_an_answer_is_rated_by_the_mean_of_the_domains_that_ask() -> None:
    """At x = 2 the common scores are 2 and 6, those of a 4 and 8, of b 2 - 4 + 4 = 2 and 6 - 12 + 4 = -2."""
    asked = [alone("a"), alone("b"), (("a", 0.5), ("b", 0.5)), (("a", 0.5),), alone("unknown"), ()]
    expected = [[4.0, 8.0], [2.0, -2.0], [3.0, 3.0], [3.0, 7.0], [2.0, 6.0], [2.0, 6.0]]
    x = torch.full((6, 1), 2.0)
    torch.testing.assert_close(heads(OWN).score(x, asked), torch.tensor(expected))
    torch.testing.assert_close(heads(OWN).score(x), torch.tensor([[2.0, 6.0]] * 6))
    torch.testing.assert_close(heads(None).score(x, asked), torch.tensor([[2.0, 6.0]] * 6))


def test_rewards_have_a_center_for_each_domain_and_one_scale() -> None:
    """Without a discount the common reward is 2x, a's 3x, b's 4 - 2x. On x = 1 and 3 their means are 4, 6 and 0: the
    prompt of a's answer 1 is 3 - 6 = -3 and that of b's answer 3 is -2 - 0 = -2; deviation of these 0.7071."""
    config = RewardConfig(spread_discount=0.0, clip=9.0)
    reference = torch.tensor([[1.0], [3.0]])
    made = signal(heads(OWN), reference, config, [alone("a"), alone("b")])
    assert made.center == 4.0 and dict(made.centers) == {"a": 2.0, "b": -4.0}
    assert made.scale == pytest.approx(0.5**0.5)
    reward = DomainReward(made, {(7,): alone("a"), (8,): alone("b"), (9,): (("a", 0.5), ("b", 0.5))})
    found = reward.of(torch.full((4, 1), 2.5), [(7,), (8,), (9,), (1,)], [])
    # 7.5 - 6, -1 - 0, 3.25 - 3, 5 - 4, all divided by the scale.
    torch.testing.assert_close(found, torch.tensor([1.5, -1.0, 0.25, 1.0]) / 0.5**0.5)


def test_a_cycle_that_is_resumed_goes_on_with_the_same_rewards() -> None:
    made = signal(heads(OWN), torch.tensor([[1.0], [3.0]]), RewardConfig(), [alone("a"), alone("b")])
    reward = DomainReward(made, {(7, 8): alone("a"), (9,): (("a", 0.5), ("b", 0.5))})
    again = from_bytes(to_bytes(reward))
    x, prompts = torch.tensor([[0.5], [2.0], [4.0]]), [(7, 8), (9,), (1,)]
    assert torch.equal(again.of(x, prompts, []), reward.of(x, prompts, []))


def test_own_weights_are_there_again_when_loaded_and_a_file_without_them_has_none(tmp_path: Path) -> None:
    file = tmp_path / "reward.safetensors"
    heads(OWN).save(file)
    loaded = RewardEnsemble.load(file)
    x = torch.tensor([[2.0], [0.5]])
    assert loaded.own is not None and loaded.own.names == ("a", "b")
    assert torch.equal(loaded.score_in(x, ["b", "a"]), heads(OWN).score_in(x, ["b", "a"]))
    heads(None).save(file)
    assert RewardEnsemble.load(file).own is None and b"domains" not in file.read_bytes()


def shared_answer() -> RewardData:
    """Answer 1 lost in a to 0, and won in b over 2; 0 is thumbed in none."""
    return RewardData(
        features_NF=torch.tensor([[0.0], [1.0], [2.0]]),
        lengths_N=torch.tensor([3, 4, 5]),
        groups_N=torch.zeros(3, dtype=torch.long),
        pairs_P2=torch.tensor([[0, 1], [1, 2]]),
        pair_weights_P=torch.ones(2),
        rated_R=torch.tensor([0]),
        labels_R=torch.ones(1),
        rating_weights_R=torch.ones(1),
        domains=LabelDomains(("a", "b"), ("",), torch.full((2,), NOBODY)),
    )


def test_an_answer_that_two_domains_speak_of_is_there_for_each() -> None:
    data, rows_M, names_M = one_domain_each(shared_answer())
    assert rows_M.tolist() == [0, 1, 2, 1, 0] and names_M == ("a", "a", "b", "b", "")
    assert data.pairs_P2.tolist() == [[0, 1], [3, 2]] and data.rated_R.tolist() == [4]
    assert data.features_NF[:, 0].tolist() == [0.0, 1.0, 2.0, 1.0, 0.0]
    scores_N, _ = scores_of(heads(OWN), shared_answer())
    # Means of the heads: a 3x, b 4 - 2x, common 2x.
    assert scores_N.tolist() == [0.0, 3.0, 0.0, 2.0, 0.0]


def test_a_domain_that_is_only_held_out_has_the_common_weights() -> None:
    train = by_taste(0, {"a": 1.0, "b": -1.0})
    held = by_taste(1, {"new": 1.0}, 60)
    ensemble, report = fit_ensemble(train, QUICK, generator(), held_out=held)
    assert [d.crowd.name for d in report.domains] == ["a", "b"]
    assert torch.equal(scores_of(ensemble, held)[0], ensemble.score(held.features_NF).mean(1))


def test_the_folds_of_a_trained_trunk_go_with_an_answer_of_two_domains() -> None:
    """Each fold's view shows nothing, so out of fold nobody is right; the answers' own features tell everything."""
    data = by_taste(0, {"a": 1.0, "b": -1.0})
    names = data.domains.names_P if data.domains else ()
    both = replace(
        data,
        pairs_P2=torch.cat([data.pairs_P2, data.pairs_P2[:1]]),
        pair_weights_P=torch.ones(241),
        raters_P=torch.cat([data.raters_P, data.raters_P[:1]]),
        domains=LabelDomains((*names, "b"), (), torch.full((241,), NOBODY)),
    )
    blind = torch.randn(480, 6, generator=generator(9))
    cross = CrossFitted(data.groups_N % 2, (blind, blind))
    _, report = fit_ensemble(both, QUICK, generator(), cross=cross)
    assert report.pair_accuracy is not None and report.pair_accuracy.n == 241 and report.pair_accuracy.mean < 0.65


def test_the_strength_is_chosen_anew_in_each_training_part() -> None:
    data = by_taste(0, {"a": 1.0, "b": -1.0})
    found = cross_validate(data, QUICK, generator(5))
    plain = cross_validate(replace(data, domains=None), QUICK, generator(5))
    assert found is not None and found.accuracy.mean > 0.85
    assert plain is not None and plain.accuracy.mean < 0.65


def test_without_domains_no_strength_is_chosen() -> None:
    data = replace(by_taste(0, {"a": 1.0}), domains=None)
    folds: Tensor = data.groups_N % 2
    assert choose_own(data, QUICK, 0.01, folds) == NEVER
