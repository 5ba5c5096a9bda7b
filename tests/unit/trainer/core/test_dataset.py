from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import NotEnoughData
from trainer.core.dataset import PairRow, RatingRow, SplitConfig, all_labels, build, is_held_out, trusted
from trainer.core.weights import WeightRules, cap_weights, weigh

CONFIG = SplitConfig(min_labels=1, judge_only_share=0.0)


def rating(n: int, **changes: object) -> RatingRow:
    row = RatingRow(
        f"r{n}",
        f"p{n}",
        (("user", f"question {n}"),),
        f"answer {n}",
        n % 2 == 0,
        1.0,
        "thumb",
        f"u{n % 20}",
        n,
        f"a{n}",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def pair(n: int, **changes: object) -> PairRow:
    row = PairRow(
        f"c{n}", f"p{n}", (("user", f"question {n}"),), f"good {n}", f"bad {n}", 1.0, "label", f"u{n % 20}", n
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def many(n: int = 400) -> list[RatingRow]:
    return [rating(i) for i in range(n)]


def test_no_prompt_is_trained_on_and_held_out() -> None:
    data = build([], many(), {}, CONFIG)
    trained = {r.prompt_id for r in data.train.ratings}
    held = {r.prompt_id for r in data.held_out.ratings}
    assert trained and held and not trained & held
    assert not set(data.train_prompts) & set(data.held_out_prompts)


def test_the_judge_learns_from_other_people_than_the_reward_model() -> None:
    data = build([], many(), {}, CONFIG)
    assert data.judged_by == "raters"
    assert data.judge.raters() and not data.judge.raters() & (data.train.raters() | data.held_out.raters())


def test_with_few_people_the_judge_learns_from_the_held_out_prompts() -> None:
    data = build([], [rating(i, rater=f"u{i % 3}") for i in range(100)], {}, CONFIG)
    assert data.judged_by == "prompts"
    assert data.judge == data.held_out
    assert not {r.prompt_id for r in data.judge.ratings} & {r.prompt_id for r in data.train.ratings}


def test_what_was_held_out_stays_held_out_when_data_are_added() -> None:
    before, after = build([], many(100), {}, CONFIG), build([], many(400), {}, CONFIG)
    assert {r.id for r in before.held_out.ratings} <= {r.id for r in after.held_out.ratings}


def test_a_pair_of_two_peoples_thumbs_is_dropped_where_one_of_them_judges() -> None:
    data = build([], many(), {}, CONFIG)
    ours, theirs = data.train.ratings[0], data.judge.ratings[0]
    mixed = pair(1000, source="same_prompt", rater=ours.rater, responses=(ours.response, theirs.response))
    again = build([mixed], many(), {}, CONFIG)
    assert again.dropped == {"mixed_raters": 1}
    assert not (again.train.pairs or again.held_out.pairs or again.judge.pairs)


def test_prompts_of_production_are_split_like_those_of_labels() -> None:
    extra = {f"q{i}": (("user", f"asked {i}"),) for i in range(200)}
    data = build([], many(), extra, replace(CONFIG, max_train_prompts=1000, max_held_out_prompts=1000))
    held = {f"asked {i}" for i in range(200) if is_held_out((("user", f"asked {i}"),), 0.25, 0)}
    assert held <= {p[0][1] for p in data.held_out_prompts}
    assert not held & {p[0][1] for p in data.train_prompts}


def test_the_order_of_rows_is_of_no_effect() -> None:
    rows = many()
    assert build([], rows, {}, CONFIG) == build([], rows[::-1], {}, CONFIG)


def test_the_hash_changes_with_one_label() -> None:
    turned = [*many()[:-1], rating(399, label=True)]
    assert build([], many(), {}, CONFIG).content_hash != build([], turned, {}, CONFIG).content_hash


def test_only_the_newest_labels_are_taken() -> None:
    data = build([], many(), {}, replace(CONFIG, max_labels=100))
    assert data.dropped == {"older": 300}
    assert min(r.judged_at for r in (*data.train.ratings, *data.held_out.ratings, *data.judge.ratings)) >= 300


def test_empty_and_identical_answers_are_dropped() -> None:
    bad = [pair(1, chosen=" "), pair(2, rejected=""), pair(3, rejected="good 3"), pair(4, weight=0.0)]
    data = build(bad, [*many(), rating(500, completion="\n")], {}, CONFIG)
    assert data.dropped == {"empty": 3, "identical": 1, "weightless": 1}


def test_a_rater_who_says_both_is_netted_and_a_tie_drops_out() -> None:
    both = [
        pair(1, id="a", weight=1.0),
        pair(1, id="b", chosen="bad 1", rejected="good 1", weight=0.25),
        pair(2, id="c"),
        pair(2, id="d", chosen="bad 2", rejected="good 2"),
    ]
    train, held = all_labels(both, [], holdout_share=0.25, seed=0, rater_cap=1.0)
    rows = (*train.pairs, *held.pairs)
    assert [(r.id, r.weight) for r in rows] == [("a", 0.75)]


def test_raters_who_disagree_are_both_kept() -> None:
    rows = [rating(1, id="x", rater="u1", label=True), rating(1, id="y", rater="u2", label=False)]
    train, held = all_labels([], rows, holdout_share=0.25, seed=0, rater_cap=1.0)
    assert len(train) + len(held) == 2


def test_a_user_of_a_thousand_clicks_weighs_as_one_user() -> None:
    # 40 others of weight 10 and one of 1000: s = 2/41, c = s * 400 / (1 - s) = 800/39 = 20.51.
    totals = {f"u{i}": 10.0 for i in range(40)} | {"clicker": 1000.0}
    assert cap_weights(totals, 0.01) == pytest.approx(800 / 39)
    rows = [rating(i, rater=f"u{i % 40}") for i in range(400)]
    clicks = [rating(1000 + i, rater="clicker") for i in range(1000)]
    capped = weigh([*rows, *clicks], WeightRules(0.01)).ratings
    total = sum(r.weight for r in capped)
    assert sum(r.weight for r in capped if r.rater == "clicker") / total == pytest.approx(2 / 41)


@given(st.dictionaries(st.text(min_size=1), st.floats(0.01, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_no_rater_is_above_the_share_after_the_cap(totals: dict[str, float], share: float) -> None:
    cap = cap_weights(totals, share)
    kept = [min(weight, cap) for weight in totals.values()]
    assert max(kept) <= max(share, 2 / len(totals)) * sum(kept) * (1 + 1e-9)


def test_too_few_labels_are_refused_with_what_there_is_and_what_is_needed() -> None:
    with pytest.raises(NotEnoughData, match=r"there are 3 labels in all and 20 are needed \(left out: 1 empty\)"):
        build([pair(9, chosen="")], many(3), {}, SplitConfig())


def test_no_labels_at_all_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="there are 0 labels"):
        build([], [], {}, SplitConfig())


def test_a_labels_weight_is_multiplied_by_its_raters() -> None:
    trust = {"u1": 0.5, "labeler:u1": 2.0}
    pairs, ratings = trusted([pair(1, weight=0.5)], [rating(1), rating(2), rating(3, rater=None)], trust)
    assert [p.weight for p in pairs] == [1.0]
    assert [r.weight for r in ratings] == [0.5, 1.0, 1.0]


def test_a_pair_of_two_peoples_thumbs_weighs_by_both_and_by_one_person_once() -> None:
    trust = {"u1": 0.5, "u2": 0.25}
    rated = [rating(1), rating(2), rating(21)]  # of u1, u2 and u1 again
    mixed = pair(5, source="same_prompt", rater="u1", responses=("a1", "a2"))
    own = pair(6, source="same_prompt", rater="u1", responses=("a1", "a21"))
    pairs, _ = trusted([mixed, own], rated, trust)
    assert [p.weight for p in pairs] == [0.125, 0.5]


def test_a_rater_who_weighs_nothing_is_left_out_and_counted() -> None:
    _, weighed = trusted([], [*many(), rating(500, rater="bot")], {"bot": 0.0})
    data = build([], weighed, {}, CONFIG)
    assert data.dropped == {"weightless": 1}
