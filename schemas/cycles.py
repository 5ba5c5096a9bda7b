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


class Cost(Closed):
    """What a cycle or a stage has used so far. Seconds are wall seconds on the device that ran it."""

    seconds: Annotated[float, Field(ge=0)]
    generated_tokens: Annotated[int, Field(ge=0)] = 0
    trained_tokens: Annotated[int, Field(ge=0)] = 0
    device: Identifier = "cpu"


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

    @property
    def partition_key(self) -> str:
        return self.cycle_id
