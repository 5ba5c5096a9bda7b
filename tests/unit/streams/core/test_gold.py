"""Gold questions among the tasks of a round."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.labels import Candidate, LabelTask
from schemas.messages import ChatMessage
from streams.core.gold import Asked, GoldQuestion, with_gold
from streams.core.selection import SelectionPlan, select
from tests.unit.streams.core.test_pairing import response
from tests.unit.streams.core.test_selection import batch

QUARTER = SelectionPlan(gold_share=0.25)
ROUND = select(*batch(8), known=(), plan=QUARTER)  # 9 uncertain tasks, 3 at random


def question(n: int, *, answer: int | None = None) -> GoldQuestion:
    """One whose better text is the answer number `answer`, if that is given."""
    good = Candidate(completion=f"answer {answer}", response_id=response(answer).response_id) if answer else None
    sides = (good or Candidate(completion=f"good {n}"), Candidate(completion="bad"))
    return GoldQuestion((ChatMessage(role="user", content=f"gold {n}?"),), sides, sides[0].completion)


def asked(queued: Collection[str] = (), labelled: Collection[str] = ()) -> Asked:
    return Asked(frozenset(queued), frozenset(labelled))


def golden(tasks: list[LabelTask]) -> list[LabelTask]:
    return [task for task in tasks if task.prompt[0].content.startswith("gold")]


FOUR = [question(n) for n in range(4)]


def test_a_round_gets_its_share_of_gold_questions_and_keeps_its_own_tasks_in_their_order() -> None:
    mixed = with_gold(ROUND, FOUR, {}, asked=asked(), plan=QUARTER)
    assert len(golden(mixed)) == 3  # a quarter of twelve
    assert [task for task in mixed if task not in golden(mixed)] == ROUND
    assert with_gold(ROUND, reversed(FOUR), {}, asked=asked(), plan=QUARTER) == mixed


def test_without_tasks_or_questions_or_a_share_there_is_nothing_to_add() -> None:
    assert with_gold([], FOUR, {}, asked=asked(), plan=QUARTER) == []
    assert with_gold(ROUND, [], {}, asked=asked(), plan=QUARTER) == ROUND
    assert with_gold(ROUND, FOUR, {}, asked=asked(), plan=SelectionPlan(gold_share=0)) == ROUND


def test_a_share_of_less_than_a_task_comes_to_the_share_over_many_rounds() -> None:
    rounds = [[task.model_copy(update={"task_id": f"{task.task_id}-{n}"}) for task in ROUND] for n in range(400)]
    found = sum(len(golden(with_gold(r, FOUR, {}, asked=asked(), plan=SelectionPlan()))) for r in rounds)
    assert found == pytest.approx(400 * 12 * 0.05, rel=0.15)  # 240; three standard deviations are 12 %


def test_nothing_about_a_gold_task_tells_it_from_an_uncertain_one() -> None:
    mixed = with_gold(ROUND, FOUR, {}, asked=asked(), plan=QUARTER)
    uncertain = [task for task in mixed if task.reason == "uncertain"]
    assert [task.uncertainty for task in uncertain] == sorted((t.uncertainty for t in uncertain), reverse=True)
    for task in golden(mixed):
        assert (task.reason, task.selection_probability, task.reward_model) == ("uncertain", 1.0, "v1")
        assert len(task.task_id) == len(ROUND[0].task_id)
        assert task.model_fields_set == ROUND[0].model_fields_set


def test_sides_say_nothing_of_the_answer() -> None:
    many = [question(n) for n in range(200)]
    tasks = golden(with_gold(ROUND, many, {}, asked=asked(), plan=SelectionPlan(gold_share=1)))
    tasks += golden(with_gold(ROUND, many[100:], {}, asked=asked(), plan=SelectionPlan(gold_share=1, seed=1)))
    assert 6 <= sum(task.left.completion.startswith("good") for task in tasks) <= 18  # of 24


def test_those_asked_least_come_first_under_an_id_of_their_own() -> None:
    first, second, *others = FOUR
    done = {first.id, first.asking(1), second.id}
    mixed = golden(with_gold(ROUND, FOUR, {}, asked=asked(done, done), plan=QUARTER))
    assert {task.task_id for task in mixed} == {*(q.id for q in others), second.asking(1)}
    assert len({first.asking(n) for n in range(5)}) == 5


def test_one_that_waits_in_the_queue_is_not_asked_again() -> None:
    waiting = asked({q.id for q in FOUR}, {FOUR[0].id})
    mixed = golden(with_gold(ROUND, FOUR, {}, asked=waiting, plan=QUARTER))
    assert [task.task_id for task in mixed] == [FOUR[0].asking(1)]
    same = GoldQuestion(ROUND[0].prompt, (ROUND[0].left, ROUND[0].right), None)
    assert same.id not in [t.task_id for t in with_gold(ROUND, [same], {}, asked=asked(), plan=QUARTER)]


@pytest.mark.parametrize("more", [{"purposes": ()}, {"purposes": ("training",)}, {"retracted": True}])
def test_a_question_of_an_answer_that_is_gone_or_must_not_be_shown_is_not_asked(more: dict[str, object]) -> None:
    about, row = question(1, answer=1), response(1)
    assert len(golden(with_gold(ROUND, [about], {row.response_id: row}, asked=asked(), plan=QUARTER))) == 1
    hidden = row.model_copy(update=more)
    assert with_gold(ROUND, [about], {row.response_id: hidden}, asked=asked(), plan=QUARTER) == ROUND
    assert with_gold(ROUND, [about], {}, asked=asked(), plan=QUARTER) == ROUND


@given(st.lists(st.integers(0, 3), max_size=12))
def test_questions_are_asked_in_turn_whoever_answers(answered: list[int]) -> None:
    """Whichever questions get their answers, none is ever asked twice more than another that was free to be asked."""
    queued, labelled = set[str](), set[str]()
    for n in answered:
        state = asked(queued, labelled)
        free = [q for q in FOUR if not state.waits(q)]
        (task,) = golden(with_gold(ROUND, FOUR, {}, asked=state, plan=SelectionPlan(gold_share=1 / 12))) or [None]
        if task is not None:
            chosen = next(q for q in FOUR if q.prompt == task.prompt)
            assert state.times(chosen) == min(state.times(q) for q in free)
            queued.add(task.task_id)
        labelled |= {i for i in queued if i in {FOUR[n].asking(times) for times in range(12)}}
