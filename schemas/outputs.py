"""Topic `thumbwheel.outputs.v1`: an answer given in production."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.consent import Purposes
from schemas.ids import RESPONSE_ID_PATTERN
from schemas.messages import Fraction, Identifier, Payload, Prompt, Text

ResponseId = Annotated[str, Field(pattern=RESPONSE_ID_PATTERN)]
FinishReason = Literal["stop", "length"]


class Output(Payload):
    """What was asked, what was answered, by which version, and how it was sampled.

    `routing_probability` is the chance with which the router chose this version for this request;
    off-policy estimates divide by it. `latency_seconds` runs from the request to the last token. Answers to one
    request (n > 1) share its `request_id`; one that was made only to be compared with what was served names that
    answer in `shadow_of`. `credential` is the id of the API key that asked.
    """

    schema_name: ClassVar[str] = "outputs"

    response_id: ResponseId
    prompt_id: Identifier
    prompt: Prompt
    completion: Text
    version: Identifier
    base_model: Identifier
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_completion_tokens: Annotated[int, Field(ge=1)]
    seed: int | None = None
    routing_probability: Annotated[Fraction, Field(gt=0)] = 1.0
    finish_reason: FinishReason
    input_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]
    latency_seconds: Annotated[float, Field(ge=0)]
    segment: Identifier = "default"
    user_id: Identifier | None = None
    regenerates: ResponseId | None = None
    request_id: Identifier | None = None
    shadow_of: ResponseId | None = None
    tenant: Identifier | None = None
    purposes: Purposes | None = None
    credential: Identifier | None = None

    @property
    def partition_key(self) -> str:
        return self.response_id
