"""Keeps the version that should serve in memory, and says which one serves.

A thread of its own loads adapters, so that neither the version feed nor the event loop waits for a disk. While
the wanted version is loading, or when its adapter is damaged, the one that served before goes on.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.errors import CorruptAdapter, ModelError
from schemas.versions import BASE_VERSION, Board, ModelVersion
from serving.adapters.metrics import GatewayMetrics
from serving.core.routing import Service, service

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""A version that could not be loaded is tried again after this long: its files may have been on their way."""


class Loader(Protocol):
    """The engine, as far as its adapters go."""

    def load(self, event: ModelVersion, timeout: float) -> None: ...
    def loaded(self) -> Sequence[str]: ...
    def keep(self, versions: frozenset[str]) -> None: ...


class VersionKeeper:
    """Follows the board: `serving` is the version for unpinned requests, at any moment one that is in memory."""

    def __init__(
        self,
        engine: Loader,
        *,
        metrics: GatewayMetrics,
        load_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._load_timeout = load_timeout
        self._clock = clock
        self._board = Board()
        self._serving = BASE_VERSION
        self._failures: dict[str, tuple[ModelVersion, float, str]] = {}
        self._loading = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="version-keeper", daemon=True)
        metrics.live.info({"version": BASE_VERSION})

    @property
    def board(self) -> Board:
        return self._board

    @property
    def serving(self) -> str:
        return self._serving

    @property
    def settled(self) -> bool:
        """Whether the version that serves is the one that the board wants, as far as it can be loaded."""
        return self._settled.is_set()

    def problem(self) -> str | None:
        """Why the live version does not serve, or None."""
        live = self._board.live()
        failure = self._failures.get(live.version) if live and live.version != self._serving else None
        return failure[2] if failure else None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(5.0)

    def follow(self, board: Board) -> None:
        """Take note of a new board; returns at once."""
        self._board = board
        self._settled.clear()
        self._wake.set()

    async def ensure(self, version: str) -> None:
        """Bring a pinned version into memory; raises `ModelError`."""
        if version not in self._engine.loaded():
            await asyncio.to_thread(self._load, self._board.get(version))

    def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            self._settle()
            self._wake.wait(RETRY_SECONDS if self._failures else None)

    def _settle(self) -> None:
        """Load what is wanted, one after the other, until nothing is."""
        while not self._closing:
            board = self._board
            due = service(board, loaded=self._engine.loaded(), failed=self._failed(board), current=self._serving)
            self._serve(due, board)
            if due.load is None:
                if board is self._board:
                    self._settled.set()
                return
            self._try(board.get(due.load))

    def _serve(self, due: Service, board: Board) -> None:
        fallback = board.fallback()
        self._engine.keep(frozenset({due.serving, *([fallback.version] if fallback else [])}))
        if due.serving != self._serving:
            logger.info("serving another version", extra={"version": due.serving, "before": self._serving})
            self._serving = due.serving
            self._metrics.live.info({"version": due.serving})

    def _try(self, event: ModelVersion) -> None:
        try:
            self._load(event)
        except ModelError as error:
            self._failures[event.version] = (event, self._clock(), str(error))
            logger.error("can't serve version %s: %s", event.version, error, extra={"version": event.version})

    def _load(self, event: ModelVersion) -> None:
        with self._loading:
            if event.version in self._engine.loaded():
                return
            started = self._clock()
            try:
                self._engine.load(event, self._load_timeout)
            except ModelError as error:
                self._metrics.adapter_loads.labels("corrupt" if isinstance(error, CorruptAdapter) else "failed").inc()
                raise
            self._failures.pop(event.version, None)
            self._metrics.adapter_loads.labels("ok").inc()
            extra = {"version": event.version, "seconds": round(self._clock() - started, 3)}
            logger.info("adapter loaded", extra=extra)

    def _failed(self, board: Board) -> set[str]:
        """Versions not to be tried now: they failed a moment ago, and nothing new was said of their files."""
        now = self._clock()
        return {
            version
            for version, (event, at, _) in self._failures.items()
            if now - at < RETRY_SECONDS and _same_files(board.standings[version].event, event)
        }


def _same_files(a: ModelVersion, b: ModelVersion) -> bool:
    return (a.adapter_path, a.adapter_sha256) == (b.adapter_path, b.adapter_sha256)
