"""What came of sending one event."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Recorded:
    """Acknowledged: it is in the log for good."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused for good. `status` is the HTTP status, where there was one."""

    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. `after`: the seconds that the server asked for. `service`: the service as a whole was out of reach or
    too busy, so the event is not to blame."""

    reason: str
    after: float | None = None
    service: bool = True


@dataclass(frozen=True, slots=True)
class Alone:
    """The request was refused for one of its events: each is to be sent by itself."""


Outcome: TypeAlias = Recorded | Rejected | Retry | Alone
"""`Alone` and `Retry` leave the event waiting."""
