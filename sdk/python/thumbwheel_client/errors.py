"""The one error tree of the SDK.

ThumbwheelError
├── InvalidEvent      (ValueError) something that can't be sent as it is: a caller's mistake
├── SettingsError     (ValueError) the client can't be made with these settings
├── Unavailable       the service did not take an event within the time given; sending it again is safe
├── Rejected          the service refused an event; sending it again won't help
└── SpoolError        the spool's folder can't be used
"""


class ThumbwheelError(Exception):
    """Everything that this SDK raises on purpose."""


class InvalidEvent(ThumbwheelError, ValueError):
    """Feedback or an answer that can't be sent as it is."""


class SettingsError(ThumbwheelError, ValueError):
    """Settings with which no client can be made."""


class Unavailable(ThumbwheelError):
    """The service did not take the event within the time given. Under the same `id` it may be sent again."""


class Rejected(ThumbwheelError):
    """The service refused the event for good. `status` is the HTTP status, where there was one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SpoolError(ThumbwheelError):
    """The spool's folder can't be used."""
