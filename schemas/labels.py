"""Topics `thumbwheel.label-tasks.v1` and `thumbwheel.labels.v1`: what labelers are asked, and what they answer."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.consent import Purposes
from schemas.messages import Closed, Fraction, Identifier, Payload, Prompt, Text
from schemas.outputs import ResponseId


class Candidate(Closed):
    """One side of a comparison. `response_id` is absent where the text was never served (imported data)."""

    completion: Text
    response_id: ResponseId | None = None
    version: Identifier | None = None


class LabelTask(Payload):
    """A comparison worth a human's look, and why it was chosen.

    The sides are already shuffled: a labeler must not learn from the side which version wrote it.
    `selection_probability` is the chance with which the selector took it; estimates over labels divide by it.
    `purposes` is what all its texts may be used for; a label of it says the same.
    """

    schema_name: ClassVar[str] = "label-tasks"

    task_id: Identifier
    prompt_id: Identifier
    prompt: Prompt
    left: Candidate
    right: Candidate
    reason: Literal["uncertain", "random", "imported"]
    uncertainty: Annotated[float, Field(ge=0)]
    selection_probability: Annotated[Fraction, Field(gt=0)]
    reward_model: Identifier | None = None
    purposes: Purposes | None = None

    @property
    def partition_key(self) -> str:
        return self.task_id


class Verdict(StrEnum):
    """A labeler's answer to a comparison."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


class Label(Payload):
    """A labeler's verdict, with the very texts that were shown.

    It repeats prompt and sides on purpose: a verdict is evidence about the text on the screen, and must
    outlive the task, which compaction may remove. `purposes` is what these texts may be used for.
    """

    schema_name: ClassVar[str] = "labels"

    task_id: Identifier
    labeler_id: Identifier
    verdict: Verdict
    prompt_id: Identifier
    prompt: Prompt
    left: Candidate
    right: Candidate
    reasons: tuple[Text, ...] = ()
    seconds_taken: Annotated[float, Field(ge=0)]
    guidelines_version: Identifier = "1"
    origin: Literal["labeler", "simulated", "imported"] = "labeler"
    purposes: Purposes | None = None

    @property
    def partition_key(self) -> str:
        return self.task_id
