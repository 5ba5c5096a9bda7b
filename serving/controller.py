"""The rollout controller: follows the versions and says which one goes live.

    version topic ─► feed thread ─► board ─► core.rollout.next_event ─► version topic (acknowledged) ─► board ...

It emits one event, waits until it comes back through the topic, and looks again: what is decided next is decided
from the log, not from memory, so it may be killed and restarted at any point.
"""

import asyncio
import logging
import signal
import threading
import time

from prometheus_client import start_http_server

from schemas.audit import Audit
from schemas.envelope import Event, new_event
from schemas.errors import BrokerUnavailable
from schemas.messages import Payload
from schemas.topics import AUDIT, MODEL_VERSIONS, Topic
from schemas.versions import Board, ModelVersion, VersionState
from serving.adapters.log import EventLog
from serving.adapters.metrics import RolloutMetrics
from serving.adapters.version_feed import VersionFeed
from serving.core.rollout import ACTOR, event_id, next_event
from serving.settings import RolloutSettings

logger = logging.getLogger(__name__)

SOURCE = "thumbwheel/serving/rollout"
RETRY_SECONDS = 1.0
ECHO_SECONDS = 15.0
"""How long an emitted event may take to come back before the board is looked at again without it."""


class Controller:
    """Emits what `core.rollout` says is due, one event at a time."""

    def __init__(self, settings: RolloutSettings, metrics: RolloutMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._changed = threading.Event()
        self._closing = False
        self._log = EventLog(
            settings.kafka,
            client_id="thumbwheel-rollout",
            buffer_events=1000,
            message_timeout_seconds=settings.publish_timeout_seconds,
        )
        self._feed = VersionFeed(
            settings.kafka,
            client_id="thumbwheel-rollout-versions",
            on_change=lambda board: self._changed.set(),
            on_bad_event=lambda reason: metrics.bad_version_events.labels(reason).inc(),
        )

    def run(self) -> None:
        """Work until `stop`."""
        self._feed.start()
        try:
            while not self._closing:
                self._changed.wait(0.5)
                self._changed.clear()
                if self._feed.caught_up:
                    self._catch_up()
        finally:
            self._feed.close()
            self._log.close(2.0)

    def stop(self) -> None:
        """Let `run` return; safe in a signal handler."""
        self._closing = True

    def _catch_up(self) -> None:
        """Emit until nothing is due."""
        while not self._closing:
            board = self._feed.board
            event = next_event(board, promotion=self._settings.promotion, base_model=self._settings.base_model_name)
            if event is None:
                return
            try:
                self._emit(board, event)
            except BrokerUnavailable as error:
                logger.warning("will try again: %s", error, extra={"version": event.version})
                time.sleep(RETRY_SECONDS)
                return
            self._await_echo(board, event)

    def _emit(self, board: Board, event: ModelVersion) -> None:
        identity = event_id(board, event)
        if event.state is VersionState.LIVE:
            # Before the move: killed in between, both are made again under the same ids. The other way round the
            # record would be lost.
            audit = Audit(actor=ACTOR, action="promotion", target=event.version, detail=event.reason)
            self._publish(AUDIT, new_event(audit, source=SOURCE, id=f"audit-{identity}"))
        self._publish(MODEL_VERSIONS, new_event(event, source=SOURCE, id=identity))
        self._metrics.transitions.labels(event.state.value).inc()
        extra = {"version": event.version, "state": event.state.value, "event_id": identity, "reason": event.reason}
        logger.info("version moved", extra=extra)

    def _publish(self, topic: Topic, event: Event[Payload]) -> None:
        asyncio.run(self._log.publish_acknowledged(topic, event, self._settings.publish_timeout_seconds))

    def _await_echo(self, before: Board, event: ModelVersion) -> None:
        deadline = time.monotonic() + ECHO_SECONDS
        while self._feed.board is before and time.monotonic() < deadline and not self._closing:
            time.sleep(0.02)
        if self._feed.board is before:
            logger.warning("an emitted event did not come back", extra={"version": event.version})


def run(settings: RolloutSettings) -> None:
    """Run the controller until SIGTERM or SIGINT."""
    metrics = RolloutMetrics()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr="127.0.0.1", registry=metrics.registry)
    controller = Controller(settings, metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    logger.info("following the versions", extra={"promotion": settings.promotion})
    controller.run()
    logger.info("stopped")
