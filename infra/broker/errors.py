"""What is answered with an error code of the protocol."""

from collections.abc import Callable

from kio.schema.errors import ErrorCode


class BrokerError(Exception):
    """A request, or a part of it, that is refused: its error code and a sentence for the client's log."""

    def __init__(self, code: ErrorCode, message: str = "") -> None:
        super().__init__(message or code.name)
        self.code = code


def outcome(work: Callable[[], None]) -> tuple[ErrorCode, str | None]:
    """The error code and message of some work."""
    try:
        work()
    except BrokerError as error:
        return error.code, str(error)
    return ErrorCode.none, None
