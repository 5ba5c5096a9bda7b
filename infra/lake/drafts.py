"""What a row of somebody's file says, before it is an event: texts that may still hold personal data.

Both are frozen and closed; `redacting` makes a draft without personal data of a draft, and `events` ordinary events.
"""

from dataclasses import dataclass
from datetime import datetime

from schemas.labels import Verdict
from schemas.messages import ChatMessage

Prompt = tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers to a prompt, and which of them someone preferred. `time` is None where the row doesn't say."""

    prompt: Prompt
    left: str
    right: str
    verdict: Verdict
    rater: str | None = None
    time: datetime | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer (None: a prompt alone) and what someone said of it: `thumb` is up, down, or nothing.

    `id` is the answer's own id in the log that it comes from, where that has one.
    """

    prompt: Prompt
    completion: str | None = None
    thumb: bool | None = None
    user: str | None = None
    time: datetime | None = None
    model: str | None = None
    comment: str | None = None
    correction: str | None = None
    id: str | None = None


Draft = Compared | Rated
