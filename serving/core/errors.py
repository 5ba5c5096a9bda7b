"""The refusals that only serving knows; the shared tree is in `schemas.errors`."""

from schemas.errors import ModelError, ThumbwheelError


class QueueFull(ThumbwheelError):
    """More requests wait than the queue holds; try again a little later."""


class PromptRefused(ThumbwheelError):
    """A prompt that the model can't take: too long, or not as its chat template wants it."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class VersionNotLoaded(ModelError):
    """The version that should answer is not in memory."""


class GenerationFailed(ModelError):
    """The engine failed in the middle of an answer; others went on."""


class EngineStopped(ModelError):
    """The engine is shutting down."""
