"""What all seeds show together, on results worked out by hand."""

import pytest

from infra.lab.summary import over_seeds, reasons, sentence, summarise, verdict
from tests.unit.infra.lab.made import failed, promoted, rate, refused


def test_the_final_rate_is_the_mean_of_each_seeds_last_version() -> None:
    later = promoted(0, 2, parent="v1", serving_vs_base=rate(0.8, 0.8, 0.8), serving_by_prompt=(0.8, 0.8))
    found = summarise([promoted(0, 1), later, refused(1, 1), refused(1, 2)])
    assert found.final is not None
    # Seed 0 ends at 0.8 on every prompt; in seed 1 the base serves, which is one half. Both seeds drawn twice are the
    # ends, each with a chance of a quarter.
    assert (found.final.value, found.final.n) == (pytest.approx(0.65), 2)
    assert (found.final.low, found.final.high) == (pytest.approx(0.5), pytest.approx(0.8))


def test_a_single_seed_has_an_interval_over_its_prompts() -> None:
    found = summarise([promoted(0, 1)]).final
    # 0.6 on one prompt and 0.8 on the other: the same one drawn twice has a chance of a quarter.
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(0.7), pytest.approx(0.6), pytest.approx(0.8))


def test_seeds_and_prompts_are_both_drawn_again() -> None:
    # 0.2 and 0.4 on the first prompt, 0.6 and 0.8 on the second. The extremes need one seed and one prompt drawn twice:
    # a chance of one in sixteen each, more than one in forty.
    rows = [promoted(s, 1, serving_by_prompt=(0.2 + 0.2 * s, 0.6 + 0.2 * s)) for s in range(2)]
    found = over_seeds(rows)
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.8))


def test_where_the_base_serves_everywhere_the_rate_is_one_half() -> None:
    found = over_seeds([refused(0, 1), refused(1, 1)])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_version_that_serves_on_after_a_refusal_counts_as_what_it_is_worth() -> None:
    still = refused(0, 2, parent="v1", serving="v1", serving_vs_base=rate(0.7, 0.6, 0.8), serving_by_prompt=(0.6, 0.8))
    assert [row.serving.value for row in summarise([promoted(0, 1), still]).rows] == pytest.approx([0.7, 0.7])


def test_cycles_are_counted_by_how_they_ended() -> None:
    found = summarise([promoted(0, 1), refused(1, 1), failed(2, 1), promoted(0, 2)])
    assert [(r.cycle, r.seeds, r.promoted, r.refused, r.failed) for r in found.rows] == [
        (1, 3, 1, 1, 1),
        (2, 1, 1, 0, 0),
    ]
    assert (found.promoted, found.refused, found.failed, found.seeds, found.cycles) == (2, 1, 1, 3, 4)


def test_the_mean_kl_leaves_out_cycles_that_made_nothing() -> None:
    (row,) = summarise([promoted(0, 1, kl=2.0), promoted(1, 1, kl=3.0), failed(2, 1)]).rows
    assert row.kl == 2.5


def test_worse_versions_are_counted_by_what_their_interval_says() -> None:
    worse = promoted(0, 1, regression="yes", vs_parent=rate(0.4, 0.3, 0.49))
    perhaps = promoted(1, 1, regression="unclear", vs_parent=rate(0.48, 0.4, 0.56))
    found = summarise([worse, perhaps, promoted(2, 1)])
    assert (found.worse, found.maybe_worse) == (1, 1)
    assert verdict(found) == ("harmed", "1 version was promoted that made it worse.")


def test_a_good_version_that_was_refused_is_counted_too() -> None:
    bad = refused(1, 1, vs_parent=rate(0.4, 0.3, 0.49))
    unclear = refused(2, 1, vs_parent=rate(0.52, 0.47, 0.57))
    assert summarise([refused(0, 1), bad, unclear]).refused_though_better == 1


def test_promoted_versions_beyond_the_kl_limit_are_counted() -> None:
    found = summarise([promoted(0, 1, kl=8.0), promoted(1, 1, kl=7.0), refused(2, 1, kl=9.0)])
    assert (found.over_budget, found.highest_kl) == (1, 8.0)


def test_refusals_name_the_gates_that_did_not_hold() -> None:
    assert reasons(refused(0, 1)) == ("gate kl",)
    assert reasons(failed(0, 1)) == ("failed: there are 8 labels in all and 20 are needed",)
    assert reasons(promoted(0, 1)) == ()
    assert summarise([refused(0, 1), refused(1, 1), failed(2, 1)]).refusals[0] == ("gate kl", 2)


@pytest.mark.parametrize(
    ("final", "kind"),
    [((0.6, 0.8), "helped"), ((0.45, 0.65), "inconclusive"), ((0.3, 0.49), "harmed")],
)
def test_the_headline_follows_the_interval(final: tuple[float, float], kind: str) -> None:
    assert verdict(summarise([promoted(0, 1, serving_by_prompt=final)]))[0] == kind


def test_where_nothing_was_promoted_or_finished_it_says_so() -> None:
    assert verdict(summarise([refused(0, 1)]))[0] == verdict(summarise([]))[0] == "nothing_promoted"
    assert sentence(summarise([])) == "No cycle is finished."


def test_the_sentence_tells_of_what_went_wrong() -> None:
    said = sentence(summarise([promoted(0, 1, regression="yes"), refused(1, 1)]))
    assert "1 promoted a version, 1 were refused by their gates and 0 failed" in said
    assert "1 were worse than what they replaced" in said and "1 refused ones were better" in said
