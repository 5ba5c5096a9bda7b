"""The error tree. A message says what was wrong, where, and what to do.

    ThumbwheelError
    ├── SettingsError          a setting or an argument that can't work
    ├── InvalidEvent           bytes that are no event of their topic; becomes a dead letter
    ├── BrokerUnavailable      the log doesn't answer, or not in time
    │   └── BufferFull         it doesn't answer and the buffer for it is full
    ├── TableConflict          another writer owns these rows now; drop what is buffered
    ├── DataGone               data that was pinned has been erased or vacuumed since
    ├── IllegalTransition      a model version can't go from this state to that one
    ├── UnknownVersion         no such model version
    ├── ModelError             a base model or an adapter that can't be used
    │   └── CorruptAdapter     its bytes are not those that were registered
    └── CycleError
        ├── LeaseHeld          another update cycle is running on this data folder
        ├── NotEnoughData      too few preferences to learn from
        ├── RewardFailed       a reward of the user's own gave no usable numbers, or none in time
        ├── GenerationFailed   a server that draws a training's answers gave none that can be used
        ├── PeerFailed         another process of the same training failed, or is gone
        └── BudgetSpent        the cycle reached its limit

A caller's mistake in a plain function is a `ValueError`; `assert` guards our own invariants only.
"""


class ThumbwheelError(Exception):
    """Whatever Thumbwheel raises on purpose; `str(error)` is fit to be shown to a user."""


class SettingsError(ThumbwheelError):
    """A setting or an argument that can't work."""


class InvalidEvent(ThumbwheelError):
    """Bytes that are no event of their topic.

    `reason` is a short, countable code (it becomes a metric label); the message holds the detail.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BrokerUnavailable(ThumbwheelError):
    """The log doesn't answer, or not in time."""


class BufferFull(BrokerUnavailable):
    """The log doesn't answer and the buffer for it is full."""


class TableConflict(ThumbwheelError):
    """Another writer owns these rows now; what is buffered must be dropped."""


class DataGone(ThumbwheelError):
    """Data that was pinned has been erased or vacuumed since."""


class IllegalTransition(ThumbwheelError):
    """A model version can't go from this state to that one."""


class UnknownVersion(ThumbwheelError):
    """No such model version."""


class ModelError(ThumbwheelError):
    """A base model or an adapter that can't be used."""


class CorruptAdapter(ModelError):
    """An adapter whose bytes are not those that were registered."""


class CycleError(ThumbwheelError):
    """An update cycle that can't go on."""


class LeaseHeld(CycleError):
    """Another update cycle is running on this data folder."""


class NotEnoughData(CycleError):
    """Too few preferences to learn from."""


class RewardFailed(CycleError):
    """A reward of the user's own gave no usable numbers, or none in time."""


class GenerationFailed(CycleError):
    """A server that draws a training's answers gave none that can be used, or none in time."""


class PeerFailed(CycleError):
    """Another process of the same training failed, or is gone."""


class BudgetSpent(CycleError):
    """The cycle reached its limit of time or tokens."""
