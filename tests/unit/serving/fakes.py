"""A log without a broker, and a gateway around a real engine."""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from schemas.consent import EVERY_PURPOSE, Purposes
from schemas.envelope import Event
from schemas.errors import BrokerUnavailable
from schemas.messages import Payload
from schemas.topics import Topic
from schemas.versions import Board
from serving.adapters.engine_local import LocalEngine
from serving.adapters.metrics import GatewayMetrics
from serving.adapters.redaction import Redaction
from serving.adapters.secret_files import WatchedFile
from serving.api.gateway import Gateway, Keeper
from serving.core.access import AccessMode, ApiKey, ApiKeys
from serving.core.errors import EventTooLarge
from serving.core.generation import Engine, Job, Piece
from serving.core.tokens import SigningKey, TokenKeys
from serving.core.wire import Limits
from serving.gatekeeper import AccessPolicy, Gatekeeper
from serving.keeper import VersionKeeper
from thumbwheel_redaction import Redactor


@dataclass
class MemoryLog:
    """Keeps what is sent; while `down`, it refuses."""

    events: list[Event[Payload]] = field(default_factory=list)
    down: bool = False

    def publish_buffered(self, topic: Topic, event: Event[Payload]) -> bool:
        if not self.down:
            self.events.append(event)
        return not self.down

    async def publish_acknowledged(self, topic: Topic, event: Event[Payload], timeout: float) -> None:
        if self.down:
            raise BrokerUnavailable("the broker did not acknowledge")
        self.events.append(event)

    async def publish_all_acknowledged(
        self, topic: Topic, events: Sequence[Event[Payload]], timeout: float
    ) -> list[EventTooLarge | None]:
        for event in events:
            await self.publish_acknowledged(topic, event, timeout)
        return [None] * len(events)

    def problem(self) -> str | None:
        return "the broker does not answer" if self.down else None

    def waiting(self) -> int:
        return 0


@dataclass
class KnownVersions:
    """A feed that has read everything."""

    caught_up: bool = True


def token_keys(*names: str) -> TokenKeys:
    """Keys of these ids, a day between each and the next, the last made a day ago."""
    begin = datetime.now(UTC) - timedelta(days=len(names))
    return TokenKeys(
        keys=tuple(
            SigningKey(kid=name, secret=secrets.token_urlsafe(32), created=begin + timedelta(days=n))
            for n, name in enumerate(names)
        )
    )


def gatekeeper(
    *held: ApiKey,
    mode: AccessMode = AccessMode.AUTO,
    loopback: bool = True,
    tokens: TokenKeys | None = None,
    **more: Any,
) -> Gatekeeper:
    """A gatekeeper whose files are in memory."""
    nowhere = Path("/nonexistent")
    return Gatekeeper(
        AccessPolicy(mode=mode, loopback=loopback, **more),
        api_keys=WatchedFile(nowhere, ApiKeys, if_missing=ApiKeys(keys=held)),
        token_keys=WatchedFile(nowhere, TokenKeys, if_missing=tokens or token_keys("k1")),
    )


def gateway(
    engine: Engine,
    *,
    max_body_bytes: int = 20_000,
    keeper: Keeper | None = None,
    door: Gatekeeper | None = None,
    default_purposes: Purposes = EVERY_PURPOSE,
) -> Gateway:
    """A gateway over `engine` with logs in memory; its keeper runs until the process ends, or `keeper.close()`."""
    metrics = GatewayMetrics()
    if keeper is None:
        keeper = VersionKeeper(cast(LocalEngine, engine), metrics=metrics, load_timeout=30.0)
        keeper.start()
    return Gateway(
        engine=engine,
        keeper=keeper,
        feed=KnownVersions(),
        outputs=MemoryLog(),
        feedback=MemoryLog(),
        metrics=metrics,
        gatekeeper=door or gatekeeper(),
        redaction=Redaction(
            Redactor(), key=b"k" * 32, on_found=lambda kind, times: metrics.redacted.labels(kind).inc(times)
        ),
        default_purposes=default_purposes,
        limits=Limits(default_temperature=0.8, default_max_tokens=16, max_completion_tokens=64),
        base_model_name="tiny",
        pin_rejected=False,
        max_body_bytes=max_body_bytes,
        feedback_timeout_seconds=1.0,
        oldest_feedback=timedelta(days=30),
        started_at=0,
    )


@dataclass
class Parrot:
    """An engine that says one thing, in two pieces."""

    says: str = "fine"
    alive: bool = True

    def loaded(self) -> Sequence[str]:
        return ("base",)

    async def generate(self, job: Job) -> AsyncIterator[Piece]:
        half = len(self.says) // 2
        yield Piece(self.says[:half], 3, 1)
        yield Piece(self.says[half:], 3, 2, "stop")


@dataclass
class BaseOnly:
    """A keeper of no versions but the base."""

    board: Board = field(default_factory=Board)
    serving: str = "base"
    settled: bool = True

    def problem(self) -> str | None:
        return None

    async def ensure(self, version: str) -> None:
        pass
