"""What a broker can be told."""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingsError

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class BrokerOptions:
    """The command line of `python -m infra.broker`.

    `host` is where it listens and what it tells clients to connect to. Whoever reaches it may read and write
    everything: there is no authentication, so leave it on the loopback interface. Raises `SettingsError`.
    """

    data: Path
    port: int
    host: str = "127.0.0.1"
    auto_create_topics: bool = False
    default_partitions: int = 1
    """Of topics that are created without a number, or by themselves."""
    initial_rebalance_delay_ms: int = 50
    """How long the first member of an empty group waits for others; Kafka's default of 3000 would slow every start."""
    min_session_timeout_ms: int = 1_000
    max_session_timeout_ms: int = 1_800_000
    max_request_bytes: int = 100 * 1024 * 1024
    max_connections: int = 4096
    upkeep_seconds: float = 2.0
    """Between two looks at retention and compaction."""
    metrics_port: int = 0
    """0 turns the metrics page off."""

    def __post_init__(self) -> None:
        checks = (
            (1 <= self.port <= 65535, "--port must be between 1 and 65535", self.port),
            (0 <= self.metrics_port <= 65535, "--metrics-port must be between 0 and 65535", self.metrics_port),
            (1 <= self.default_partitions <= 10_000, "--partitions must be 1 to 10000", self.default_partitions),
            (self.initial_rebalance_delay_ms >= 0, "the delay can't be negative", self.initial_rebalance_delay_ms),
        )
        for holds, message, value in checks:
            if not holds:
                raise SettingsError(f"{message}; it is {value}")

    @property
    def advertised_host(self) -> str:
        """What clients are told to connect to."""
        return "127.0.0.1" if self.host in EVERYWHERE else self.host
