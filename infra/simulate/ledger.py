"""What simulated users asked, read and said, and what the gateway acknowledged.

The exactly-once check holds it against the tables.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from schemas.feedback import FeedbackKind


@dataclass(frozen=True)
class Answer:
    """One answer as its reader saw it. `taste` is what the answer is worth to the users, before noise."""

    response_id: str
    prompt: str
    text: str
    version: str
    user_id: str
    taste: float
    thumb: FeedbackKind | None = None


@dataclass
class Ledger:
    """Counts and ids. `attempts` and `acknowledged` count the sendings of each feedback id.

    An id that was acknowledged must be in its table; no id may be there more often than it was sent.
    """

    answers: int = 0
    response_ids: set[str] = field(default_factory=set[str])
    attempts: Counter[str] = field(default_factory=Counter[str])
    acknowledged: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    thumbs: Counter[tuple[str, FeedbackKind]] = field(default_factory=Counter[tuple[str, FeedbackKind]])
    answers_of: Counter[str] = field(default_factory=Counter[str])
    retries: int = 0
    bad_on_purpose: int = 0
    refused_on_purpose: int = 0
    recent: deque[Answer] = field(default_factory=lambda: deque(maxlen=8))
    history: list[tuple[float, str, FeedbackKind | None]] = field(default_factory=list)
    """(seconds on the traffic's clock, version, thumb) of every answer, in order: for the time plot."""

    def answered(self, answer: Answer) -> None:
        """Count an answer that was received."""
        self.answers += 1
        self.answers_of[answer.version] += 1
        self.response_ids.add(answer.response_id)

    def read(self, answer: Answer, thumb: FeedbackKind | None, *, seconds: float, spam: bool) -> None:
        """Note what its reader thought of an answer; spam is sent, and not counted among the thumbs."""
        if spam:
            return
        if thumb is not None:
            self.thumbs[answer.version, thumb] += 1
        self.recent.append(Answer(**{**vars(answer), "thumb": thumb}))
        self.history.append((round(seconds, 2), answer.version, thumb))

    def acknowledge(self, feedback_id: str, kind: FeedbackKind) -> None:
        """Count feedback for which the gateway answered that the broker has it."""
        self.acknowledged[feedback_id] += 1
        self.kinds[kind.value] += 1

    @property
    def sent(self) -> int:
        """Events that were acknowledged or recorded: answers and feedback."""
        return self.answers + self.acknowledged.total()
