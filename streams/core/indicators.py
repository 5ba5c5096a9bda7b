"""Live indicators: answers, thumbs and latency by version and segment in tumbling windows.

They are for watching, not for deciding: a restart forgets the window that was open, and a replay counts again.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.feedback import FeedbackKind
from schemas.health import Sli

UNKNOWN = ("unknown", "unknown")
"""Version and segment of a thumb whose answer was not seen."""


@dataclass
class Count:
    """What was counted for one version and segment in one window."""

    outputs: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    latency_seconds_sum: float = 0.0


class Recent:
    """A bounded map from response id to (version, segment): the oldest is forgotten first."""

    def __init__(self, limit: int) -> None:
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._limit = limit

    def remember(self, response_id: str, version: str, segment: str) -> None:
        self._known[response_id] = (version, segment)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def get(self, response_id: str) -> tuple[str, str] | None:
        return self._known.get(response_id)


@dataclass(frozen=True, slots=True)
class Thumb:
    """A thumb on a response whose version is looked for, and when it was seen."""

    response_id: str
    kind: FeedbackKind
    seen: datetime


class Matcher:
    """Thumbs meet the versions of their answers. The two topics race, so a thumb waits a moment for its answer."""

    def __init__(self, recent: Recent, *, patience: timedelta) -> None:
        self._recent, self._patience = recent, patience
        self._waiting: list[Thumb] = []

    def add(self, thumb: Thumb) -> None:
        self._waiting.append(thumb)

    def due(self, now: datetime) -> list[tuple[Thumb, tuple[str, str]]]:
        """Thumbs with the version and segment of their answers; "unknown" for those that waited in vain."""
        found = [(t, self._recent.get(t.response_id)) for t in self._waiting]
        self._waiting = [t for t, place in found if place is None and now - t.seen < self._patience]
        return [(t, place or UNKNOWN) for t, place in found if place is not None or now - t.seen >= self._patience]


class Windows:
    """Tumbling windows of `seconds`, aligned to the epoch, by the time at which an event is counted."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[tuple[int, str, str], Count] = {}

    def output(self, version: str, segment: str, *, latency_seconds: float, at: datetime) -> None:
        count = self._count(version, segment, at)
        count.outputs += 1
        count.latency_seconds_sum += latency_seconds

    def thumb(self, version: str, segment: str, *, kind: FeedbackKind, at: datetime) -> None:
        count = self._count(version, segment, at)
        count.thumbs_up += kind is FeedbackKind.THUMBS_UP
        count.thumbs_down += kind is FeedbackKind.THUMBS_DOWN

    def closed(self, now: datetime) -> list[Sli]:
        """The indicators of every window that has ended, in order; they are counted no more."""
        ended = sorted(key for key in self._open if key[0] < self._index(now))
        return [self._sli(key, self._open.pop(key)) for key in ended]

    def _index(self, moment: datetime) -> int:
        return int(moment.timestamp() // self._seconds)

    def _count(self, version: str, segment: str, at: datetime) -> Count:
        return self._open.setdefault((self._index(at), version, segment), Count())

    def _sli(self, key: tuple[int, str, str], count: Count) -> Sli:
        index, version, segment = key
        return Sli(
            version=version,
            segment=segment,
            window_start=datetime.fromtimestamp(index * self._seconds, UTC),
            window_end=datetime.fromtimestamp((index + 1) * self._seconds, UTC),
            outputs=count.outputs,
            thumbs_up=count.thumbs_up,
            thumbs_down=count.thumbs_down,
            latency_seconds_sum=count.latency_seconds_sum,
        )
