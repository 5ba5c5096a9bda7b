"""What the API asks of an engine, and what it hears from it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.messages import ChatMessage
from schemas.outputs import FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 takes the likeliest token; `seed` None draws a fresh one."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to be generated, by one version from its first token to its last."""

    response_id: str
    version: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Piece:
    """The next stretch of an answer. Token counts are totals so far; `finish_reason` is set on the last piece."""

    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: FinishReason | None = None


class Engine(Protocol):
    """Generates answers."""

    def generate(self, job: Job) -> AsyncIterator[Piece]:
        """The answer, piece by piece; leaving the iterator early cancels it.

        Raises `QueueFull`, `PromptRefused`, or a `ModelError` when the engine can't answer.
        """
        ...

    def loaded(self) -> Sequence[str]:
        """The versions in memory, `base` among them."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can generate at all."""
        ...
