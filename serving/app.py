"""The gateway: everything it consists of, made and connected here, and nowhere else.

    HTTP request ─► gatekeeper ─► api ─► routing (board, keeper) ─► engine queue ─► decoding thread ─► HTTP response
                    401 403 429    │     full: 429                  bounded              │    with a feedback token
                                   │                                                     ▼
                                   │                            redaction ─► outputs log (bounded; never waited for)
                                   │                                                     ▼
                                   ├─► feedback, outputs ─► redaction ─► feedback log ─► broker ─► acknowledged ─► 201
                                   │                                                     not in time: 503
    version topic ─► feed thread ─► keeper thread: load adapter ─► serve it

Back-pressure sits in two places: the engine's queue refuses requests when it is full, and feedback is refused when
the broker doesn't take it. Answers never wait for the broker: they wait in a buffer, and when that is full
they are not recorded and say so (`thumbwheel::recorded: false`).
"""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import Counter

from schemas import signatures
from schemas.errors import SettingsError
from serving.adapters import keys
from serving.adapters.log import EventLog
from serving.adapters.metrics import GatewayMetrics
from serving.adapters.redaction import Redaction, make_redactor
from serving.adapters.version_feed import VersionFeed
from serving.api.gateway import Gateway
from serving.api.routes import create_app
from serving.core.access import AccessMode
from serving.core.metadata import in_order
from serving.core.wire import Limits
from serving.gatekeeper import AccessPolicy, Gatekeeper
from serving.keeper import VersionKeeper
from serving.settings import GatewaySettings

if TYPE_CHECKING:
    from serving.adapters.base_model import BaseModel
    from serving.adapters.engine_local import EngineLimits

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT; requests in flight may finish within `shutdown_seconds`."""
    listener = _listen(settings.host, settings.port)
    loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    metrics = GatewayMetrics()
    # Before the model is loaded, like the port: what can't work is said at once.
    gatekeeper = _gatekeeper(settings, loopback=loopback)
    redaction = _redaction(settings, metrics)
    # Imported late, since it takes seconds: torch, transformers.
    from serving.adapters.base_model import load_base_model

    base = load_base_model(
        settings.base_model,
        dtype=settings.dtype,
        device=settings.device,
        max_context_tokens=settings.max_context_tokens,
    )
    with running_gateway(settings, base, metrics, gatekeeper, redaction) as gateway:
        host, port = listener.getsockname()[:2]
        logger.info("listening", extra={"host": host, "port": port, "url": f"http://{host}:{port}"})
        asyncio.run(_serve(gateway, listener, settings))
    logger.info("stopped")


@contextlib.contextmanager
def running_gateway(
    settings: GatewaySettings, base: "BaseModel", metrics: GatewayMetrics, gatekeeper: Gatekeeper, redaction: Redaction
) -> Iterator[Gateway]:
    """The gateway's parts with their threads running; at the end what waits for the broker gets a last chance."""
    from serving.adapters.engine_local import LocalEngine

    engine = LocalEngine(
        base,
        registry=settings.registry,
        limits=_engine_limits(settings),
        metrics=metrics,
        signing_key=signatures.read_key(settings.signing_key_file),
    )
    keeper = VersionKeeper(engine, metrics=metrics, load_timeout=settings.load_timeout_seconds)
    feed = VersionFeed(
        settings.kafka,
        client_id="thumbwheel-gateway-versions",
        on_change=keeper.follow,
        on_bad_event=lambda reason: metrics.bad_version_events.labels(reason).inc(),
    )
    outputs = _log(settings, metrics, "outputs", message_timeout=0.0)
    feedback = _log(settings, metrics, "feedback", message_timeout=settings.feedback_timeout_seconds)
    for part in (engine, keeper, feed):
        part.start()
    try:
        yield Gateway(
            engine=engine,
            keeper=keeper,
            feed=feed,
            outputs=outputs,
            feedback=feedback,
            metrics=metrics,
            gatekeeper=gatekeeper,
            redaction=redaction,
            default_purposes=in_order(settings.default_purposes),
            limits=Limits(
                settings.default_temperature, settings.default_max_tokens, settings.max_completion_tokens_limit
            ),
            base_model_name=settings.base_model_name,
            pin_rejected=settings.pin_rejected,
            max_body_bytes=settings.max_body_bytes,
            feedback_timeout_seconds=settings.feedback_timeout_seconds,
            oldest_feedback=timedelta(days=settings.feedback_days),
            started_at=int(time.time()),
        )
    finally:
        for part in (feed, keeper, engine):
            part.close()
        for log in (feedback, outputs):
            log.close(FLUSH_SECONDS)


def _gatekeeper(settings: GatewaySettings, *, loopback: bool) -> Gatekeeper:
    """Who may come in; raises `SettingsError` for a gateway that strangers could reach and that would let nobody in."""
    api_keys = keys.watched_api_keys(settings.api_keys_file)
    if settings.access is AccessMode.AUTO and not loopback and not api_keys.content().keys:
        raise SettingsError(
            f"{settings.host} can be reached from other machines and there is no API key; create one"
            " (thumbwheel keys create --name NAME), or listen on 127.0.0.1, or set THUMBWHEEL_ACCESS=open"
        )
    if settings.access is AccessMode.OPEN and not loopback:
        logger.warning("open to everybody who can reach it: THUMBWHEEL_ACCESS is open", extra={"host": settings.host})
    policy = AccessPolicy(
        mode=settings.access,
        loopback=loopback,
        key_rate=settings.key_rate,
        address_rate=settings.address_rate,
        token_lifetime=timedelta(days=settings.token_days),
        token_actions=settings.token_actions,
        origins=frozenset(settings.feedback_origins),
    )
    token_keys = keys.watched_token_keys(settings.token_keys_file, ours=settings.token_keys is None)
    return Gatekeeper(policy, api_keys=api_keys, token_keys=token_keys)


def _redaction(settings: GatewaySettings, metrics: GatewayMetrics) -> Redaction:
    if not settings.redaction:
        logger.warning("personal data goes into the log as it comes: THUMBWHEEL_REDACTION is off")
    key = keys.pseudonym_key(settings.pseudonym_key_file, ours=settings.pseudonym_key is None)
    return Redaction(
        make_redactor(settings.redaction, names_model=settings.names_model),
        key=key.key,
        on_found=lambda kind, times: metrics.redacted.labels(kind).inc(times),
        finds_names="name" in settings.redaction,
    )


def _engine_limits(settings: GatewaySettings) -> "EngineLimits":
    from serving.adapters.engine_local import EngineLimits

    return EngineLimits(
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_prefill_tokens=settings.max_prefill_tokens,
        max_adapters=settings.max_adapters,
        threads=settings.threads,
    )


def _log(settings: GatewaySettings, metrics: GatewayMetrics, name: str, *, message_timeout: float) -> EventLog:
    return EventLog(
        settings.kafka,
        client_id=f"thumbwheel-gateway-{name}",
        buffer_events=settings.output_buffer_events,
        message_timeout_seconds=message_timeout,
        on_fate=_counter_of_fates(metrics),
    )


def _counter_of_fates(metrics: GatewayMetrics) -> Callable[[str, str], None]:
    # To look a counter up by its labels costs more than to count.
    @functools.cache
    def counter(topic: str, fate: str) -> Counter:
        return metrics.events.labels(topic, fate)

    return lambda topic, fate: counter(topic, fate).inc()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound before the model is loaded: a port that is taken is found out at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"can't listen on {host}:{port}: {error.strerror}; stop what uses it, or set THUMBWHEEL_PORT (0 takes a"
            " free one)"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn, but signals are ours: it would raise them again at the end, and the exit code would not be 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        logger.info("stopping: no new requests, those in flight may finish")
        self.should_exit = True


async def _serve(gateway: Gateway, listener: socket.socket, settings: GatewaySettings) -> None:
    config = uvicorn.Config(
        create_app(gateway),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        # The one of uvicorn's parsers that bounds the headers before they are complete.
        http="h11",
        h11_max_incomplete_event_size=settings.max_header_bytes,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
    await _Server(config).serve(sockets=[listener])
