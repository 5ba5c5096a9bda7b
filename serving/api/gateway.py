"""What the handlers work with, made once by the program and read-only for them."""

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from schemas.envelope import Event
from schemas.messages import Payload
from schemas.topics import Topic
from schemas.versions import Board
from serving.adapters.metrics import GatewayMetrics
from serving.core.generation import Engine
from serving.core.wire import Limits

SOURCE = "thumbwheel/serving/gateway"


class Log(Protocol):
    """Where events go. See `serving.adapters.log.EventLog`."""

    def publish_buffered(self, topic: Topic, event: Event[Payload]) -> bool: ...
    async def publish_acknowledged(self, topic: Topic, event: Event[Payload], timeout: float) -> None: ...
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
    limits: Limits
    base_model_name: str
    pin_rejected: bool
    max_body_bytes: int
    feedback_timeout_seconds: float
    started_at: int
    """Unix seconds."""


def gateway_of(request: Request) -> Gateway:
    """The gateway that this request came to."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
