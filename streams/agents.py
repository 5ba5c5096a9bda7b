"""Live: answers and thumbs by version and segment in tumbling windows, as Faust agents.

    outputs  ──► remember response -> version, count ──┐
    feedback ──► look its version up, count ───────────┴─► every window: slis.v1, and Prometheus

Every thumb is counted, whatever it may be used for: an indicator learns nothing. Answers made in the shadow of another
are left out. Nothing here must be exact: a restart forgets the open window, begins at the log's end, and refills the
map of responses from bronze. Bytes come in and each event is decoded by itself, because an exception inside an agent
would skip events or leave it deaf.
"""

import asyncio
import contextlib
import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import faust

from schemas import tables, topics
from schemas.envelope import decode, encode, new_event
from schemas.errors import BrokerUnavailable, InvalidEvent
from schemas.feedback import THUMBS, Feedback
from schemas.outputs import Output
from streams.adapters.faust_log import broker_urls, credentials
from streams.adapters.lake import open_table
from streams.adapters.log import Sparingly, wait_for_log
from streams.core.indicators import Matcher, Recent, Thumb, Windows
from streams.metrics import Metrics
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

SOURCE = "thumbwheel/streams/agents"
STOP_SECONDS = 8.0
STOP_POLL_SECONDS = 0.2


def create_app(settings: StreamSettings, metrics: Metrics) -> faust.App:
    """The Faust app with its agents. Topics must exist: it creates none."""
    app = _app(settings)
    recent, windows = _recent(settings), Windows(settings.agents_window_seconds)
    matcher = Matcher(recent, patience=timedelta(seconds=settings.agents_window_seconds))
    slis = _topic(app, topics.SLIS)

    @app.agent(_topic(app, topics.OUTPUTS), name="outputs")
    async def outputs(stream: Any) -> None:
        async for event in stream.events():
            output = _decoded(Output, event)
            if output is None:
                continue
            if output.shadow_of is not None:
                continue  # nobody saw it, so nobody can have thumbed it: it would thin out its version's thumbs
            recent.remember(output.response_id, output.version, output.segment)
            windows.output(output.version, output.segment, latency_seconds=output.latency_seconds, at=_now())
            metrics.outputs.labels(output.version).inc()

    @app.agent(_topic(app, topics.FEEDBACK), name="feedback")
    async def feedback(stream: Any) -> None:
        async for event in stream.events():
            said = _decoded(Feedback, event)
            if said is None or said.kind not in THUMBS:
                continue
            matcher.add(Thumb(said.response_id, said.kind, _now()))

    @app.timer(interval=1.0)
    async def emit() -> None:
        for thumb, (version, segment) in matcher.due(_now()):
            windows.thumb(version, segment, kind=thumb.kind, at=_now())
            metrics.thumbs.labels(version, thumb.kind.value).inc()
        for sli in windows.closed(_now()):
            key, value, headers = encode(new_event(sli, source=SOURCE))
            await slis.send(key=key, value=value, headers=headers)

    return app


def run(settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
    """Run the app until SIGTERM or SIGINT; raises `BrokerUnavailable` where it could not start."""
    for chatty in ("faust", "mode", "aiokafka", "streams.adapters.faust_log"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for complaining in ("", ".consumer.fetcher", ".consumer.group_coordinator", ".producer.sender"):
        logging.getLogger(f"aiokafka{complaining}").addFilter(Sparingly())
    wait_for_log(settings.kafka, stop)
    asyncio.run(_run(settings, metrics, stop))


async def _run(settings: StreamSettings, metrics: Metrics, stop: threading.Event) -> None:
    app = create_app(settings, metrics)
    started = asyncio.ensure_future(app.start())
    while not stop.is_set() and not app.crashed and not (started.done() and started.exception()):
        await asyncio.sleep(STOP_POLL_SECONDS)
    _never_hang()
    failure = started.exception() if started.done() else None
    with contextlib.suppress(asyncio.CancelledError):
        started.cancel()
        await app.stop()
    if failure is not None and not stop.is_set():
        raise BrokerUnavailable(f"the agents could not start: {failure}; they are started anew by whoever runs them")


def _never_hang() -> None:
    """Faust can wait for minutes on a broker that is gone. There is nothing here that could be lost by leaving."""
    timer = threading.Timer(STOP_SECONDS, os._exit, args=(0,))
    timer.daemon = True
    timer.start()


def _app(settings: StreamSettings) -> faust.App:
    return faust.App(
        "thumbwheel-agents",
        broker=broker_urls(settings.kafka),
        broker_credentials=credentials(settings.kafka),
        consumer_group_instance_id=settings.agents_instance_id,
        consumer_auto_offset_reset="latest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=str(settings.data / "agents"),
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=settings.agents_port > 0,
        web_bind="127.0.0.1",
        web_host="127.0.0.1",
        web_port=settings.agents_port or 6066,
    )


def _topic(app: faust.App, topic: topics.Topic) -> Any:
    return app.topic(topic.name, value_type=bytes, value_serializer="raw", key_serializer="raw", internal=False)


def _recent(settings: StreamSettings) -> Recent:
    """The versions of the latest answers, from bronze: a thumb may come long after its answer."""
    recent = Recent(settings.agents_memory)
    rows = open_table(settings.lake, tables.OUTPUTS).all().select("response_id", "version", "segment")
    for response_id, version, segment in rows.sort("response_id").tail(settings.agents_memory).collect().iter_rows():
        recent.remember(response_id, version, segment)
    return recent


def _decoded(payload: type[Any], event: Any) -> Any:
    """The payload, or None for what is no event: ingest makes the dead letter of it."""
    try:
        headers = event.headers or {}
        pairs = headers.items() if isinstance(headers, dict) else headers
        return decode(payload, event.value, pairs).data
    except InvalidEvent as error:
        logger.debug("passed over", extra={"reason": error.reason})
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        logger.debug("passed over", extra={"reason": str(error)})
    return None


def _now() -> datetime:
    return datetime.now(UTC)
