"""One line a minute and cause in the host application's log, however many events it concerns."""

import time
from collections.abc import Callable

_MOST_CAUSES = 200


class Throttle:
    """Says whether a line may be logged. The causes that it remembers are bounded."""

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: dict[str, float] = {}

    def allows(self, cause: str) -> bool:
        """Whether this cause was not logged within the last `seconds`."""
        now = self._clock()
        last = self._last.get(cause)
        if last is not None and now - last < self._seconds:
            return False
        if len(self._last) >= _MOST_CAUSES:
            self._last.clear()
        self._last[cause] = now
        return True
