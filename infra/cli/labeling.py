"""A labeler's sitting: which tasks are open, what a key means, what is said at the end. Pure.

The latest answer is held back until the next one is given, so that it can be taken back: what is on the log stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.ids import content_id
from schemas.labels import Label, LabelTask, Verdict


class Command(StrEnum):
    """What a key asks for beside a verdict."""

    UNDO = "undo"
    QUIT = "quit"


KEYS: dict[str, Verdict | Command] = {
    "1": Verdict.LEFT,
    "left": Verdict.LEFT,
    "2": Verdict.RIGHT,
    "right": Verdict.RIGHT,
    "t": Verdict.TIE,
    "b": Verdict.BOTH_BAD,
    "s": Verdict.SKIP,
    "u": Command.UNDO,
    "q": Command.QUIT,
}


def meaning(key: str) -> Verdict | Command | None:
    """What a key or a typed line means; None: nothing."""
    return KEYS.get(key.strip().lower())


def open_tasks(queued: Sequence[LabelTask], labels: Sequence[tuple[str, str, str]], labeler: str) -> list[LabelTask]:
    """Queued tasks that nobody has judged and that `labeler` has not passed over, oldest first, each once.

    `labels` holds (task id, labeler, verdict) of each label so far.
    """
    done = {task for task, who, verdict in labels if verdict != Verdict.SKIP or who == labeler}
    unique = {task.task_id: task for task in queued}
    return [task for task in unique.values() if task.task_id not in done]


def label_of(task: LabelTask, verdict: Verdict, *, labeler: str, seconds: float) -> Label:
    """The label of a task."""
    return Label(
        task_id=task.task_id,
        labeler_id=labeler,
        verdict=verdict,
        prompt_id=task.prompt_id,
        prompt=task.prompt,
        left=task.left,
        right=task.right,
        seconds_taken=round(seconds, 2),
        purposes=task.purposes,
    )


def label_event_id(label: Label) -> str:
    """The same for one labeler's answer to one task, however often it is sent."""
    return content_id("label", label.task_id, label.labeler_id)


@dataclass
class Sitting:
    """Goes through the tasks. `answer` and `finish` return what must be published now."""

    tasks: Sequence[LabelTask]
    labeler: str
    position: int = 0
    held: Label | None = None
    counts: dict[Verdict, int] = field(default_factory=dict[Verdict, int])

    @property
    def current(self) -> LabelTask | None:
        """The task on the screen, or None at the end."""
        return self.tasks[self.position] if self.position < len(self.tasks) else None

    def answer(self, verdict: Verdict, *, seconds: float) -> Label | None:
        """Take the answer to the current task and go on; returns the one before it, which is final now."""
        assert self.current is not None, "there is no task to answer"
        final, self.held = self.held, label_of(self.current, verdict, labeler=self.labeler, seconds=seconds)
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        self.position += 1
        return final

    def undo(self) -> bool:
        """Take back the latest answer, if it can still be: one step, because what is before it is on the log."""
        if self.held is None:
            return False
        self.counts[self.held.verdict] -= 1
        self.held = None
        self.position -= 1
        return True

    def finish(self) -> Label | None:
        """The answer that was held back, which is final now."""
        final, self.held = self.held, None
        return final
