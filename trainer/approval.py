"""A person's word before a version is told of: it waits on disk, is approved or declined once, or expires.

    registered on disk, awaiting.json ─► audit event ─► approval.json ─► version event (registered | rejected)
                                                                     └─► the cycle's outcome (finished | refused)

`approval.json` is the decision; what follows from it is done again by `settle` at the next start if a process dies.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from schemas.audit import Audit
from schemas.cycles import CycleStatus
from schemas.envelope import Event, new_event
from schemas.errors import UnknownVersion
from schemas.versions import ModelVersion, VersionState
from trainer.adapters.cycles import Cycles
from trainer.adapters.events import SOURCE, Events
from trainer.adapters.registry import Registry
from trainer.journal import Approval, Outcome


class Approvals:
    """The versions of a data folder that wait."""

    def __init__(
        self,
        cycles: Cycles,
        registry: Registry,
        events: Events,
        *,
        now: Callable[[], datetime],
        announce: Callable[[Outcome], Outcome],
    ) -> None:
        self._cycles, self._registry, self._events, self._now = cycles, registry, events, now
        self._announce = announce

    def waiting(self) -> list[Event[ModelVersion]]:
        """Events of the versions that nobody has decided on."""
        return [e for e in self._registry.awaiting() if self._registry.approval(e.data.version) is None]

    def find(self, name: str) -> Event[ModelVersion]:
        """The one of a cycle's id or a version's name; raises `UnknownVersion`."""
        waiting = self.waiting()
        for event in waiting:
            if name in (event.data.version, event.data.cycle_id):
                return event
        known = ", ".join(f"{e.data.version} ({e.data.cycle_id})" for e in waiting) or "none"
        raise UnknownVersion(f"{name} does not wait for an approval; waiting: {known}")

    def decide(self, name: str, *, approved: bool, actor: str, reason: str) -> ModelVersion:
        """Approve or decline: the event that the log has now. Raises `UnknownVersion`, `BrokerUnavailable`.

        The audit event goes first: an act that nobody can be asked about must not happen.
        """
        event = self.find(name)
        version = event.data.version
        self._registry.verify(version)
        audit = Audit(
            actor=actor,
            action="version_approval" if approved else "version_decline",
            target=version,
            detail=reason,
        )
        self._events.publish(new_event(audit, source=SOURCE))
        self._registry.decide(version, Approval(approved=approved, actor=actor, reason=reason, at=self._now()))
        return self._settle(event)

    def expire(self, days: float) -> list[str]:
        """Decline what nobody has decided on in time; the versions."""
        late = [e for e in self.waiting() if self._now() - e.time >= timedelta(days=days)]
        for event in late:
            reason = f"nobody approved it in {days:g} days"
            approval = Approval(approved=False, actor="trainer", reason=reason, at=self._now())
            self._registry.decide(event.data.version, approval)
            self._settle(event)
        return [event.data.version for event in late]

    def settle(self) -> None:
        """Do what follows from decisions, where a process died after one; raises `BrokerUnavailable`."""
        for event in self._registry.awaiting():
            if self._registry.approval(event.data.version) is not None:
                self._settle(event)

    def _settle(self, event: Event[ModelVersion]) -> ModelVersion:
        approval = self._registry.approval(event.data.version)
        assert approval is not None
        data = decided(event.data, approval)
        outcome = self._end(data)
        told = replace(event, data=data, time=approval.at)
        self._registry.release(told)
        self._events.publish(told)
        self._registry.acknowledged(data.version)
        if outcome is not None:
            self._announce(outcome)
        return data

    def _end(self, data: ModelVersion) -> Outcome | None:
        """The cycle's outcome after the decision, on disk before anybody is told of it."""
        folder = self._cycles.folder(data.cycle_id or "")
        outcome = folder.outcome()
        if outcome is None or outcome.status is not CycleStatus.AWAITING_APPROVAL:
            return None
        after = ended(outcome, data)
        folder.end(after)
        return after


def decided(data: ModelVersion, approval: Approval) -> ModelVersion:
    """The version's event after a decision."""
    by = f" by {approval.actor}" if approval.actor != "trainer" else ""
    words = f"{'approved' if approval.approved else 'declined'}{by}"
    return data.model_copy(
        update={
            "state": VersionState.REGISTERED if approval.approved else VersionState.REJECTED,
            "actor": approval.actor,
            "reason": f"{words}: {approval.reason}" if approval.reason else words,
        }
    )


def ended(outcome: Outcome, data: ModelVersion) -> Outcome:
    """How a cycle ended whose version was decided on."""
    good = data.state is VersionState.REGISTERED
    status = CycleStatus.FINISHED if good else CycleStatus.REFUSED
    return outcome.model_copy(update={"status": status, "reason": data.reason, "announced": False})
