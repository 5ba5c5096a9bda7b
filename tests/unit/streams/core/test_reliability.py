"""Dawid-Skene: by hand where the truth is known, against a plain loop, and against people whose accuracy is known."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.reliability import PRIOR, Opinion, reliabilities, unknown, weight_of


def test_on_gold_the_estimate_is_the_prior_and_the_count() -> None:
    # Class 0: 5 of 5 right, with the prior (8 + 5) / 15; class 1: 4 of 5, (8 + 4) / 15; their mean is 25/30.
    truths = {f"g{n}": int(n >= 5) for n in range(10)}
    said = [Opinion("ann", item, truth if item != "g9" else 0) for item, truth in truths.items()]
    (ann,) = reliabilities(said, truths=truths).values()
    assert ann.mean == pytest.approx(25 / 30)
    assert ann.items == 10


def test_the_interval_is_that_of_two_beta_distributions() -> None:
    # The prior alone: each class Beta(8, 2), variance 0.16 / 11; of the mean of two 0.16 / 22. The logit's deviation is
    # that root over 0.16, about logit(0.8) = ln 4.
    spread = 1.959964 * math.sqrt(0.16 / 22) / 0.16
    low, high = (1 / (1 + math.exp(-(math.log(4) + sign * spread))) for sign in (-1, 1))
    assert unknown().mean == PRIOR
    assert (unknown().low, unknown().high) == (pytest.approx(low), pytest.approx(high))


def test_two_judgements_leave_a_rater_near_the_prior() -> None:
    wrong = [Opinion("ann", f"g{n}", 1) for n in range(2)]
    (ann,) = reliabilities(wrong, truths={"g0": 0, "g1": 0}).values()
    assert ann.mean == pytest.approx((8 / 12 + 0.8) / 2)


def test_who_always_says_the_same_is_at_a_half_however_common_that_is() -> None:
    truths = {f"g{n}": int(n % 10 > 0) for n in range(1000)}
    (always,) = reliabilities([Opinion("ann", item, 1) for item in truths], truths=truths).values()
    # Class 1: (8 + 900) / 910, class 0: 8 / 110.
    assert always.mean == pytest.approx((908 / 910 + 8 / 110) / 2)
    assert weight_of(always.mean) == pytest.approx((2 * always.mean - 1) / 0.6)
    assert weight_of(0.5) == weight_of(0.2) == 0


def test_an_unknown_rater_weighs_one_and_a_perfect_one_five_thirds() -> None:
    assert (weight_of(PRIOR), weight_of(1.0)) == (pytest.approx(1.0), pytest.approx(5 / 3))


def test_items_that_one_rater_judged_say_nothing_about_them() -> None:
    alone = [Opinion("ann", f"i{n}", 1) for n in range(50)]
    shared = [Opinion(rater, "x", 1) for rater in ("bob", "cem")]
    assert reliabilities(alone) == {}
    assert reliabilities([*alone, *shared]) == reliabilities(shared)


def test_one_against_two_is_the_less_reliable_one() -> None:
    said = [Opinion(r, f"i{n}", n % 2 if r != "odd" else 1 - n % 2) for n in range(20) for r in ("ann", "bob", "odd")]
    found = reliabilities(said)
    assert found["ann"] == found["bob"]
    assert found["odd"].mean < 0.5 < 0.85 < found["ann"].mean


def test_ties_are_a_class_of_their_own_and_take_nothing_from_a_rater_who_decides() -> None:
    """Who calls everything a tie is not reliable where there is a right side; who decides as the others do is."""
    said = [Opinion(r, f"i{n}", n % 2) for n in range(30) for r in ("ann", "bob")]
    said += [Opinion("shy", f"i{n}", 2) for n in range(30)]
    said += [Opinion(r, f"tie{n}", 2) for n in range(10) for r in ("ann", "bob", "shy")]
    found = reliabilities(said, classes=3)
    assert found["shy"].mean < 0.4 and found["ann"].mean > 0.9


def _plainly(said: list[Opinion], raters: int, items: int) -> dict[str, float]:
    """The same by loops over dictionaries, as the paper has it, with the prior's counts added."""
    names, things = [f"r{n}" for n in range(raters)], [f"i{n}" for n in range(items)]
    truth = {i: [0.0, 0.0] for i in things}
    for o in said:
        truth[o.item][o.said] += 1
    truth = {i: [v / sum(vs) for v in vs] for i, vs in truth.items()}
    table: dict[str, list[list[float]]] = {}
    for _ in range(200):
        table = {r: [[8.0, 2.0], [2.0, 8.0]] for r in names}
        for o in said:
            for k in (0, 1):
                table[o.rater][k][o.said] += truth[o.item][k]
        share = [1 + sum(vs[k] for vs in truth.values()) for k in (0, 1)]
        renewed = {}
        for i in things:
            about = [o for o in said if o.item == i]
            rows = [[(table[o.rater][k][o.said], sum(table[o.rater][k])) for o in about] for k in (0, 1)]
            odds = [share[k] * math.prod(n / total for n, total in rows[k]) for k in (0, 1)]
            renewed[i] = [v / sum(odds) for v in odds]
        moved = max(abs(renewed[i][k] - truth[i][k]) for i in things for k in (0, 1))
        truth = renewed
        if moved < 1e-6:
            break
    return {r: sum(table[r][k][k] / sum(table[r][k]) for k in (0, 1)) / 2 for r in names}


def test_it_comes_to_what_a_plain_loop_comes_to() -> None:
    rng = random.Random(4)
    said = [
        Opinion(f"r{r}", f"i{i}", i % 2 if rng.random() < 0.6 + 0.08 * r else 1 - i % 2)
        for i in range(12)
        for r in range(5)
    ]
    plain = _plainly(said, 5, 12)
    assert {r: e.mean for r, e in reliabilities(said).items()} == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_known_accuracies_are_recovered_within_the_interval(seed: int) -> None:
    """30 raters between 0.55 and 0.95, five on each of 2,000 items of which 70 % are up: 95 % intervals that take the
    classes as known may miss a little more often than one time in twenty; four in five is far from chance."""
    rng = random.Random(seed)
    accuracy = {f"r{n:02}": 0.55 + 0.4 * n / 29 for n in range(30)}
    said = [
        Opinion(rater, f"i{n}", truth if rng.random() < accuracy[rater] else 1 - truth)
        for n in range(2000)
        for truth in [int(rng.random() < 0.7)]
        for rater in rng.sample(sorted(accuracy), 5)
    ]
    found = reliabilities(said)
    inside = sum(found[r].low <= accuracy[r] <= found[r].high for r in accuracy)
    errors = [abs(found[r].mean - accuracy[r]) for r in accuracy]
    assert inside >= 24
    assert sum(errors) / len(errors) < 0.03


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 2)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_order_of_opinions_is_of_no_effect_and_every_figure_is_a_chance(drawn: list, rng: random.Random) -> None:
    said = list({(r, i): Opinion(f"r{r}", f"i{i}", c) for r, i, c in drawn}.values())
    shuffled = list(said)
    rng.shuffle(shuffled)
    found = reliabilities(said, truths={"i0": 1}, classes=3)
    assert reliabilities(shuffled, truths={"i0": 1}, classes=3) == found
    assert all(0 < e.low < e.mean < e.high < 1 for e in found.values())
