"""When to try again: which answers of a server are worth it, and after how long. No clock and no chance in here:
both are arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_RETRY_AFTER = 300.0
"""Seconds. A server that asks for more is asked again after this time: the application may not live that long."""

_BUSY = frozenset({408, 425, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: uniform between 0 and a ceiling that doubles with each failure.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("Full Jitter"). Times are in seconds.
    """

    first: float = 0.5
    longest: float = 60.0

    def ceiling(self, failures: int) -> float:
        """The longest wait after that many failures in a row (1 or more)."""
        # 2 ** 1100 is no float any more; 2 ** 40 times the shortest first wait is beyond any ceiling already.
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 40))

    def delay(self, failures: int, chance: float, retry_after: float | None = None) -> float:
        """How long to wait; `chance` is uniform in [0, 1). A server's Retry-After is the least that is waited."""
        jittered = self.ceiling(failures) * chance
        return jittered if retry_after is None else max(jittered, min(retry_after, LONGEST_RETRY_AFTER))


def is_busy(status: int) -> bool:
    """Whether the service as a whole can't take anything now; no single event is to blame."""
    return status in _BUSY


def is_worth_a_retry(status: int) -> bool:
    """Whether the same request may succeed later: 408, 425, 429 and every 5xx."""
    return status in _BUSY or status >= 500


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that `Retry-After` asks for: a number or an HTTP date (RFC 9110, 10.2.3); None if it says neither."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
