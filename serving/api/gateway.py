"""What the handlers work with, made once by the program and read-only for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from starlette.requests import Request

from schemas.consent import Purposes
from schemas.envelope import Event
from schemas.messages import Payload
from schemas.topics import Topic
from schemas.versions import Board
from serving.adapters.metrics import GatewayMetrics
from serving.adapters.redaction import Redaction
from serving.core.errors import EventTooLarge
from serving.core.generation import Engine
from serving.core.wire import Limits
from serving.gatekeeper import Asking, Gatekeeper

SOURCE = "thumbwheel/serving/gateway"


class Log(Protocol):
    """Where events go. See `serving.adapters.log.EventLog`."""

    def publish_buffered(self, topic: Topic, event: Event[Payload]) -> bool: ...
    async def publish_acknowledged(self, topic: Topic, event: Event[Payload], timeout: float) -> None: ...
    async def publish_all_acknowledged(
        self, topic: Topic, events: Sequence[Event[Payload]], timeout: float
    ) -> list[EventTooLarge | None]: ...
    def problem(self) -> str | None: ...
    def waiting(self) -> int: ...


class Keeper(Protocol):
    """Who serves. See `serving.keeper.VersionKeeper`."""

    @property
    def board(self) -> Board: ...
    @property
    def serving(self) -> str: ...
    @property
    def settled(self) -> bool: ...
    def problem(self) -> str | None: ...
    async def ensure(self, version: str) -> None: ...


class Feed(Protocol):
    """Whether the versions are known. See `serving.adapters.version_feed.VersionFeed`."""

    @property
    def caught_up(self) -> bool: ...


@dataclass(frozen=True)
class Gateway:
    """The parts behind the HTTP surface, and the few settings that handlers need.

    Answers and feedback have a log each: feedback is refused soon when the broker is away, answers wait for it.
    """

    engine: Engine
    keeper: Keeper
    feed: Feed
    outputs: Log
    feedback: Log
    metrics: GatewayMetrics
    gatekeeper: Gatekeeper
    redaction: Redaction
    default_purposes: Purposes
    limits: Limits
    base_model_name: str
    pin_rejected: bool
    max_body_bytes: int
    feedback_timeout_seconds: float
    oldest_feedback: timedelta
    started_at: int
    """Unix seconds."""


def asking_of(request: Request) -> Asking:
    """What the request shows of who sends it."""
    return asking_of_headers(dict(request.headers.raw), request.scope["client"])


def asking_of_headers(headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> Asking:
    """The same, of a plain ASGI request."""
    origin = headers.get(b"origin")
    return Asking(
        headers.get(b"authorization", b"").decode("latin-1"),
        client[0] if client else "",
        None if origin is None else origin.decode("latin-1"),
    )


def gateway_of(request: Request) -> Gateway:
    """The gateway that this request came to."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
