"""A log without a broker, and a gateway around a real engine."""

from dataclasses import dataclass, field

from schemas.envelope import Event
from schemas.errors import BrokerUnavailable
from schemas.messages import Payload
from schemas.topics import Topic
from serving.adapters.engine_local import LocalEngine
from serving.adapters.metrics import GatewayMetrics
from serving.api.gateway import Gateway
from serving.core.wire import Limits
from serving.keeper import VersionKeeper


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

    def problem(self) -> str | None:
        return "the broker does not answer" if self.down else None

    def waiting(self) -> int:
        return 0


@dataclass
class KnownVersions:
    """A feed that has read everything."""

    caught_up: bool = True


def gateway(engine: LocalEngine, *, max_body_bytes: int = 20_000) -> Gateway:
    """A gateway over `engine` with logs in memory; its keeper runs until the process ends, or `keeper.close()`."""
    metrics = GatewayMetrics()
    keeper = VersionKeeper(engine, metrics=metrics, load_timeout=30.0)
    keeper.start()
    return Gateway(
        engine=engine,
        keeper=keeper,
        feed=KnownVersions(),
        outputs=MemoryLog(),
        feedback=MemoryLog(),
        metrics=metrics,
        limits=Limits(default_temperature=0.8, default_max_tokens=16, max_completion_tokens=64),
        base_model_name="tiny",
        pin_rejected=False,
        max_body_bytes=max_body_bytes,
        feedback_timeout_seconds=1.0,
        started_at=0,
    )
