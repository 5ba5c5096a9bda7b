"""The service: waits for enough new labels, runs a cycle, and scores production answers in between.

    every poll_seconds:  labels that count now - labels that the last cycle pinned >= min_new_preferences ?
                           yes ─► a cycle (in this process; progress events)      no ─► score a few new answers

Asked to stop, a cycle ends at its next step, as failed ("stopped"); its labels are tried again by the next one.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from deltalake.exceptions import DeltaError

from schemas.cycles import CycleStatus
from schemas.errors import BrokerUnavailable, DataGone, LeaseHeld, ThumbwheelError
from trainer import scoring
from trainer.adapters.pins import Pins
from trainer.adapters.policies import LanguageModel
from trainer.cycle import CycleRunner, LoadBase
from trainer.stages import Stopped

logger = logging.getLogger(__name__)

SCORE_SECONDS = 10.0
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
    ) -> None:
        self._runner, self._stop, self._load_base, self._clock = runner, stop, load_base, clock
        self._settings = runner.settings
        self._pins: Pins | None = None
        self._labels = 0
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
            except (BrokerUnavailable, DataGone, DeltaError, OSError) as error:
                pause = max(pause, RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
                self._failures += 1
                logger.warning("trying again later", extra={"error": str(error), "seconds": pause})
            self._stop.wait(pause)

    def round(self) -> None:
        """One look: a cycle if it is due, otherwise a few scores."""
        waiting = self.waiting()
        self._runner.metrics.waiting.set(waiting)
        if waiting >= self._settings.min_new_preferences and not self._enough_cycles():
            self._lm = None  # the cycle loads a base of its own: no two of them in memory
            outcome = self._runner.run(self._stop.is_set)
            extra = {"cycle": outcome.cycle_id, "status": outcome.status.value, "version": outcome.version}
            logger.info("cycle ended", extra=extra | {"reason": outcome.reason})
        else:
            self._score()

    def waiting(self) -> int:
        """Labels that no cycle has looked at. Counted again only when a table has changed."""
        pins = self._runner.lake.pins()
        if pins != self._pins:
            self._labels = self._runner.lake.count_labels(pins)
            self._pins = pins
        return max(0, self._labels - self._runner.cycles.labels_seen())

    def _enough_cycles(self) -> bool:
        limit = self._settings.max_cycles
        if not limit:
            return False
        return self._runner.cycles.count((CycleStatus.FINISHED, CycleStatus.REFUSED)) >= limit

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
