"""Topic `thumbwheel.feedback.v1`: what a user said or did about an answer."""

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import model_validator

from schemas.consent import Purposes
from schemas.messages import Identifier, Payload, Text
from schemas.outputs import ResponseId


class FeedbackKind(StrEnum):
    """A thumb, its withdrawal, words about the answer, or an implicit signal."""

    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    WITHDRAWAL = "withdrawal"
    COMMENT = "comment"
    CORRECTION = "correction"
    FLAG = "flag"
    COPY = "copy"
    EDIT = "edit"
    REGENERATE = "regenerate"


NEEDS_TEXT = frozenset({FeedbackKind.COMMENT, FeedbackKind.CORRECTION, FeedbackKind.EDIT})
THUMBS = frozenset({FeedbackKind.THUMBS_UP, FeedbackKind.THUMBS_DOWN})


class Feedback(Payload):
    """One thing said of one response by one user. A later thumb of the same user replaces the earlier one.

    `text` is the comment, the correction or the edited answer; a thumb or a flag may carry one as its reason.
    `credential` is the id of the API key or of the token's signing key under which it came: where one leaks, all that
    came by it can be found.
    """

    schema_name: ClassVar[str] = "feedback"

    response_id: ResponseId
    kind: FeedbackKind
    text: Text | None = None
    user_id: Identifier | None = None
    tenant: Identifier | None = None
    purposes: Purposes | None = None
    credential: Identifier | None = None

    @property
    def partition_key(self) -> str:
        return self.response_id

    @model_validator(mode="after")
    def _text_where_it_is_the_point(self) -> Self:
        if self.kind in NEEDS_TEXT and not (self.text or "").strip():
            raise ValueError(f"feedback of kind {self.kind.value} needs a non-empty text")
        return self
