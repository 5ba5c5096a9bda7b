"""The board of versions, kept up to date from its topic by a thread.

Reads partition 0 from its beginning, without a group: every process folds the whole topic, and the answer is the
same in all of them. After an empty poll it pauses fetching for a moment, since a broker without long polls would
otherwise be asked in a tight loop.
"""

import logging
import threading
import time
from collections.abc import Callable
from operator import methodcaller

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from schemas.connection import KafkaConnection
from schemas.envelope import decode
from schemas.errors import InvalidEvent
from schemas.topics import MODEL_VERSIONS
from schemas.versions import Board, ModelVersion

logger = logging.getLogger(__name__)

_PARTITION = TopicPartition(MODEL_VERSIONS.name, 0)


class VersionFeed:
    """Follows the version topic. `on_change` is called on the feed's thread with each new board."""

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        client_id: str,
        on_change: Callable[[Board], None],
        on_bad_event: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._config = connection.client_config() | {
            "client.id": client_id,
            "group.id": client_id,  # asked for by the client; with assign() and no commits it is never used
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._on_error,
            "logger": logging.getLogger("librdkafka"),
        }
        self._on_change = on_change
        self._on_bad_event = on_bad_event
        self._board = Board()
        self._last_log = 0.0
        self._caught_up = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="version-feed", daemon=True)

    @property
    def board(self) -> Board:
        """The board as far as it is known; a value, safe to keep."""
        return self._board

    @property
    def caught_up(self) -> bool:
        """Whether the topic was once read to its end."""
        return self._caught_up.is_set()

    def start(self) -> None:
        """Begin to read; a broker that is down is waited for."""
        self._thread.start()

    def wait_until_caught_up(self, timeout: float) -> bool:
        """Block until the topic was read to its end; False where that took longer."""
        return self._caught_up.wait(timeout)

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        consumer = Consumer(self._config)
        try:
            consumer.assign([TopicPartition(_PARTITION.topic, _PARTITION.partition, OFFSET_BEGINNING)])
            while not self._closing.is_set():
                self._take(consumer.consume(200, timeout=0.2))
        finally:
            consumer.close()

    def _take(self, messages: list[Message]) -> None:
        """Fold the messages."""
        board = self._board
        at_end = False
        for message in messages:
            error = message.error()
            if error is None:
                board = self._fold(board, message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end = True
            else:
                self._on_error(error)
        first_end = at_end and not self._caught_up.is_set()
        changed = board is not self._board
        self._board = board
        if at_end:
            self._caught_up.set()
        if changed or first_end:
            self._on_change(board)

    def _fold(self, board: Board, message: Message) -> Board:
        if message.value() is None:
            return board  # a tombstone: a compacted topic's way of forgetting
        try:
            event = decode(ModelVersion, message.value(), _headers(message))
        except InvalidEvent as error:
            logger.warning("passed over a bad version event: %s", error, extra={"offset": message.offset()})
            self._on_bad_event(error.reason)
            return board
        extra = {"event_id": event.id, "version": event.data.version, "state": event.data.state.value}
        logger.info("version event", extra=extra)
        return board.apply(event.data, event.time)

    def _on_error(self, error: KafkaError) -> None:
        if time.monotonic() - self._last_log > 10:
            self._last_log = time.monotonic()
            logger.warning("version feed: %s", error.str())


_raw_headers: Callable[[Message], list[tuple[str, str | bytes | None]] | None] = methodcaller("headers")
"""Called so, the client's failure is always seen: at a plain call that runs often Python 3.11 may pass over it."""


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    """A message's headers; raises `InvalidEvent` where the client can't turn their names into text."""
    try:
        return [(name, raw.encode() if isinstance(raw, str) else raw) for name, raw in _raw_headers(message) or []]
    except SystemError as error:
        raise InvalidEvent("header_name", "a header's name is not UTF-8") from error
