"""The streams' settings, read once from the environment (prefix `THUMBWHEEL_`, nested by `__`)."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.connection import KafkaConnection

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class SelectionSettings(BaseModel):
    """How the selector fills the label queue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks_per_batch: Annotated[int, Field(ge=0)] = 12
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    seed: int = 0


class StreamSettings(BaseSettings):
    """What `ingest`, `refine` and `agents` need to know.

    `batch_rows` and `batch_seconds` bound a commit: the first is throughput, the second how fresh the tables are.
    `refine_rows` bounds a round for each partition, and so how long a stop can take.
    `instance_id` is a static group membership: a worker that comes back takes its own partitions at once, and nobody
    else does before its session has timed out. Each worker needs one of its own; without one membership is dynamic.
    A port of 0 means off.
    """

    model_config = SettingsConfigDict(env_prefix="THUMBWHEEL_", env_nested_delimiter="__", frozen=True, extra="ignore")

    data: Path = Path(".thumbwheel")
    kafka: KafkaConnection = KafkaConnection()
    instance_id: str | None = None
    group: str = "thumbwheel-ingest"
    batch_rows: Annotated[int, Field(ge=1)] = 10_000
    batch_seconds: Seconds = 1.0
    retry_seconds: Seconds = 1.0
    dedupe_window: Annotated[int, Field(ge=0)] = 100_000
    refine_seconds: Seconds = 1.0
    refine_rows: Annotated[int, Field(ge=1)] = 1_000
    orphan_after_seconds: Seconds = 600.0
    selection: SelectionSettings = SelectionSettings()
    compact_every_commits: Annotated[int, Field(ge=2)] = 100
    agents_instance_id: str | None = None
    agents_port: Port = 0
    agents_window_seconds: Seconds = 10.0
    agents_memory: Annotated[int, Field(ge=1)] = 200_000
    metrics_port: Port = 0
    log_level: str = "INFO"

    @property
    def lake(self) -> Path:
        """The lake's root: tables lie at `<root>/<layer>/<table>`."""
        return self.data / "lake"
