"""How cycles end in the log's eyes: announced until acknowledged, and closed by the next process if their own died."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from schemas.cycles import Cost, Cycle, CycleStatus
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable
from trainer.adapters.cycles import Cycles
from trainer.adapters.events import SOURCE, Events
from trainer.adapters.registry import Registry
from trainer.core import gates
from trainer.records import CycleStart, Outcome

logger = logging.getLogger(__name__)


def finite_figures(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Those that an event can carry."""
    return {name: value for name, value in figures.items() if value is not None and value - value == 0}


class Closer:
    """Brings a data folder and the log to the same story. Use it under the lease."""

    def __init__(self, cycles: Cycles, registry: Registry, events: Events, *, now: Callable[[], datetime]) -> None:
        self._cycles, self._registry, self._events, self._now = cycles, registry, events, now

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
            ),
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

    def recover(self) -> None:
        """Announce versions and outcomes that the log has not acknowledged, and close cycles that were cut off."""
        for event in self._registry.pending():
            self._events.publish(event)
            self._registry.acknowledged(event.data.version)
        for start in self._cycles.cut_off():
            self._cycles.folder(start.cycle_id).end(self._closed(start))
        for outcome in self._cycles.unannounced():
            self.announce(outcome)

    def _closed(self, start: CycleStart) -> Outcome:
        """The outcome of a cycle whose process died: what it had registered stands."""
        record = self._registry.by_cycle(start.cycle_id)
        common = {"cycle_id": start.cycle_id, "labels": start.labels, "ended_at": self._now()}
        if record is None:
            reason = f"cut off: process {start.pid} died"
            logger.warning("closing a cycle that was cut off", extra={"cycle": start.cycle_id})
            return Outcome(status=CycleStatus.FAILED, reason=reason, conclusive=False, **common)
        costs = record.cost.values()
        return Outcome(
            status=CycleStatus.FINISHED if record.passed else CycleStatus.REFUSED,
            version=record.version,
            reason=gates.refusal(record.gates),
            metrics=finite_figures(record.metrics),
            seconds=sum(c.seconds for c in costs),
            generated_tokens=sum(c.generated_tokens for c in costs),
            trained_tokens=sum(c.trained_tokens for c in costs),
            **common,
        )
