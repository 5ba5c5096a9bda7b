"""How cycles end in the log's eyes: announced until acknowledged, and closed by the next process if their own died."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas.cycles import Cost, Cycle, CycleStatus
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import Cycles
from trainer.adapters.events import SOURCE, Events
from trainer.adapters.registry import Registry
from trainer.approval import Approvals
from trainer.core import gates
from trainer.records import CycleStart, Outcome, VersionRecord

logger = logging.getLogger(__name__)

AWAITING = "it passed its gates and waits for `thumbwheel cycles approve` or `decline`"


@dataclass(frozen=True)
class Obstacle:
    """Why nobody can go on with a cycle that was cut off. `given_up`: its labels are not tried again either."""

    why: str
    given_up: bool = False


CLOSED = Obstacle("it is closed")


def finite_figures(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Those that an event can carry."""
    return {name: value for name, value in figures.items() if value is not None and value - value == 0}


class Closer:
    """Brings a data folder and the log to the same story. Use it under the lease."""

    def __init__(self, cycles: Cycles, registry: Registry, events: Events, *, now: Callable[[], datetime]) -> None:
        self._cycles, self._registry, self._events, self._now = cycles, registry, events, now
        self.approvals = Approvals(cycles, registry, events, now=now, announce=self.announce)

    def announce(self, outcome: Outcome) -> Outcome:
        """Tell the log how a cycle ended, by an id that is the same however often it is told."""
        data = Cycle(
            cycle_id=outcome.cycle_id,
            status=outcome.status,
            fraction=1.0,
            version=outcome.version,
            reason=outcome.reason,
            metrics=outcome.metrics,
            cost=Cost(
                seconds=outcome.seconds,
                generated_tokens=outcome.generated_tokens,
                trained_tokens=outcome.trained_tokens,
                device=outcome.device,
                money=outcome.money,
                currency=outcome.currency,
            ),
            trigger=outcome.trigger,
        )
        event = new_event(data, source=SOURCE, id=f"{outcome.cycle_id}-{outcome.status}", time=outcome.ended_at)
        try:
            self._events.publish(event)
        except BrokerUnavailable as error:
            logger.warning("the outcome is announced at the next start", extra={"error": str(error)})
            return outcome
        told = outcome.model_copy(update={"announced": True})
        self._cycles.folder(outcome.cycle_id).end(told)
        return told

    def recover(self, obstacle: Callable[[CycleStart], Obstacle | None] = lambda start: CLOSED) -> None:
        """Announce versions and outcomes that the log has not acknowledged, and close cycles that were cut off.

        A cycle stays open that a process can go on with: one for which there is no `obstacle`.
        """
        self.approvals.settle()
        for event in self._registry.pending():
            self._events.publish(event)
            self._registry.acknowledged(event.data.version)
        for start in self._cycles.cut_off():
            found = obstacle(start) if self._registry.by_cycle(start.cycle_id) is None else CLOSED
            if found is not None:
                self.close(start, found)
        for outcome in self._cycles.unannounced():
            self.announce(outcome)

    def close(self, start: CycleStart, obstacle: Obstacle) -> Outcome:
        """End a cycle whose process died; raises `OSError`."""
        folder = self._cycles.folder(start.cycle_id)
        outcome = self._closed(start, obstacle)
        folder.end(outcome)
        Checkpoints(folder.state).discard()
        return outcome

    def _closed(self, start: CycleStart, obstacle: Obstacle) -> Outcome:
        """The outcome of a cycle whose process died: what it had registered stands."""
        record = self._registry.by_cycle(start.cycle_id)
        common = {
            "cycle_id": start.cycle_id,
            "labels": start.labels,
            "trigger": start.trigger,
            "tries": start.tries,
            "ended_at": self._now(),
        }
        if record is None:
            reason = f"cut off: process {start.pid} died, and {obstacle.why}"
            logger.warning("closing a cycle that was cut off", extra={"cycle": start.cycle_id, "reason": obstacle.why})
            used = Checkpoints(self._cycles.folder(start.cycle_id).state).spent().values()
            return Outcome(
                status=CycleStatus.FAILED,
                reason=reason,
                conclusive=obstacle.given_up,
                seconds=sum(s.seconds for s in used),
                generated_tokens=sum(s.generated_tokens for s in used),
                trained_tokens=sum(s.trained_tokens for s in used),
                **common,
            )
        costs = record.cost.values()
        money = [c.money for c in costs if c.money is not None]
        waits = record.version in {e.data.version for e in self._registry.awaiting()}
        return Outcome(
            status=status_of(record, waits=waits),
            version=record.version,
            reason=gates.refusal(record.gates) or (AWAITING if waits else ""),
            metrics=finite_figures(record.metrics),
            seconds=sum(c.seconds for c in costs),
            generated_tokens=sum(c.generated_tokens for c in costs),
            trained_tokens=sum(c.trained_tokens for c in costs),
            stages=record.cost,
            money=sum(money) if money else None,
            currency=next((c.currency for c in costs if c.currency), None),
            **common,
        )


def status_of(record: VersionRecord, *, waits: bool) -> CycleStatus:
    """How a cycle ended that wrote a version."""
    if not record.passed:
        return CycleStatus.REFUSED
    return CycleStatus.AWAITING_APPROVAL if waits else CycleStatus.FINISHED
