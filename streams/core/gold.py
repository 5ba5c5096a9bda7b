"""Gold questions among the label tasks: comparisons whose answer is known, so that labelers can be measured.

A labeler who knew which they are would try harder there. So they come as any other task of the round does: the same
fields, a `reason`, an `uncertainty` and a place in the order as the uncertain ones have, sides shuffled in the same
way, and a task id of the same form. Which tasks they were is known by the gold file alone; estimates over labels should
leave them out, since nobody drew them.

The first time a question is asked its task id is that of the comparison, later times have ids of their own: a task that
somebody has answered is done. All of them are one comparison to whoever learns from it (`pairing.pairs`) and one
question to whoever measures (`streams.annotators`), because labels repeat the texts.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from schemas.ids import content_id, prompt_id
from schemas.labels import Candidate, LabelTask
from schemas.messages import ChatMessage
from schemas.tables import ResponseRow
from streams.core.selection import SelectionPlan, draw, may_be_shown, shuffled, task_id


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """A comparison and the better text of the two (None: neither)."""

    prompt: tuple[ChatMessage, ...]
    sides: tuple[Candidate, Candidate]
    chosen: str | None

    @property
    def prompt_id(self) -> str:
        return prompt_id(self.prompt)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(sorted(side.completion for side in self.sides))

    @property
    def id(self) -> str:
        """The task id under which it is asked first, which is that of the same two texts from anywhere."""
        return self.asking(0)

    @property
    def response_ids(self) -> set[str]:
        """The answers that its texts are, where they were served."""
        return {side.response_id for side in self.sides if side.response_id is not None}

    def asking(self, times: int) -> str:
        """The task id for a labeler to be asked after it was asked so many times."""
        if times == 0:
            return task_id(self.prompt_id, self.texts)
        return content_id("task", self.prompt_id, *self.texts, str(times))


@dataclass(frozen=True, slots=True)
class Asked:
    """The ids of all tasks that were ever queued, and of those that have a label."""

    queued: Collection[str]
    labelled: Collection[str]

    def times(self, question: GoldQuestion) -> int:
        """How often a question was asked, by us or by anybody who asked for the same comparison."""
        return next(
            n for n in count() if question.asking(n) not in self.queued and question.asking(n) not in self.labelled
        )

    def waits(self, question: GoldQuestion) -> bool:
        """Whether it is in the queue now: twice at a time would give it away."""
        asked = (question.asking(n) for n in range(self.times(question)))
        return any(task in self.queued and task not in self.labelled for task in asked)


def with_gold(
    tasks: Sequence[LabelTask],
    questions: Iterable[GoldQuestion],
    responses: Mapping[str, ResponseRow],
    *,
    asked: Asked,
    plan: SelectionPlan,
) -> list[LabelTask]:
    """The tasks of a round with gold questions among them, `plan.gold_share` of their number.

    Those that were asked least come first, ties in the order of a draw. `responses` must hold the answers that the
    questions' texts are: a question of an answer that is gone, or that people must not be shown, is not asked.
    """
    if not tasks:
        return []
    now = Asked({*asked.queued, *(task.task_id for task in tasks)}, asked.labelled)
    able = {q.id: q for q in questions if _may_be_asked(q, responses) and not now.waits(q)}
    ranked = sorted(able.values(), key=lambda q: (now.times(q), draw(plan.seed, "gold", q.id)))
    mixed = list(tasks)
    for question in ranked[: _places(tasks, plan)]:
        task = _disguised(question, question.asking(now.times(question)), tasks, seed=plan.seed)
        mixed.insert(_place(task, mixed), task)
    return mixed


def _may_be_asked(question: GoldQuestion, responses: Mapping[str, ResponseRow]) -> bool:
    return all(i in responses and may_be_shown(responses[i]) for i in question.response_ids)


def _places(tasks: Sequence[LabelTask], plan: SelectionPlan) -> int:
    """How many gold questions a round gets: a whole number that comes to the share in the long run."""
    wanted = plan.gold_share * len(tasks)
    return math.floor(wanted + _fraction(plan.seed, "share", *sorted(task.task_id for task in tasks)))


def _disguised(question: GoldQuestion, asking: str, tasks: Sequence[LabelTask], *, seed: int) -> LabelTask:
    """A task like the uncertain ones of its round (like any, where there are none)."""
    like = [task for task in tasks if task.reason == "uncertain"] or list(tasks)
    low, high = min(t.uncertainty for t in like), max(t.uncertainty for t in like)
    first, second = sorted(question.sides, key=lambda side: side.completion)
    left, right = shuffled(first, second, asking, seed=seed)
    one = like[int(_fraction(seed, "like", asking) * len(like))]
    fields = {
        "task_id": asking,
        "prompt_id": question.prompt_id,
        "prompt": question.prompt,
        "left": left,
        "right": right,
        "uncertainty": low + (high - low) * _fraction(seed, "uncertainty", asking),
    }
    return one.model_copy(update=fields)


def _place(task: LabelTask, tasks: Sequence[LabelTask]) -> int:
    """Behind the last one of its reason that is more uncertain: the uncertain ones are in that order."""
    before = [n for n, t in enumerate(tasks) if t.reason == task.reason and t.uncertainty >= task.uncertainty]
    return before[-1] + 1 if before else 0


def _fraction(seed: int, *parts: str) -> float:
    """A number drawn by content, from 0 up to and without 1."""
    return int.from_bytes(draw(seed, *parts)[:6], "big") / (1 << 48)
