"""Feedback on a language model's answers, from a Python application to Thumbwheel.

from thumbwheel_client import Thumbwheel

tw = Thumbwheel("http://127.0.0.1:8000")
tw.thumbs_up(answer, user="u42")
"""

from thumbwheel_client.async_client import AsyncThumbwheel
from thumbwheel_client.client import Thumbwheel
from thumbwheel_client.errors import (
    InvalidEvent,
    Rejected,
    SettingsError,
    SpoolError,
    ThumbwheelError,
    Unavailable,
)
from thumbwheel_client.events import Feedback, Kind, Message, Output
from thumbwheel_client.outbox import Stats
from thumbwheel_client.receipts import Receipt, Status
from thumbwheel_client.retry import Backoff

__all__ = [
    "AsyncThumbwheel",
    "Backoff",
    "Feedback",
    "InvalidEvent",
    "Kind",
    "Message",
    "Output",
    "Receipt",
    "Rejected",
    "SettingsError",
    "SpoolError",
    "Stats",
    "Status",
    "Thumbwheel",
    "ThumbwheelError",
    "Unavailable",
]
