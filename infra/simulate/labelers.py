"""Simulated labelers: they answer the comparisons that the selector queued, by the users' taste and with its noise."""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer

from infra.simulate.tastes import Taste
from schemas import topics
from schemas.connection import KafkaConnection
from schemas.envelope import Message, encode, new_event
from schemas.errors import BrokerUnavailable
from schemas.ids import content_id
from schemas.labels import Label, LabelTask, Verdict

LABELERS = 3
SOURCE = "infra/simulate/labelers"
PAUSE_SECONDS = 2.0
FLUSH_SECONDS = 10.0


def verdict(left: float, right: float, *, noise: float, rng: random.Random) -> Verdict:
    """What a labeler answers for the tastes of both sides; with probability `noise` it is the opposite."""
    if left == right:
        return Verdict.TIE
    return Verdict.LEFT if (left > right) != (rng.random() < noise) else Verdict.RIGHT


def answer(task: LabelTask, taste: Taste, *, noise: float, seed: int) -> Label:
    """The label of one task. It depends on task and seed alone, so that a task met twice gets the same answer."""
    rng = random.Random(f"label/{seed}/{task.task_id}")
    question = task.prompt[-1].content
    left, right = taste(question, task.left.completion), taste(question, task.right.completion)
    return Label(
        task_id=task.task_id,
        labeler_id=f"labeler-{rng.randrange(LABELERS)}",
        verdict=verdict(left, right, noise=noise, rng=rng),
        prompt_id=task.prompt_id,
        prompt=task.prompt,
        left=task.left,
        right=task.right,
        seconds_taken=round(rng.uniform(2, 9), 1),
        origin="simulated",
        purposes=task.purposes,
    )


def as_message(label: Label) -> Message:
    """The label event; its id is that of the vote, so that one sent twice counts once."""
    return encode(new_event(label, source=SOURCE, id=content_id("label", label.task_id, label.labeler_id)))


class Labelers:
    """Answers what is queued, until told to stop. `answered` holds the ids of the tasks whose labels the broker has."""

    def __init__(
        self,
        kafka: KafkaConnection,
        queue: Callable[[], Sequence[dict[str, Any]]],
        *,
        taste: Taste,
        noise: float,
        seed: int,
    ) -> None:
        self.answered: set[str] = set()
        self._queue, self._taste, self._noise, self._seed = queue, taste, noise, seed
        options = {"acks": "all", "enable.idempotence": "true", "linger.ms": "5", "log_level": "0"}
        self._producer = Producer(dict(kafka.client_config()) | options)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; blocks, so give it a thread. Raises what `work` raises."""
        while not stop.wait(PAUSE_SECONDS):
            self.work()

    def work(self) -> int:
        """Answer what is open; how many. Raises `BrokerUnavailable` where the broker doesn't take the labels."""
        rows = [row for row in self._queue() if row["task_id"] not in self.answered]
        tasks = [LabelTask.model_validate({k: v for k, v in row.items() if k != "queued_at"}) for row in rows]
        for task in tasks:
            message = as_message(answer(task, self._taste, noise=self._noise, seed=self._seed))
            self._producer.produce(
                topics.LABELS.name, value=message.value, key=message.key, headers=dict(message.headers)
            )
        if tasks and self._producer.flush(FLUSH_SECONDS):
            raise BrokerUnavailable("the broker did not take the labels in time; see its log")
        self.answered |= {task.task_id for task in tasks}
        return len(tasks)
