"""One answer in the making: its random numbers, its text so far, and the way back to whoever asked."""

import asyncio
import os
import random
from collections.abc import Callable, Sequence

from schemas.outputs import FinishReason
from serving.core.generation import Job, Piece
from serving.core.text import StopFilter, TextStream


class Answer:
    """A request inside the engine. Made on the event loop's thread, advanced on the decoding thread."""

    def __init__(
        self,
        job: Job,
        *,
        prompt: Sequence[int],
        max_tokens: int,
        decode: Callable[[Sequence[int]], str],
        eos_ids: frozenset[int],
    ) -> None:
        self.job = job
        self.prompt = prompt
        self.cancelled = False
        self.finished = False
        self.next_token = -1
        self._max_tokens = max_tokens
        self._eos_ids = eos_ids
        self._generated = 0
        self._text = TextStream(decode)
        self._filter = StopFilter(job.sampling.stop)
        seed = job.sampling.seed
        self._random = random.Random(int.from_bytes(os.urandom(8), "big") if seed is None else seed)
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    def uniform(self) -> float:
        """The answer's next random number, in [0, 1)."""
        return self._random.random()

    def take(self, token: int) -> Piece:
        """Append a token; the piece of text that it completes (perhaps empty)."""
        self._generated += 1
        self.next_token = token
        if token in self._eos_ids:
            return self._last(self._text.finish(), "stop")
        text = self._text.push(token)
        if self._generated >= self._max_tokens:
            return self._last(text + self._text.finish(), "length")
        text = self._filter.push(text)
        if self._filter.stopped:
            return self._ended(text, "stop")
        return Piece(text, len(self.prompt), self._generated)

    def _last(self, text: str, reason: FinishReason) -> Piece:
        text = self._filter.push(text)
        return self._ended(text + self._filter.finish(), "stop" if self._filter.stopped else reason)

    def _ended(self, text: str, reason: FinishReason) -> Piece:
        self.finished = True
        return Piece(text, len(self.prompt), self._generated, reason)

    def send(self, piece: Piece | Exception) -> None:
        """Hand a piece (or why there won't be any) to the event loop."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def receive(self) -> Piece:
        """The next piece; raises what the engine sent instead."""
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise piece
        return piece
