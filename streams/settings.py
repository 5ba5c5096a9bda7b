"""The streams' settings, read once from the environment (prefix `THUMBWHEEL_`, nested by `__`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.storage import LakeRoot, root_setting

Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(ge=1)]
Minutes = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]

EXPIRING: Final = ("dead_letters", "slis", "alerts", "cycles", "audit")
"""The tables whose rows may expire: nothing is computed from them."""


class SelectionSettings(BaseModel):
    """How the selector fills the label queue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks_per_batch: Annotated[int, Field(ge=0)] = 12
    """Label tasks that are queued when a reward model has scored production answers."""
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """The share of them that is drawn at random, so that estimates over labels stay possible."""
    seed: int = 0
    """Of the random draw."""
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the rest that goes first to answers and their shadows, which no user can compare."""
    gold_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """So many gold questions come to the tasks where there is a file of them (`raters.gold_answers`), as a share of
    their number. With 5 % a labeler's 200 labels hold ten: nine right ones are chance in 1 of 93 cases."""


class RaterSettings(BaseModel):
    """How raters are held in check, and how they are weighed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    burst_limit: Annotated[int, Field(ge=1)] = 30
    """Different answers that a user may judge within `burst_seconds`; what is beyond counts for nothing."""
    burst_seconds: Seconds = 60.0
    """The sliding window of that, by the events' own times (never later than they were taken in)."""
    estimate_seconds: Annotated[float, Field(ge=0)] = 300.0
    """The pause between two estimates of the raters' weights; each writes a row for every rater that has changed."""
    window_days: Annotated[float, Field(gt=0)] = 90.0
    """The judgements that an estimate looks at: those of so many days. It bounds what an estimate costs."""
    cap: Annotated[int, Field(ge=1)] = 100
    """A user who judged more answers than that within the window weighs as one who judged so many: one a day."""
    gold_answers: Path | None = None
    """A JSON Lines file of questions with a known answer, which come among the label tasks and measure the labelers:
    `{"prompt", "left", "right", "chosen"}`, or `{"task_id", "chosen"}` of an earlier task. `chosen` null is neither."""


class StreamSettings(BaseSettings):
    """What `ingest`, `refine` and `agents` need to know. A port of 0 means off."""

    model_config = SettingsConfigDict(env_prefix="THUMBWHEEL_", env_nested_delimiter="__", frozen=True, extra="ignore")

    data: Path = Path(".thumbwheel")
    """The data folder of this machine."""
    lake_options: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)
    """For a lake in a store: options of its client as a JSON object, beside the usual `AWS_*` variables."""
    lake: Annotated[LakeRoot, NoDecode, PlainValidator(root_setting)] = Field(
        default="{data}/lake",
        validate_default=True,  # type: ignore[assignment]
    )
    """Where the tables lie: a folder, or `s3://bucket/prefix` of a store with conditional put (docs/reference)."""
    kafka: KafkaConnection = KafkaConnection()
    instance_id: str | None = None
    """A static group membership of ingest, another for each worker: one that comes back takes its own partitions at
    once, and nobody else does before its session has timed out. Without one membership is dynamic."""
    group: str = "thumbwheel-ingest"
    """The consumer group of ingest."""
    batch_rows: Annotated[int, Field(ge=1)] = 50_000
    """Rows at which ingest commits what waits for a table (a tenth of them when nothing more has come): throughput."""
    batch_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    """Bytes at which it does: memory, where messages are large."""
    batch_seconds: Seconds = 1.0
    """The age at which it does: how fresh the tables are. Where a commit takes more than a quarter of it, it waits for
    four times as long as a commit takes."""
    retry_seconds: Seconds = 1.0
    """How long it waits before it tries again what could not be stored."""
    dedupe_window: Annotated[int, Field(ge=0)] = 100_000
    """Event ids that are remembered for each partition; a repeat that comes later is a second row, which silver and
    gold count once."""
    refine_seconds: Seconds = 1.0
    """The pause between two rounds of refine that found nothing more to do."""
    refine_rows: Annotated[int, Field(ge=1)] = 1_000
    """The rows of each partition that a round takes, and so how long a stop can take."""
    orphan_after_seconds: Seconds = 600.0
    """How long feedback waits for its answer before it is reported as a dead letter; if that comes, it still counts."""
    selection: SelectionSettings = SelectionSettings()
    raters: RaterSettings = RaterSettings()
    compact_every_commits: Annotated[int, Field(ge=2)] = 100
    """Commits of a table after which its small files are made one."""
    compact_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """The size that compaction makes files of; what is that large is not touched again."""
    upkeep_seconds: Seconds = 3600.0
    """How often expired rows, files of versions that nobody needs any more, and old log entries are removed."""
    keep_versions_days: Days = 30.0
    """How long the data files that an update cycle has read stay, so that its version can be made again and compared
    with (`tables diff NAME v3`)."""
    keep_files_days: Days = 1.0
    """How long other files that compaction has replaced stay for readers. The rows stay, of course. The names of these
    files are in every checkpoint of the table: a day at a commit a second is 86,400 of them, and 0.2 s a checkpoint."""
    keep_log_minutes: Minutes = 15.0
    """How long every version of a silver or gold table can be opened by its number. Each commit looks at all that are
    kept: 15 ms for a thousand, and refine makes one a second while traffic flows."""
    keep_bronze_log_minutes: Minutes = 10.0
    """The same for a bronze table, of which ingest makes a version a second."""
    retention_days: Mapping[str, Days] = Field(default_factory=lambda: {"dead_letters": 90.0})
    """Days after which a table's rows expire, as a JSON object by table name (dead_letters, slis, alerts, cycles,
    audit); a table that is not named keeps them. What other tables are computed from never expires: it is erased."""
    agents_instance_id: str | None = None
    """A static group membership of the agents."""
    agents_port: Port = 0
    """The port of Faust's own page."""
    agents_window_seconds: Seconds = 10.0
    """The length of an indicator's window."""
    agents_memory: Annotated[int, Field(ge=1)] = 200_000
    """Answers whose version and segment the agents remember for thumbs that come late."""
    metrics_port: Port = 0
    """Where `/metrics` and `/ready` answer, on 127.0.0.1."""
    log_level: str = "INFO"
    """Of the log on stderr."""

    @field_validator("retention_days")
    @classmethod
    def _only_what_nothing_is_computed_from(cls, days: Mapping[str, float]) -> Mapping[str, float]:
        wrong = sorted(set(days) - set(EXPIRING))
        if wrong:
            raise ValueError(
                f"rows of {', '.join(wrong)} can't expire, because other tables are computed from them or readers"
                f" count on them; only these can: {', '.join(EXPIRING)}"
            )
        return days
