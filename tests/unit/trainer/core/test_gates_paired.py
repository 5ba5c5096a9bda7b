"""New version against parent on the same cases: by hand, and by simulation of versions that are and are not worse."""

import random
from collections.abc import Callable

import pytest

from trainer.core.gates import GateThresholds, Paired
from trainer.core.gates.paired import by_chance, rise
from trainer.core.gates.verdicts import probes
from trainer.core.probes import wording

THRESHOLDS = GateThresholds()
PLAIN = (
    "We ship every parcel within two days.", "The jacket comes in red, blue and green.", "Our shop opens at nine.",
    "Please send us your order number.", "It fits most small bags.", "You can pay by card or by invoice.",
)  # fmt: skip


def test_a_rise_is_the_mean_difference_case_by_case() -> None:
    found = rise([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], seed=0)
    assert found.mean == 0.25 and found.n == 4
    assert found.low == 0.0 and found.low <= found.mean <= found.high


def test_few_differing_cases_have_the_exact_sign_test() -> None:
    assert rise([1.0] * 5 + [0.0] * 5, [0.0] * 10, seed=0).p == 1 / 32  # all five rose: one of 2^5 signs
    assert rise([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], seed=0).p == 5 / 16  # three of four: 4 + 1 of 16
    assert rise([0.5] * 8, [0.5] * 8, seed=0).p == 1.0


def test_what_was_never_seen_may_still_be_true_of_three_in_n() -> None:
    none = rise([0.0] * 50, [0.0] * 50, seed=0)
    assert (none.low, none.high) == (0.0, 0.0) and none.ceiling == pytest.approx(3 / 50)


def test_the_rise_that_would_be_noticed_shrinks_with_the_root_of_the_cases() -> None:
    # One-sided 5 %, power 0.8: (1.645 + 0.842) * 0.5 / sqrt(100) where half of the cases differ by one.
    hundred = rise([1.0, 0.0] * 50, [0.0] * 100, seed=0)
    assert hundred.seen == pytest.approx(2.4865 * 0.05, abs=1e-3)


def test_holm_compares_the_smallest_with_a_share_of_the_error_and_stops_at_the_first_that_may_be_chance() -> None:
    assert by_chance([0.01, 0.04, 0.03], 0.05) == [False, True, True]  # 0.01 <= 0.05/3; 0.03 > 0.05/2, so 0.04 is too
    assert by_chance([0.01, 0.04, 0.02], 0.05) == [False, False, False]
    assert by_chance([], 0.05) == []


def gates(texts: tuple[str, ...], parent: tuple[str, ...], seed: int, base: tuple[str, ...] = ()) -> list[str]:
    """The probe gates that fail for these answers."""

    def paired(name: str, measure: Callable[[str], float]) -> Paired:
        return Paired(name, *(tuple(map(measure, side)) for side in (texts, parent, base)))

    found = [
        paired("repetition", wording.repetition),
        paired("flattery", wording.flattery),
        paired("questions", lambda text: wording.question("When?", text)),
        paired("format", wording.formatted),
    ]
    return [g.name for g in probes(found, THRESHOLDS, seed=seed) if not g.passed]


def drawn(rng: random.Random, n: int = 40) -> tuple[str, ...]:
    """Answers of a chatty model: one in four flatters, asks back or shouts."""
    tricks = ("Great question! {}", "{} Does that help?", "**{}**", "{0} {0}")
    return tuple(
        rng.choice(tricks).format(rng.choice(PLAIN)) if rng.random() < 0.25 else rng.choice(PLAIN) for _ in range(n)
    )


def test_an_unchanged_version_passes_all_gates_in_95_of_100_draws() -> None:
    rng = random.Random(1)
    refused = sum(bool(gates(drawn(rng), drawn(rng), seed)) for seed in range(80))
    assert refused <= 4


def test_an_unchanged_version_is_not_refused_by_ten_independent_coins_either() -> None:
    rng = random.Random(2)
    names = ("unsafe", "over_refusal", "red_team", "repetition", "sameness", "flattery", "questions", "format")

    def coin() -> tuple[float, ...]:
        return tuple(float(rng.random() < 0.4) for _ in range(40))

    every = [[Paired(name, coin(), coin(), coin()) for name in names] for _ in range(30)]
    refused = sum(any(not g.passed for g in probes(one, THRESHOLDS, seed=n)) for n, one in enumerate(every))
    assert refused <= 2


@pytest.mark.parametrize(
    ("hack", "gate"),
    [
        ("Great question! {}", "flattery"),
        ("{0} {0}", "repetition"),
        ("{} Would you like to know more?", "questions"),
        ("# Answer\n{}", "format"),
    ],
)
def test_a_hacked_version_is_refused_in_every_draw_by_the_gate_for_it(hack: str, gate: str) -> None:
    rng = random.Random(3)
    for seed in range(15):
        parent = drawn(rng)
        assert gate in gates(tuple(hack.format(text) for text in parent), parent, seed)


def test_small_rises_of_many_versions_add_up_against_the_base() -> None:
    base, parent, new = (tuple([1.0] * n + [0.0] * (100 - n)) for n in (0, 20, 29))
    (alone,) = probes([Paired("flattery", new, parent)], THRESHOLDS, seed=0)
    (anchored,) = probes([Paired("flattery", new, parent, base)], THRESHOLDS, seed=0)
    assert alone.passed and alone.value == pytest.approx(0.09)
    assert not anchored.passed and (anchored.value, anchored.threshold) == (pytest.approx(0.29), 0.2)


def test_a_figure_that_is_not_a_number_fails_its_gate() -> None:
    (gate,) = probes([Paired("sycophancy", (float("nan"), 0.1), (0.1, 0.1))], THRESHOLDS, seed=0)
    assert not gate.passed


def test_versions_with_unlike_numbers_of_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="one figure for each case"):
        Paired("flattery", (1.0,), (1.0, 0.0))
