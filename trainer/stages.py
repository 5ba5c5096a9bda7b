"""A cycle's stages as they pass: their time and tokens, the budget, progress events, requests to stop."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from schemas.cycles import Cost, Cycle, CycleStatus, Stage, Trigger
from schemas.envelope import new_event
from schemas.errors import CycleError
from trainer.adapters.environment import device_peak_bytes
from trainer.adapters.events import SOURCE, Events
from trainer.core.budget import Budget, Spent, check, early_stop
from trainer.core.cost import Month, MonthLimits
from trainer.core.parallel import Peers
from trainer.metrics import Metrics

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0


class Stopped(CycleError):
    """The cycle was asked to stop."""


class Stages:
    """Follows one cycle through its stages. Without `events` it is quiet: for repeating a cycle.

    `month` is what all cycles of the month may use together; `spent` what a process that died had used of this one.
    """

    def __init__(
        self,
        cycle_id: str,
        *,
        budget: Budget,
        device: str = "cpu",
        events: Events | None = None,
        metrics: Metrics | None = None,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
        month: Month | None = None,
        spent: Mapping[Stage, Spent] | None = None,
        trigger: Trigger | None = None,
        currency: str | None = None,
    ) -> None:
        self.cycle_id = cycle_id
        self.budget = budget
        self.device = device
        self.current: Stage | None = None
        self.spent: dict[Stage, Spent] = dict(spent or {})
        self._events, self._metrics, self._stop, self._clock = events, metrics, stop, clock
        self._processor, self._trigger, self._currency = processor, trigger, currency
        self._month = month or Month(MonthLimits(), Spent())
        self._began, self._busy = clock(), processor()
        self._told = self._began

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """One stage: its time is counted, its end is told, and the budget is checked."""
        self.current, self._began, self._busy = stage, self._clock(), self._processor()
        self.spent.setdefault(stage, Spent())
        self._told = float("-inf")
        self.progress(0.0)
        try:
            yield
        finally:
            running = self._running()
            self.spent[stage] = self.spent[stage].plus(running)
            self._began, self._busy = self._clock(), self._processor()
            if self._metrics is not None:
                self._metrics.stage_seconds.labels(stage.value).inc(running.seconds)
        seconds = round(self.spent[stage].seconds, 2)
        logger.info("stage done", extra={"cycle": self.cycle_id, "stage": stage.value, "seconds": seconds})
        self._offer(CycleStatus.STAGE_DONE, 1.0, {})
        self._check()

    def progress(self, fraction: float, figures: Mapping[str, float] | None = None) -> None:
        """Tell how far the stage is, at most once a second; raises `Stopped` where the cycle was asked to stop."""
        if self._stop():
            raise Stopped("stopped")
        self._check()
        if self._clock() - self._told < PROGRESS_SECONDS and not figures:
            return
        self._told = self._clock()
        known = {name: value for name, value in (figures or {}).items() if value - value == 0}  # no NaN, no infinity
        extra = {"cycle": self.cycle_id, "stage": self.current, "fraction": round(fraction, 3)}
        logger.info("progress", extra=extra | {name: round(value, 4) for name, value in known.items()})
        self._offer(CycleStatus.PROGRESS, fraction, known)

    def use(self, *, generated: int = 0, trained: int = 0) -> None:
        """Count tokens."""
        assert self.current is not None
        self.spent[self.current] = self.spent[self.current].plus(Spent(0.0, generated, trained))
        if self._metrics is not None:
            self._metrics.tokens.labels("generated").inc(generated)
            self._metrics.tokens.labels("trained").inc(trained)

    def shared(self, peers: Peers) -> None:
        """Count what processor time the others used for the running stage; all processes call this at its end."""
        assert self.current is not None
        used = torch.tensor([self._running().cpu_seconds if peers.rank else 0.0], dtype=torch.float64)
        peers.sum(used)
        if peers.rank == 0:
            self.spent[self.current] = self.spent[self.current].plus(Spent(cpu_seconds=float(used)))

    def early_stop(self) -> str | None:
        """Why training should end now, by the budget."""
        total = self.total()
        return early_stop(self.budget, total) or self._month.early_stop(total, self.budget.policy_share)

    def total(self) -> Spent:
        """All that was used so far, the running stage included."""
        total = Spent()
        for spent in self.spent.values():
            total = total.plus(spent)
        return total.plus(self._running()) if self.current else total

    def usage(self) -> dict[Stage, Spent]:
        """What each stage has used, the running one so far."""
        used = dict(self.spent)
        if self.current is not None:
            used[self.current] = used[self.current].plus(self._running())
        return used

    def _running(self) -> Spent:
        """What the running stage has used since it began here; its tokens are counted by `use`."""
        seconds, busy = self._clock() - self._began, self._processor() - self._busy
        return Spent(max(0.0, seconds), cpu_seconds=max(0.0, busy), device_peak_bytes=device_peak_bytes(self.device))

    def _check(self) -> None:
        total = self.total()
        check(self.budget, total)
        self._month.check(total)

    def cost(self) -> Cost:
        """The same as an event carries it."""
        return self._as_cost(self.total())

    def cost_by_stage(self) -> dict[str, Cost]:
        """What each stage used that is done."""
        return {s.value: self._as_cost(spent) for s, spent in self.spent.items() if s is not self.current}

    def cost_so_far(self) -> dict[str, Cost]:
        """What each stage used, the running one so far."""
        return {s.value: self._as_cost(spent) for s, spent in self.usage().items()}

    def _as_cost(self, spent: Spent) -> Cost:
        return as_cost(spent, self.device, self.budget.price_per_hour, self._currency)

    def _offer(self, status: CycleStatus, fraction: float, figures: Mapping[str, float]) -> None:
        if self._events is None:
            return
        data = Cycle(
            cycle_id=self.cycle_id,
            status=status,
            stage=self.current,
            fraction=min(1.0, max(0.0, fraction)),
            metrics=dict(figures),
            cost=self.cost(),
            trigger=self._trigger,
        )
        self._events.offer(new_event(data, source=SOURCE))


def as_cost(spent: Spent, device: str, price_per_hour: float | None = None, currency: str | None = None) -> Cost:
    """What was spent, as events and records carry it."""
    money = spent.cost(price_per_hour)
    return Cost(
        seconds=spent.seconds,
        generated_tokens=spent.generated_tokens,
        trained_tokens=spent.trained_tokens,
        device=device,
        money=money,
        currency=None if money is None else currency,
        cpu_seconds=spent.cpu_seconds,
        device_peak_bytes=spent.device_peak_bytes or None,
    )
