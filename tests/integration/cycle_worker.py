"""Processes that run one cycle, one after the other; each is killed (SIGKILL) when it hears a certain event.

python -m tests.integration.cycle_worker DATA BASE MOMENT...    logs to DATA/MOMENT.log, lists DATA/MOMENT.json

Each is a fork of one that has only imported what they need: importing costs more than all of the cycle.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from infra.lab.log import RecordedEvents
from schemas import logs
from schemas.cycles import Cycle, CycleStatus, Stage
from schemas.envelope import Event
from schemas.messages import Payload
from schemas.versions import ModelVersion
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.adapters.feature_cache import FeatureCache
from trainer.cycle import CycleRunner
from trainer.settings import TrainerSettings

MOMENTS: dict[str, Callable[[Cycle], bool]] = {
    "reading": lambda c: c.stage is Stage.REWARD_MODEL and c.status is CycleStatus.PROGRESS,
    "fitted": lambda c: c.stage is Stage.REWARD_MODEL and c.status is CycleStatus.STAGE_DONE,
    "training": lambda c: c.stage is Stage.POLICY and c.fraction > 0.4 and "reward" in c.metrics,
    "evaluating": lambda c: c.stage is Stage.EVALUATE and c.status is CycleStatus.PROGRESS,
    "evaluated": lambda c: c.stage is Stage.EVALUATE and c.status is CycleStatus.STAGE_DONE,
}


class Deadly(RecordedEvents):
    """Kills its own process at a moment; "registered": when the version is on disk and nobody has heard of it."""

    def __init__(self, file: Path, moment: str) -> None:
        super().__init__(file)
        self._moment = moment

    def offer(self, event: Event[Payload]) -> None:
        if isinstance(event.data, Cycle) and MOMENTS.get(self._moment, lambda _: False)(event.data):
            die()

    def publish(self, event: Event[Payload]) -> None:
        if self._moment == "registered" and isinstance(event.data, ModelVersion):
            die()
        super().publish(event)


def die_after_blocks(n: int) -> None:
    """Die when so many blocks of features are on disk."""
    flush = FeatureCache.flush

    def deadly(self: FeatureCache) -> None:
        flush(self)
        if len(list(self.blocks.glob("*.safetensors"))) >= n:
            die()

    FeatureCache.flush = deadly


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def settings(data: Path, base: Path) -> TrainerSettings:
    """Three iterations, a checkpoint after each, and more tries than there are moments."""
    quick = lake.settings(data, base)
    ppo = quick.ppo.model_copy(update={"iterations": 3})
    return lake.settings(data, base, ppo=ppo, checkpoint_seconds=0, max_tries=20, score_responses=0)


def run(data: Path, base: Path, moment: str) -> None:
    """In a process of its own: to the moment, and no further."""
    handle = os.open(data / f"{moment}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, sys.stderr.fileno())
    logs.configure("worker", "INFO")
    given = settings(data, base)
    if moment == "half_read":
        die_after_blocks(2)
    CycleRunner(given, Deadly(data / "events.jsonl", moment), load_base=app.loader(given)).run()


def main() -> None:
    data, base = Path(sys.argv[1]), Path(sys.argv[2])
    for moment in sys.argv[3:]:
        child = os.fork()
        if child == 0:
            try:
                run(data, base, moment)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
        saved = sorted(file.stem for file in data.glob("cycles/*/state/*.safetensors"))
        (data / f"{moment}.json").write_text(json.dumps(saved))


if __name__ == "__main__":
    main()
