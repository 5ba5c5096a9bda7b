"""The selector: BALD by hand, honest probabilities, repeatable draws."""

import math
from datetime import UTC, datetime

import pytest

from schemas.consent import Purpose, Purposes, common
from schemas.tables import ResponseRow, ScoreRow
from streams.core.selection import SelectionPlan, bald, comparisons, select
from tests.unit.streams.core.test_pairing import response

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def score(row: ResponseRow, *heads: float) -> ScoreRow:
    return ScoreRow(
        response_id=row.response_id,
        prompt_id=row.prompt_id,
        version=row.version,
        reward_model="v1",
        head_scores=heads,
        scored_at=NOON,
    )


def batch(n: int) -> tuple[list[ScoreRow], dict[str, ResponseRow]]:
    rows = [response(i) for i in range(n)]
    return [score(row, 0.0, float(i) * (-1) ** i) for i, row in enumerate(rows)], {r.response_id: r for r in rows}


def test_bald_is_the_mutual_information_of_preference_and_head() -> None:
    # p = 3/4 and 1/4: H(1/2) - H(1/4) = ln 2 - (ln 4 - (3/4) ln 3) = 0.693147 - 0.562335
    assert bald([math.log(3), 0.0], [0.0, math.log(3)]) == pytest.approx(0.130812, abs=1e-6)


def test_heads_that_agree_on_a_toss_up_are_not_uncertain() -> None:
    assert bald([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert bald([800.0, 800.0], [-800.0, -800.0]) == 0.0


def test_heads_that_are_each_sure_and_disagree_are_worth_a_whole_bit() -> None:
    assert bald([50.0, -50.0], [-50.0, 50.0]) == pytest.approx(math.log(2))


def test_only_different_texts_of_the_same_prompt_are_compared() -> None:
    a, b, c = response(1), response(2, text="answer 1"), response(3).model_copy(update={"prompt_id": "prompt-2"})
    known = {r.response_id: r for r in (a, b, c)}
    assert comparisons([score(r, 0.0, 1.0) for r in (a, b, c)], known) == []


def test_a_batch_has_its_uncertain_and_its_random_share() -> None:
    scores, responses = batch(8)  # 28 comparisons
    tasks = select(scores, responses, known=(), plan=SelectionPlan(12, 0.25, seed=1))
    assert [t.reason for t in tasks] == ["uncertain"] * 9 + ["random"] * 3
    assert {t.selection_probability for t in tasks[:9]} == {1.0}
    assert {t.selection_probability for t in tasks[9:]} == {3 / 19}
    assert min(t.uncertainty for t in tasks[:9]) >= max(t.uncertainty for t in tasks[9:])


def test_a_repeat_chooses_the_same_tasks_with_the_same_sides() -> None:
    scores, responses = batch(8)
    plan = SelectionPlan(seed=3)
    assert select(scores, responses, known=(), plan=plan) == select(scores[::-1], responses, known=(), plan=plan)


def test_what_was_queued_before_is_not_asked_again() -> None:
    scores, responses = batch(5)  # 10 comparisons
    plan = SelectionPlan(tasks_per_batch=6)
    first = {t.task_id for t in select(scores, responses, known=(), plan=plan)}
    second = {t.task_id for t in select(scores, responses, known=first, plan=plan)}
    assert (len(first), len(second), first & second) == (6, 4, set())


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (tuple(Purpose), None, tuple(Purpose)),
        (tuple(Purpose), tuple(Purpose)[::-1], tuple(Purpose)),
    ],
)
def test_a_task_is_for_what_both_its_answers_are_for(one: Purposes, other: Purposes, both: Purposes) -> None:
    rows = [response(1, purposes=one), response(2, purposes=other)]
    (task,) = select(
        [score(r, 1.0, 0.0) for r in rows], {r.response_id: r for r in rows}, known=(), plan=SelectionPlan()
    )
    assert task.purposes == both


def test_what_contents_have_in_common_is_what_each_was_agreed_to_for() -> None:
    training, labeling = Purpose
    assert common([]) is None
    assert common([(training, labeling), None, (labeling,)]) == (labeling,)
    assert common([(training,), (labeling,)]) == ()


def test_sides_are_shuffled() -> None:
    scores, responses = batch(20)
    tasks = select(scores, responses, known=(), plan=SelectionPlan(tasks_per_batch=100))
    firsts = sum(t.left.response_id < t.right.response_id for t in tasks if t.left.response_id and t.right.response_id)
    assert 25 < firsts < 75


def test_a_shadow_and_the_answer_that_was_served_come_first_up_to_their_share() -> None:
    rows = [response(0)] + [response(n, shadow_of=response(0).response_id) for n in range(1, 7)]
    scores = [score(row, 0.0, float(n) * (-1) ** n) for n, row in enumerate(rows)]
    known = {r.response_id: r for r in rows}
    tasks = select(scores, known, known=(), plan=SelectionPlan(8, 0.0, shadow_share=0.5))
    served = rows[0].response_id
    linked = [served in (t.left.response_id, t.right.response_id) for t in tasks]
    assert (linked[:4], len(tasks)) == ([True] * 4, 8)
    none = select(scores, known, known=(), plan=SelectionPlan(8, 0.0, shadow_share=0.0))
    assert sorted(t.uncertainty for t in none) == sorted(c.uncertainty for c in comparisons(scores, known))[-8:]


def test_answers_that_may_not_be_shown_or_learned_from_never_become_tasks() -> None:
    for purposes in ((), (Purpose.TRAINING,), (Purpose.LABELING,)):
        rows = [response(1), response(2, purposes=purposes)]
        assert comparisons([score(r, 0.0, 1.0) for r in rows], {r.response_id: r for r in rows}) == []
    rows = [response(1), response(2, purposes=tuple(Purpose))]
    assert len(comparisons([score(r, 0.0, 1.0) for r in rows], {r.response_id: r for r in rows})) == 1


def test_answers_of_two_tenants_are_not_compared() -> None:
    rows = [response(1, tenant="acme"), response(2, tenant="other"), response(3)]
    assert comparisons([score(r, 0.0, 1.0) for r in rows], {r.response_id: r for r in rows}) == []
