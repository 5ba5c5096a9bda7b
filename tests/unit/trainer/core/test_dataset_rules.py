"""What holds for a data set whatever the labels are: no leak, no ruler, nothing unreadable."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import NotEnoughData
from tests.unit.trainer.core.test_dataset import CONFIG, many, pair, rating
from trainer.core.dataset import Dataset, PairRow, RatingRow, Row, build, is_held_out
from trainer.core.evidence import evidence
from trainer.core.labels import people_behind, prompt_key, text_key, texts_of
from trainer.core.reward import RewardConfig, RewardData, fit_ensemble
from trainer.core.weights import SourceWeights, WeightRules, shares, weigh

SEALING = replace(CONFIG, judge_only_share=0.2)

words = st.sampled_from(["Hello!", "hello", "HELLO ?", "tea?", "Tea", "no", "¿no?", "milk", "Ⅳ", "iv"])
turns = st.lists(st.tuples(st.sampled_from(["user", "system"]), words), min_size=1, max_size=2).map(tuple)
raters = st.one_of(st.none(), st.sampled_from([f"u{i}" for i in range(9)] + ["t1/u1", "t2/u1"]))
weights = st.sampled_from([0.0, 0.1, 1.0, 1000.0, float("inf"), float("nan")])
numbers = st.integers(0, 40)
rows = st.lists(
    st.one_of(
        st.builds(
            RatingRow, numbers.map("r{}".format), numbers.map("p{}".format), turns, words, st.booleans(), weights,
            st.just("thumb"), raters, st.just(0.0), numbers.map("a{}".format),
        ),
        st.builds(
            PairRow, numbers.map("c{}".format), numbers.map("p{}".format), turns, words, words, weights,
            st.sampled_from(["label", "same_prompt", "correction"]), raters, st.just(0.0),
            st.tuples(numbers.map("a{}".format), numbers.map("a{}".format)),
        ),
    ),
    max_size=25,
)  # fmt: skip


def made_of(given_rows: list[Row], config: object = SEALING) -> Dataset:
    """Always enough: some plain labels go with those given."""
    pairs = [r for r in given_rows if isinstance(r, PairRow)]
    ratings = [r for r in given_rows if isinstance(r, RatingRow)]
    return build(pairs, [*many(120), *ratings], {"x": (("user", "TEA"),)}, config)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(rows)
def test_no_prompt_no_person_and_no_answer_for_judging_only_is_on_two_sides(found: list[Row]) -> None:
    data = made_of(found)
    behind = people_behind([*many(120), *(r for r in found if isinstance(r, RatingRow))])
    learned, checked, judged, sealed = (
        [(prompt_key(r.prompt), behind(r), {text_key(t) for t in texts_of(r)}, r.id) for r in part.rows()]
        for part in (data.train, data.held_out, data.judge, data.judge_only)
    )
    assert not {p for p, *_ in learned} & {p for p, *_ in checked}
    assert not {prompt_key(p) for p in data.train_prompts} & {prompt_key(p) for p in data.held_out_prompts}
    assert not {prompt_key(p) for p in data.train_prompts} & {p for p, *_ in checked}

    def named(part: list[tuple[str, frozenset[str], set[str], str]]) -> set[str]:
        return {w if not w.startswith("unknown:") else prompt for prompt, who, *_ in part for w in who}

    assert data.judged_by == "raters" and not named(judged) & named([*learned, *checked])
    answers = {(p, t) for p, _, texts, _ in [*learned, *checked, *judged] for t in texts}
    assert not {(p, t) for p, _, texts, _ in sealed for t in texts} & answers


@settings(max_examples=30, deadline=None)
@given(rows)
def test_a_set_has_finite_weights_of_its_people_within_twice_a_fair_share(found: list[Row]) -> None:
    data = made_of(found)
    behind = people_behind([*many(120), *(r for r in found if isinstance(r, RatingRow))])
    for part in (data.train.pairs, data.train.ratings, data.judge.pairs, data.judge.ratings):
        totals: dict[str, float] = {}
        for row in part:
            assert 0 < row.weight < float("inf")
            for person in behind(row):
                totals[person] = totals.get(person, 0.0) + row.weight
        named = [len(behind(row)) for row in part]
        if part:
            share = max(0.01, 2 * sum(named) / len(part) / len(totals))
            assert max(totals.values()) <= share * sum(r.weight for r in part) * (1 + 1e-6)


def test_prompts_that_differ_in_case_blanks_and_punctuation_are_on_one_side_and_asked_once() -> None:
    variants = [f"Question  {n}?" for n in range(40)] + [f"question {n}" for n in range(40)]
    asked = {f"q{i}": (("user", text),) for i, text in enumerate(variants)}
    data = build([], many(), asked, replace(CONFIG, max_train_prompts=10**6, max_held_out_prompts=10**6))
    everything = [p[0][1] for p in (*data.train_prompts, *data.held_out_prompts)]
    assert len(everything) == 400
    assert is_held_out((("user", "Is it?"),), 0.5, 3) == is_held_out((("user", " is IT"),), 0.5, 3)


def test_labels_for_judging_only_are_a_fifth_for_good_and_in_no_other_set() -> None:
    before, after = made_of([]), build([], many(400), {}, SEALING)
    assert 0.1 < len(after.judge_only) / 400 < 0.3
    ids = {r.id for r in after.judge_only.rows()}
    assert not ids & {r.id for part in (after.train, after.held_out, after.judge) for r in part.rows()}
    assert {r.id for r in before.judge_only.rows()} <= ids
    assert {r.rater for r in after.judge_only.rows()} > {r.rater for r in after.judge.rows()}


def test_a_label_for_judging_only_whose_answer_is_learned_from_elsewhere_is_not_counted() -> None:
    data = build([], many(400), {}, SEALING)
    sealed, open_row = data.judge_only.ratings[0], data.train.ratings[0]
    echo = replace(sealed, id=open_row.id, rater=open_row.rater, completion=f" {sealed.completion.upper()}!")
    again = build([], [*many(400), echo], {}, SEALING)
    assert again.dropped["seen"] == 1
    assert sealed.id not in {r.id for r in again.judge_only.rows()}


def test_evidence_names_the_labels_that_only_judge() -> None:
    data = build([], many(400), {}, SEALING)
    listed = [e for e in evidence(data) if e.set == "judge_only"]
    assert [e.id for e in listed] == [r.id for r in data.judge_only.rows()] and listed


def test_a_source_is_cut_to_its_share_and_at_most_to_a_quarter() -> None:
    # 80 labels and 20 corrections, a cap of 0.6: c = 0.6 (c + 20), so the labels weigh 30 of 50.
    mixed = [pair(n, source="label" if n < 80 else "correction", rater=f"u{n}") for n in range(100)]
    free = WeightRules(rater_cap=1.0, source_cap=0.7)
    assert shares(weigh(mixed, replace(free, source_cap=0.6)).pairs) == pytest.approx({"correction": 0.4, "label": 0.6})
    # With 2 corrections c = 3, a cut to 3/98: more than to a quarter, so the labels stay at 98/4 = 24.5 of 26.5.
    few = [pair(n, source="label" if n < 98 else "correction", rater=f"u{n}") for n in range(100)]
    assert shares(weigh(few, replace(free, source_cap=0.6)).pairs)["label"] == pytest.approx(24.5 / 26.5)


def test_the_data_sets_figures_tell_the_shares_before_and_after() -> None:
    labelled = [pair(n, rater=f"l{n}", source="label" if n % 5 else "correction") for n in range(400)]
    figures = build(labelled, many(), {}, CONFIG).figures
    assert figures["data_pairs_label_share_raw"] > 0.75
    assert figures["data_pairs_label_share"] == pytest.approx(0.7)
    assert figures["data_thumbs_thumb_share"] == 1.0
    assert figures["data_thumbs_largest_person"] <= 0.2


def test_a_sources_weight_multiplies_its_rows_and_zero_leaves_it_out() -> None:
    half = replace(CONFIG, source_weights=SourceWeights(thumb=0.5))
    assert {r.weight for r in build([], [rating(i, rater=f"u{i}") for i in range(99)], {}, half).train.ratings} == {0.5}
    without = build([pair(n) for n in range(99)], many(), {}, replace(CONFIG, source_weights=SourceWeights(label=0)))
    assert without.dropped == {"source_off": 99} and not without.train.pairs


def test_a_clicker_is_bound_by_the_pairs_that_others_thumbs_made_of_the_clicks() -> None:
    # The clicker's 300 thumbs down made 300 pairs in 40 others' names; 200 labels are by 40 labelers.
    # 1.6 people stand behind a pair on average, 81 people in all, so each has at most 2 * 1.6 / 81 of the weight.
    thumbs = [rating(n, rater="clicker", label=False) for n in range(300)]
    made = [pair(n, id=f"m{n}", source="same_prompt", rater=f"u{n % 40}", responses=(f"a{n}",)) for n in range(300)]
    others = [pair(1000 + n, rater=f"l{n % 40}") for n in range(200)]
    kept = weigh([*thumbs, *made, *others], WeightRules(0.01)).pairs
    his = sum(r.weight for r in kept if r.source == "same_prompt") / sum(r.weight for r in kept)
    assert his == pytest.approx(3.2 / 81)


def test_pairs_that_all_rest_on_one_person_are_left_out_and_counted() -> None:
    made = [pair(n, source="same_prompt", rater=f"u{n % 20}", responses=(f"b{n}",)) for n in range(100)]
    clicks = [rating(2000 + n, rater="clicker", label=False, response=f"b{n}") for n in range(100)]
    judging = replace(CONFIG, judge_share=0.01)
    data = build(made, [*many(), *clicks], {}, replace(judging, min_raters=10**6))
    assert not data.train.pairs and data.dropped["one_person"] == 100


def test_a_thousand_votes_of_one_user_move_the_score_by_no_more_than_their_bounded_share() -> None:
    # Forty people: answers with x = 1 are good. A clicker says the opposite a thousand times. Weighed, he is 2/41 of
    # all, so of the ratings of x = 1 a share of 1 - 2/41 = 0.9512 is up; the calibrated score is its logit, 2.970.
    # Unweighed he is 5/7, a share of 2/7 is up and the logit -0.916: he would have turned the reward round.
    honest = [rating(n, rater=f"u{n % 40}", label=n % 2 == 0) for n in range(400)]
    clicks = [rating(1000 + n, rater="clicker", label=n % 2 == 1) for n in range(1000)]
    rows_of = weigh([*honest, *clicks], WeightRules(0.01)).ratings
    assert _score(rows_of, [r.weight for r in rows_of]) == pytest.approx(2.970, abs=0.1)
    assert _score(rows_of, [1.0 for _ in rows_of]) == pytest.approx(-0.916, abs=0.1)


def _score(ratings: tuple[RatingRow, ...], weights_of: list[float]) -> float:
    """What an ensemble fitted on x = 1 for even numbers and -1 for odd ones says of x = 1."""
    even = torch.tensor([int(r.id[1:]) % 2 == 0 for r in ratings])
    data = RewardData(
        features_NF=torch.where(even, 1.0, -1.0)[:, None],
        lengths_N=torch.ones(len(ratings), dtype=torch.long),
        groups_N=torch.arange(len(ratings)),
        rated_R=torch.arange(len(ratings)),
        labels_R=torch.tensor([float(r.label) for r in ratings]),
        rating_weights_R=torch.tensor(weights_of),
    )
    config = RewardConfig(heads=8, folds=2, max_steps=15, l2_grid=(1e-6,))
    ensemble, _ = fit_ensemble(data, config, torch.Generator().manual_seed(0))
    return float(ensemble.score(torch.tensor([[1.0]])).mean())


BAD = {
    "unreadable": [{"completion": "a\udc80b"}, {"completion": "a\0b"}, {"prompt": (("user", "\ud800"),)}],
    "not_finite": [{"weight": float("inf")}, {"weight": float("nan")}],
    "too_long": [{"completion": "word " * 50_000}],
    "empty": [{"prompt": ()}],
    "weightless": [{"weight": -1.0}],
}


@pytest.mark.parametrize("reason", BAD)
def test_what_can_not_be_used_is_dropped_and_counted(reason: str) -> None:
    bad = [rating(900 + n, **changes) for n, changes in enumerate(BAD[reason])]
    data = build([], [*many(), *bad], {"bad": (("user", "\udc80"),)}, CONFIG)
    assert data.dropped == {reason: len(bad)}


def test_thumbs_that_all_point_up_do_not_train_a_reward_model() -> None:
    with pytest.raises(NotEnoughData, match=r"\d\d\d one_sided.*thumbs teach only where there are both ups and downs"):
        build([], [replace(r, label=True) for r in many()], {}, replace(CONFIG, min_labels=20))


def test_with_pairs_beside_them_one_sided_thumbs_are_only_left_out() -> None:
    data = build([pair(n) for n in range(200)], [replace(r, label=True) for r in many()], {}, CONFIG)
    assert not data.train.ratings and not data.judge.ratings and data.train.pairs
    assert data.dropped["one_sided"] > 200


def test_what_one_user_says_alone_is_judged_by_prompts_and_keeps_its_balance() -> None:
    data = build([], [rating(n, rater="only") for n in range(100)], {}, CONFIG)
    assert data.judged_by == "prompts" and data.figures["data_thumbs_largest_person"] == pytest.approx(1.0)


def test_a_row_that_comes_twice_counts_once() -> None:
    data = build([], [*many(), *many()], {}, CONFIG)
    assert data.dropped == {"repeated": 400}
    assert data.content_hash == build([], many(), {}, CONFIG).content_hash
