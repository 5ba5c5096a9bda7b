"""Topic `thumbwheel.cycles.v1`: an update cycle, from its trigger to its version, with what it cost."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.messages import Closed, Fraction, Identifier, Payload


class Stage(StrEnum):
    """The stages of a cycle, in order."""

    PIN = "pin"
    REWARD_MODEL = "reward_model"
    POLICY = "policy"
    EVALUATE = "evaluate"
    REGISTER = "register"
    SCORE = "score"


class CycleStatus(StrEnum):
    """What an event says of its cycle. `refused`: it ended in order, and its version did not pass the gates."""

    STARTED = "started"
    PROGRESS = "progress"
    STAGE_DONE = "stage_done"
    FINISHED = "finished"
    REFUSED = "refused"
    FAILED = "failed"
    AWAITING_APPROVAL = "awaiting_approval"
    """Its version passed the gates and waits for a person; how that ends is told later, as finished or refused."""


class Trigger(StrEnum):
    """What began a cycle."""

    HAND = "hand"
    PREFERENCES = "preferences"
    SCHEDULE = "schedule"
    DRIFT = "drift"


class Cost(Closed):
    """What a cycle or a stage has used so far. Seconds are wall seconds on the device that ran it.

    `money` is the seconds at the price that was set, in `currency`; None where no price is known. `cpu_seconds` is
    the processor time of the process, `device_peak_bytes` the most memory that torch held on a GPU.
    """

    seconds: Annotated[float, Field(ge=0)]
    generated_tokens: Annotated[int, Field(ge=0)] = 0
    trained_tokens: Annotated[int, Field(ge=0)] = 0
    device: Identifier = "cpu"
    money: Annotated[float, Field(ge=0)] | None = None
    currency: Identifier | None = None
    cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    device_peak_bytes: Annotated[int, Field(ge=0)] | None = None


class Cycle(Payload):
    """One step of one update cycle. `fraction` is the share of the stage that is done."""

    schema_name: ClassVar[str] = "cycles"

    cycle_id: Identifier
    status: CycleStatus
    stage: Stage | None = None
    fraction: Fraction = 0.0
    version: Identifier | None = None
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    cost: Cost
    trigger: Trigger | None = None

    @property
    def partition_key(self) -> str:
        return self.cycle_id
