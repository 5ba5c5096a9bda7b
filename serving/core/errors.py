"""The refusals that only serving knows; the shared tree is in `schemas.errors`."""

from schemas.errors import ModelError, ThumbwheelError


class QueueFull(ThumbwheelError):
    """More requests wait than the queue holds; try again a little later."""


class PromptRefused(ThumbwheelError):
    """A prompt that the model can't take: too long, or not as its chat template wants it."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class AccessRefused(ThumbwheelError):
    """A caller who is not known (401), or may not do this (403). The message repeats nothing of what was presented."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class RateLimited(ThumbwheelError):
    """More requests than the caller may send; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EventTooLarge(ThumbwheelError):
    """As an event it would be larger than the broker takes."""


class VersionNotLoaded(ModelError):
    """The version that should answer is not in memory."""


class GenerationFailed(ModelError):
    """The engine failed in the middle of an answer; others went on."""


class EngineStopped(ModelError):
    """The engine is shutting down."""
