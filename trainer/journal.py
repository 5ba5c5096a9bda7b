"""What the folders of cycles say: how each began and how it ended. Light: reading it brings no torch."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from schemas.cycles import Cost, CycleStatus, Trigger


class Frozen(BaseModel):
    """Closed and frozen; figures may be NaN here (the gates refuse such a version, the record tells of it)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Environment(Frozen):
    """What ran the cycle. The same weights come out again on the same of these."""

    python: str
    torch: str
    transformers: str
    peft: str
    platform: str
    processor: str


class BaseModelInfo(Frozen):
    """The frozen base. `sha256` is of its safetensors, file after file in order of name; None for a remote id."""

    name: str
    path: str
    sha256: str | None


class Outcome(Frozen):
    """`outcome.json` in a cycle's folder: how it ended, and whether the log knows."""

    cycle_id: str
    status: CycleStatus
    version: str | None = None
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    generated_tokens: int = 0
    trained_tokens: int = 0
    device: str = "cpu"
    labels: int = 0
    """How many labels counted when the cycle pinned its tables; the trigger counts on from here."""
    conclusive: bool = True
    """False where it was stopped, cut off, or failed for a reason outside of it: the same labels may be tried again."""
    stopped: bool = False
    """Somebody asked it to stop: no failure, so nothing waits because of it."""
    trigger: Trigger | None = None
    money: float | None = None
    currency: str | None = None
    stages: dict[str, Cost] = Field(default_factory=dict[str, Cost])
    """What each stage cost."""
    tries: int = 1
    """How many processes worked on it: more than one where it was resumed."""
    ended_at: datetime
    announced: bool = False


class CycleStart(Frozen):
    """`cycle.json` in a cycle's folder, written before anything else; again with one more try when it is resumed.

    What follows `tables` decides whether a process may go on where another died; None in folders of older releases.
    """

    cycle_id: str
    started_at: datetime
    pid: int
    parent: str
    labels: int
    tables: dict[str, int | None]
    trigger: Trigger | None = None
    why: str = ""
    tries: int = 1
    host: str = ""
    code_version: str | None = None
    environment: Environment | None = None
    base_model: BaseModelInfo | None = None


class Approval(Frozen):
    """`approval.json` in a version's folder: what a person decided of it, or that nobody did in time."""

    approved: bool
    actor: str
    reason: str = ""
    at: datetime
