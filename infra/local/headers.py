"""A message's headers, from a client that can't always hand them over.

Where a header's name is not UTF-8, confluent-kafka 2.16.1 returns half a list with an error pending. Called by
`methodcaller`, the interpreter always checks for that; a plain `message.headers()` in a place that runs often is
specialised, the check left out, and the process dies (CPython 3.11). `streams.sink` does the same.
"""

from operator import methodcaller
from typing import TYPE_CHECKING

from confluent_kafka import Message

from schemas.errors import InvalidEvent

if TYPE_CHECKING:
    from confluent_kafka._types import HeadersType

_HEADERS = methodcaller("headers")


def readable_headers(message: Message) -> "HeadersType":
    """The headers, in their order and with repeats; raises `InvalidEvent` where a name is no text."""
    try:
        return _HEADERS(message) or []
    except SystemError as error:
        raise InvalidEvent("header_name", "a header's name is not UTF-8") from error
