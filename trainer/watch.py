"""The service: waits for enough new labels, runs a cycle, and scores production answers in between.

    every poll_seconds:  a cycle that was cut off? enough new labels, the schedule, a drift alert (`core.triggers`)?
                           yes ─► a cycle, unless the month's budget is used up or a version waits for an approval
                           no  ─► score a few new answers

Asked to stop, a cycle ends at its next step, as failed ("stopped"); its labels are tried again by the next one.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from deltalake.exceptions import DeltaError

from schemas.cycles import CycleStatus
from schemas.errors import BrokerUnavailable, BudgetSpent, DataGone, LeaseHeld, ModelError, ThumbwheelError
from trainer import scoring
from trainer.adapters.events import OpenAlert
from trainer.adapters.new_labels import NewLabels, new_labels
from trainer.adapters.pins import Pins
from trainer.adapters.policies import LanguageModel
from trainer.core.budget import Spent
from trainer.core.triggers import Due, Look, due
from trainer.cycle import CycleRunner, LoadBase
from trainer.journal import Outcome
from trainer.stages import Stopped

logger = logging.getLogger(__name__)

SCORE_SECONDS = 10.0
ALERT_SECONDS = 60.0
ENDED_IN_ORDER = (CycleStatus.FINISHED, CycleStatus.REFUSED, CycleStatus.AWAITING_APPROVAL)
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


class Watch:
    """Runs until `stop` is set."""

    def __init__(
        self,
        runner: CycleRunner,
        stop: threading.Event,
        *,
        load_base: LoadBase,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._runner, self._stop, self._load_base, self._clock = runner, stop, load_base, clock
        self._settings, self._now, self._since = runner.settings, now, now()
        self._counted_at: tuple[Pins, str | None] | None = None
        self._new = NewLabels(0, 0.0)
        self._alerts: tuple[OpenAlert, ...] = ()
        self._alerts_at = float("-inf")
        self._said = runner.cycles.held()
        self._lm: LanguageModel | None = None
        self._scored_at = float("-inf")
        self._failures = 0

    def run(self) -> None:
        """Poll, and try again later where the log or the disk fails."""
        recovered = False
        while not self._stop.is_set():
            pause = self._settings.poll_seconds
            try:
                if not recovered:
                    self._runner.recover()
                    recovered = True
                self.round()
                self._failures = 0
            except LeaseHeld as error:
                logger.info("waiting for another cycle to end", extra={"error": str(error)})
            except BudgetSpent as error:  # somebody else's cycle has used up what was left
                logger.warning("a cycle is due and is not begun", extra={"reason": str(error)})
            except (BrokerUnavailable, DataGone, DeltaError, ModelError, OSError) as error:
                pause = max(pause, RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
                self._failures += 1
                logger.warning("trying again later", extra={"error": str(error), "seconds": pause})
            self._stop.wait(pause)

    def round(self) -> None:
        """One look: a cycle if it is due (or was cut off), otherwise a few scores."""
        self._runner.closer.approvals.expire(self._settings.approval_days)
        new = self.waiting()
        self._runner.metrics.waiting.set(new.effective)
        if self._runner.cut_off():
            self._lm = None
            self._ended(self._runner.resume(self._stop.is_set))
            return
        found = None if self._enough_cycles() else due(self._look(new), self._settings.rules())
        if found is not None and self._may_begin():
            self._cycle(found)
        else:
            self._score()

    def waiting(self) -> NewLabels:
        """Labels that no cycle has looked at. Counted again only when a table or the last cycle has changed."""
        pins, last = self._runner.lake.pins(), self._runner.cycles.last_conclusive()
        key = (pins, last.cycle_id if last else None)
        if key != self._counted_at:
            cap = self._settings.rater_cap
            self._new = new_labels(self._runner.lake, self._runner.cycles, pins, rater_cap=cap)
            self._counted_at = key
        return self._new

    def _cycle(self, found: Due) -> None:
        self._lm = None  # the cycle loads a base of its own: no two of them in memory
        self._hold("")
        self._ended(self._runner.run(self._stop.is_set, trigger=found.trigger, why=found.why))

    def _ended(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            extra = {"cycle": outcome.cycle_id, "status": outcome.status.value, "version": outcome.version}
            logger.info("cycle ended", extra=extra | {"reason": outcome.reason})

    def _look(self, new: NewLabels) -> Look:
        failures = self._runner.cycles.failures()
        began = self._runner.cycles.began()
        return Look(
            now=self._now(),
            since=self._since,
            new=new.effective,
            new_rows=new.rows,
            began_at=began,
            ended_at=failures[0].ended_at if failures else None,
            failures=len(failures),
            drift=self._drift(began),
        )

    def _drift(self, began: datetime | None) -> tuple[str, ...]:
        """Names of the open drift alerts that were raised since the last cycle began. Asked for once in a while."""
        prefix = self._settings.drift_alerts.lower()
        if prefix and self._clock() - self._alerts_at >= ALERT_SECONDS:
            self._alerts = self._runner.events.open_alerts()
            self._alerts_at = self._clock()
        raised = [o for o in self._alerts if prefix and o.alert.name.lower().startswith(prefix)]
        return tuple(sorted({o.alert.name for o in raised if began is None or o.since > began}))

    def _may_begin(self) -> bool:
        """Whether nothing holds a due cycle back; what does is said once."""
        month = self._runner.month()
        for name, share in month.shares(Spent()).items():
            self._runner.metrics.month.labels(name).set(share)
        waiting = [e.data.version for e in self._runner.closer.approvals.waiting()]
        held = month.spent_up() or (f"{', '.join(waiting)} waits for an approval" if waiting else "")
        if held and held != self._said:
            logger.warning("a cycle is due and is not begun", extra={"reason": held})
        self._hold(held)
        return not held

    def _hold(self, reason: str) -> None:
        if reason != self._said:
            self._runner.cycles.hold(reason)
            self._said = reason

    def _enough_cycles(self) -> bool:
        limit = self._settings.max_cycles
        if not limit:
            return False
        return self._runner.cycles.count(ENDED_IN_ORDER) >= limit

    def _score(self) -> None:
        if not self._settings.score_responses or self._clock() - self._scored_at < SCORE_SECONDS:
            return
        self._scored_at = self._clock()
        try:
            n = scoring.score_newest(
                self._base,
                self._runner.lake,
                self._runner.registry,
                limit=self._settings.score_batch,
                limits=self._settings.limits,
                now=lambda: datetime.now(UTC),
                progress=self._between,
            )
        except Stopped:
            return
        except ThumbwheelError as error:
            logger.warning("answers were not scored", extra={"error": str(error)})
            return
        self._runner.metrics.scored.inc(n)

    def _between(self, share: float) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")

    def _base(self) -> LanguageModel:
        if self._lm is None:
            self._lm = self._load_base()
        return self._lm
