"""The topic table: what each topic holds, how it is cut, how long it is kept, and the table it ends in."""

from dataclasses import dataclass

from schemas.audit import Audit
from schemas.cycles import Cycle
from schemas.envelope import type_name
from schemas.feedback import Feedback
from schemas.health import Alert, Sli
from schemas.labels import Label, LabelTask
from schemas.messages import Payload
from schemas.outputs import Output
from schemas.preferences import Preference
from schemas.versions import ModelVersion

DAY_MS = 86_400_000
DLQ_SUFFIX = ".dlq"


@dataclass(frozen=True)
class Topic:
    """One topic. `retention_ms` is None for a compacted topic; `table` is where ingest stores it, if it does.

    `retention_bytes` bounds each partition, so that a broker on one machine can't fill the disk.
    """

    payload: type[Payload]
    key: str
    partitions: int
    retention_ms: int | None
    table: str | None
    retention_bytes: int = 1 << 30

    @property
    def name(self) -> str:
        return type_name(self.payload)

    @property
    def dlq(self) -> str:
        """The topic of this one's dead letters."""
        return self.name + DLQ_SUFFIX

    def config(self) -> dict[str, str]:
        """The topic's settings, as Kafka names them."""
        if self.retention_ms is None:
            return {"cleanup.policy": "compact"}
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(self.retention_bytes),
        }


OUTPUTS = Topic(Output, "response_id", 2, 7 * DAY_MS, "outputs")
FEEDBACK = Topic(Feedback, "response_id", 2, 7 * DAY_MS, "feedback")
LABEL_TASKS = Topic(LabelTask, "task_id", 1, None, None)
LABELS = Topic(Label, "task_id", 1, 30 * DAY_MS, "labels")
PREFERENCES = Topic(Preference, "prompt_id", 2, 7 * DAY_MS, None)
MODEL_VERSIONS = Topic(ModelVersion, "version", 1, None, "versions")
CYCLES = Topic(Cycle, "cycle_id", 1, 30 * DAY_MS, "cycles")
SLIS = Topic(Sli, "version/segment", 1, 7 * DAY_MS, "slis")
ALERTS = Topic(Alert, "fingerprint", 1, 30 * DAY_MS, "alerts")
AUDIT = Topic(Audit, "actor", 1, 365 * DAY_MS, "audit")

ALL = (OUTPUTS, FEEDBACK, LABEL_TASKS, LABELS, PREFERENCES, MODEL_VERSIONS, CYCLES, SLIS, ALERTS, AUDIT)
BY_NAME = {topic.name: topic for topic in ALL}
DLQ_RETENTION_MS = 14 * DAY_MS


def dlq_config() -> dict[str, str]:
    """The settings of every dead-letter topic, as Kafka names them."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(DLQ_RETENTION_MS),
        "retention.bytes": str(1 << 28),
    }


def plan() -> dict[str, tuple[int, dict[str, str]]]:
    """Every topic that must exist: its name, its number of partitions and its settings."""
    topics = {topic.name: (topic.partitions, topic.config()) for topic in ALL}
    return topics | {topic.dlq: (1, dlq_config()) for topic in ALL}
