"""A distillation's steps as they pass: time and tokens of each, progress in the log, requests to stop."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum

from schemas.cycles import Cost
from trainer.adapters.environment import device_peak_bytes
from trainer.core.budget import Spent
from trainer.stages import Stopped, as_cost

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0


class Step(StrEnum):
    """The steps, in order."""

    PREPARE = "prepare"
    ANSWERS = "answers"
    SUPERVISED = "supervised"
    ON_POLICY = "on_policy"
    EVALUATE = "evaluate"
    WRITE = "write"


class Steps:
    """Follows one distillation. What a process before this one used is not counted."""

    def __init__(
        self,
        id: str,
        *,
        stop: Callable[[], bool] = lambda: False,
        device: str = "cpu",
        price_per_hour: float | None = None,
        currency: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self.id, self.device = id, device
        self._stop, self._price, self._currency = stop, price_per_hour, currency
        self._clock, self._processor = clock, processor
        self._current = Step.PREPARE
        self._spent: dict[Step, Spent] = {}
        self._told = float("-inf")

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """One step: its time is counted, its end is told."""
        began, busy = self._clock(), self._processor()
        self._current, self._told = step, float("-inf")
        self.progress(0.0)
        yield
        peak = device_peak_bytes(self.device)
        used = Spent(self._clock() - began, 0, 0, self._processor() - busy, peak)
        self._spent[step] = self._spent.get(step, Spent()).plus(used)
        seconds = round(self._spent[step].seconds, 2)
        logger.info("stage done", extra={"distillation": self.id, "stage": step.value, "seconds": seconds})

    def progress(self, fraction: float, figures: Mapping[str, float] | None = None) -> None:
        """Tell how far the step is, at most once a second; raises `Stopped` where it was asked to stop."""
        if self._stop():
            raise Stopped("stopped")
        if self._clock() - self._told < PROGRESS_SECONDS and not figures:
            return
        self._told = self._clock()
        known = {name: round(value, 4) for name, value in (figures or {}).items() if value - value == 0}
        extra = {"distillation": self.id, "stage": self._current.value, "fraction": round(fraction, 3)}
        logger.info("progress", extra=extra | known)

    def use(self, *, generated: int = 0, trained: int = 0) -> None:
        """Count tokens."""
        before = self._spent.get(self._current, Spent())
        self._spent[self._current] = before.plus(Spent(0.0, generated, trained))

    def cost(self) -> dict[str, Cost]:
        """What each step used that is done."""
        return {s.value: as_cost(spent, self.device, self._price, self._currency) for s, spent in self._spent.items()}
