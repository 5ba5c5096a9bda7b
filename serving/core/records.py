"""What clients send to be recorded: feedback, one by one or in a batch, and answers that were given elsewhere."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from schemas.consent import Purposes
from schemas.feedback import NEEDS_TEXT, FeedbackKind
from schemas.ids import RESPONSE_ID_PATTERN
from schemas.messages import ChatMessage, Identifier, Text
from schemas.outputs import FinishReason
from serving.core.metadata import Metadata, understood
from serving.core.wire import ClosedRequest, Limit, RequestMessage


class Usage(ClosedRequest):
    """How many tokens an answer took, as its provider counted them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)] | None = None


class OutputRequest(ClosedRequest):
    """The body of `POST /v1/outputs`: an answer that was given elsewhere, by any provider."""

    response_id: Annotated[str, Field(pattern=RESPONSE_ID_PATTERN)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=190)]
    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=200)]
    completion: Text
    user: Identifier | None = None
    metadata: Metadata | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_completion_tokens: Limit | None = None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls", "function_call"] | None = None
    usage: Usage | None = None
    latency_seconds: Annotated[float, Field(ge=0)] | None = None

    @field_validator("metadata")
    @classmethod
    def _understood_metadata(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        return understood(metadata)

    def chat_messages(self) -> tuple[ChatMessage, ...]:
        return tuple(message.chat_message() for message in self.messages)

    @property
    def ended(self) -> FinishReason:
        """Why it ended, in the two words that the log knows: an answer that a filter cut is one that was cut."""
        return "length" if self.finish_reason in ("length", "content_filter") else "stop"

    @property
    def output_tokens(self) -> int:
        return self.usage.completion_tokens if self.usage else 0


class FeedbackRequest(ClosedRequest):
    """The body of `POST /v1/feedback`. `id` makes a retry count once; the header Idempotency-Key does the same.

    With a `token` it may leave `response_id` out. `occurred_at` is when it was said, in RFC 3339 with a zone, where
    that is not now: what waited while a client was offline keeps its place (see `moments.moment_of`).
    """

    response_id: Annotated[str, Field(pattern=RESPONSE_ID_PATTERN)] | None = None
    kind: Annotated[FeedbackKind, Field(strict=False)]
    text: Text | None = None
    user: Identifier | None = None
    id: Identifier | None = None
    purposes: Annotated[Purposes, Field(max_length=16)] | None = None
    occurred_at: AwareDatetime | None = None
    token: Annotated[str | None, Field(min_length=1, max_length=4096, repr=False)] = None

    @model_validator(mode="after")
    def _text_where_it_is_the_point(self) -> "FeedbackRequest":
        if self.kind in NEEDS_TEXT and not (self.text or "").strip():
            raise ValueError(f"feedback of kind {self.kind.value} needs a non-empty text")
        return self


class BatchRequest(ClosedRequest):
    """The body of `POST /v1/feedback/batch`. Items are read one by one, so that a bad one doesn't spoil the others."""

    items: Annotated[list[Any], Field(min_length=1, max_length=500)]
