"""The end of a lab before its end, which the same command goes on from."""

from collections.abc import Callable

from schemas.errors import ThumbwheelError

Stop = Callable[[], bool]
"""Whether the lab was asked to stop."""


class Interrupted(ThumbwheelError):
    """The lab was asked to stop; what is finished is stored."""


def check(stop: Stop) -> None:
    """Raises `Interrupted` where the lab was asked to stop."""
    if stop():
        raise Interrupted("stopped")
