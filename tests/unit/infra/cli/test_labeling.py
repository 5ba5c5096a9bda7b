import pytest

from infra.cli.labeling import Command, Sitting, label_event_id, label_of, meaning, open_tasks
from schemas.consent import Purpose
from schemas.labels import Candidate, LabelTask, Verdict
from schemas.messages import ChatMessage


def task(name: str) -> LabelTask:
    return LabelTask(
        task_id=name,
        prompt_id="p",
        prompt=(ChatMessage(role="user", content="?"),),
        left=Candidate(completion="a", version="v1"),
        right=Candidate(completion="b", version="v2"),
        reason="random",
        uncertainty=0.1,
        selection_probability=0.5,
    )


TASKS = [task("one"), task("two"), task("three")]


@pytest.mark.parametrize(
    ("key", "means"),
    [
        ("1", Verdict.LEFT), ("left", Verdict.LEFT), ("2", Verdict.RIGHT), ("right", Verdict.RIGHT), ("T", Verdict.TIE),
        (" b\n", Verdict.BOTH_BAD), ("s", Verdict.SKIP), ("u", Command.UNDO), ("q", Command.QUIT),
        ("x", None), ("", None),
    ],
)  # fmt: skip
def test_each_key_has_one_meaning(key: str, means: Verdict | Command | None) -> None:
    assert meaning(key) == means


def test_what_anyone_has_judged_is_done() -> None:
    left = open_tasks(TASKS, [("one", "bob", "left")], "ada")
    assert [t.task_id for t in left] == ["two", "three"]


def test_what_another_has_skipped_is_still_open_and_what_i_have_skipped_is_not() -> None:
    labels = [("one", "bob", "skip"), ("two", "ada", "skip")]
    assert [t.task_id for t in open_tasks(TASKS, labels, "ada")] == ["one", "three"]


def test_a_task_queued_twice_is_asked_once() -> None:
    assert len(open_tasks([*TASKS, *TASKS], [], "ada")) == 3


def test_a_label_may_be_used_for_what_its_task_may() -> None:
    agreed = TASKS[0].model_copy(update={"purposes": (Purpose.TRAINING,)})
    assert label_of(agreed, Verdict.LEFT, labeler="ada", seconds=1).purposes == (Purpose.TRAINING,)
    assert label_of(TASKS[0], Verdict.LEFT, labeler="ada", seconds=1).purposes is None


def test_an_answer_is_final_when_the_next_one_is_given() -> None:
    sitting = Sitting(TASKS, "ada")
    assert sitting.answer(Verdict.LEFT, seconds=1.0) is None
    first = sitting.answer(Verdict.TIE, seconds=2.0)
    assert first is not None
    assert (first.task_id, first.verdict, first.seconds_taken) == ("one", Verdict.LEFT, 1.0)
    last = sitting.finish()
    assert last is not None
    assert last.task_id == "two"
    assert sitting.finish() is None


def test_undo_takes_back_one_answer_and_asks_again() -> None:
    sitting = Sitting(TASKS, "ada")
    sitting.answer(Verdict.LEFT, seconds=1.0)
    assert sitting.undo()
    assert not sitting.undo()
    assert sitting.current == TASKS[0]
    sitting.answer(Verdict.RIGHT, seconds=1.0)
    final = sitting.finish()
    assert final is not None
    assert final.verdict is Verdict.RIGHT
    assert {v: n for v, n in sitting.counts.items() if n} == {Verdict.RIGHT: 1}


def test_the_sitting_ends_after_the_last_task() -> None:
    sitting = Sitting(TASKS[:1], "ada")
    sitting.answer(Verdict.SKIP, seconds=1.0)
    assert sitting.current is None


def test_an_answer_sent_again_is_the_same_event() -> None:
    label = label_of(TASKS[0], Verdict.LEFT, labeler="ada", seconds=1.0)
    slower = label_of(TASKS[0], Verdict.LEFT, labeler="ada", seconds=9.0)
    other = label_of(TASKS[0], Verdict.LEFT, labeler="bob", seconds=1.0)
    assert label_event_id(label) == label_event_id(slower) != label_event_id(other)
