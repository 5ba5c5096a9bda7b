"""The local engine: continuous batching of several versions of one base, on a thread of its own.

    event loop                         decoding thread
    ──────────                         ───────────────
    generate() ── tokenizes, queues ─► admit: prefill those who fit, join their version's group
                                       step:  one token for every row of each group in turn
    receives   ◄── pieces of text ──── leave: rows that ended, were cancelled, or failed
    load()     ── reads and checks ──► between two steps: put the adapter into the model

The queue is bounded: when it is full a request is refused at once, and nobody waits for nobody knows how long.
A request keeps the version it began with; a swap only changes which version later requests name.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch

from schemas.errors import ModelError
from schemas.versions import BASE_VERSION, ModelVersion
from serving.adapters.adapter_bank import AdapterBank, AdapterFiles, read_adapter
from serving.adapters.answers import Answer
from serving.adapters.base_model import BaseModel
from serving.adapters.decode_batch import DecodeBatch, prefill
from serving.adapters.metrics import GatewayMetrics
from serving.core.batching import Waiting, admit
from serving.core.errors import EngineStopped, GenerationFailed, PromptRefused, QueueFull, VersionNotLoaded
from serving.core.generation import Job, Piece
from serving.core.sampling import choose

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much the engine takes on at once."""

    max_batch: int
    max_queue: int
    max_prefill_tokens: int
    max_adapters: int
    threads: int


@dataclass(slots=True)
class _Group:
    """The answers of one version that advance together; rows and the batch's rows are in the same order."""

    answers: list[Answer]
    batch: DecodeBatch


class LocalEngine:
    """Answers from a base model and the adapters of its versions. See `serving.core.generation.Engine`."""

    def __init__(
        self,
        base: BaseModel,
        *,
        registry: Path,
        limits: EngineLimits,
        metrics: GatewayMetrics,
        signing_key: bytes | None = None,
    ) -> None:
        self._base = base
        self._registry, self._signing_key = registry, signing_key
        self._limits = limits
        self._metrics = metrics
        self._bank = AdapterBank(base.model, dtype=base.dtype, device=base.device)
        self._groups: dict[str, _Group] = {}
        self._wake = threading.Condition()
        # Shared with other threads, under the condition's lock:
        self._queue: list[Answer] = []
        self._arrivals: list[tuple[AdapterFiles, Future[None]]] = []
        self._keep: frozenset[str] = frozenset()
        self._loaded: tuple[str, ...] = (BASE_VERSION,)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def start(self) -> None:
        """Begin to decode."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step; what is still in flight fails with `EngineStopped`."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(10.0)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def loaded(self) -> Sequence[str]:
        return self._loaded

    def keep(self, versions: frozenset[str]) -> None:
        """Never drop the adapters of these versions."""
        with self._wake:
            self._keep = versions

    def load(self, event: ModelVersion, timeout: float) -> None:
        """Bring a version's adapter into memory; blocks, and decoding goes on meanwhile.

        Raises `CorruptAdapter` or `ModelError`; what was loaded before stays usable.
        """
        if event.version in self._loaded:
            return
        files = read_adapter(event, self._registry, self._signing_key)
        done: Future[None] = Future()
        with self._wake:
            if self._stopping:
                raise EngineStopped("the engine is shutting down")
            self._arrivals.append((files, done))
            self._wake.notify_all()
        try:
            done.result(timeout)
        except TimeoutError as error:
            raise ModelError(f"version {event.version} could not be loaded within {timeout:g} s") from error

    async def generate(self, job: Job) -> AsyncIterator[Piece]:
        """The answer, piece by piece. See `serving.core.generation.Engine`."""
        answer = await self._prepare(job)
        with self._wake:
            if self._stopping:
                raise EngineStopped("the gateway is shutting down; ask another one")
            if len(self._queue) >= self._limits.max_queue:
                raise QueueFull(f"{len(self._queue)} requests are waiting already; try again in a moment")
            self._queue.append(answer)
            self._metrics.queue.set(len(self._queue))
            self._wake.notify_all()
        try:
            piece = await answer.receive()
            while piece.finish_reason is None:
                yield piece
                piece = await answer.receive()
            yield piece
        finally:
            answer.cancelled = True

    async def _prepare(self, job: Job) -> Answer:
        prompt = await asyncio.to_thread(self._base.encode_prompt, job.messages)
        room = self._base.context_tokens - len(prompt)
        if room < 1:
            raise PromptRefused(
                f"the prompt has {len(prompt)} tokens; this gateway takes {self._base.context_tokens} for prompt and"
                " answer together, so shorten the messages",
                code="context_length_exceeded",
            )
        return Answer(
            job,
            prompt=prompt,
            max_tokens=min(job.sampling.max_tokens, room),
            decode=self._base.decode,
            eos_ids=self._base.eos_ids,
        )

    # Everything below runs on the decoding thread.

    def _run(self) -> None:
        if self._limits.threads:
            torch.set_num_threads(self._limits.threads)
        while self._wait_for_work():
            self._take_arrivals()
            self._drop_cancelled()
            for version, answers in self._admitted().items():
                self._guarded(answers, lambda v=version, a=answers: self._begin(v, a))
            for version, group in list(self._groups.items()):
                self._guarded(group.answers, lambda v=version, g=group: self._step(v, g))
            self._metrics.batch.set(self._running)
        self._fail_everything(EngineStopped("the gateway is shutting down; ask another one"))

    @property
    def _running(self) -> int:
        return sum(len(group.answers) for group in self._groups.values())

    def _wait_for_work(self) -> bool:
        """Block until there is something to do; False when the engine is to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._arrivals or self._groups or self._stopping)
            return not self._stopping

    def _take_arrivals(self) -> None:
        with self._wake:
            arrivals, self._arrivals = self._arrivals, []
            in_use = frozenset(a.job.version for a in self._queue) | frozenset(self._groups)
            keep = self._keep
        for files, done in arrivals:
            try:
                self._bank.add(files)
            except ModelError as error:
                done.set_exception(error)
                continue
            self._bank.evict(in_use=in_use, keep=keep | {files.version}, max_adapters=self._limits.max_adapters)
            self._loaded = (BASE_VERSION, *self._bank.loaded())
            self._metrics.adapters.set(len(self._loaded) - 1)
            done.set_result(None)

    def _drop_cancelled(self) -> None:
        with self._wake:
            self._queue = [answer for answer in self._queue if not answer.cancelled]
        for version, group in list(self._groups.items()):
            if any(answer.cancelled for answer in group.answers):
                self._retain(version, group, [not answer.cancelled for answer in group.answers])

    def _admitted(self) -> dict[str, list[Answer]]:
        """Take those who join now out of the queue, by version."""
        with self._wake:
            chosen = admit(
                [Waiting(answer.job.version, len(answer.prompt)) for answer in self._queue],
                running=self._running,
                max_batch=self._limits.max_batch,
                max_prefill_tokens=self._limits.max_prefill_tokens,
            )
            joining = {version: [self._queue[n] for n in positions] for version, positions in chosen.items()}
            taken = {n for positions in chosen.values() for n in positions}
            self._queue = [answer for n, answer in enumerate(self._queue) if n not in taken]
            self._metrics.queue.set(len(self._queue))
        return joining

    def _guarded(self, answers: Sequence[Answer], work: Callable[[], None]) -> None:
        """Do the work; if it fails these answers fail with it, and no others."""
        try:
            with torch.inference_mode():
                work()
        except VersionNotLoaded as error:
            self._fail(answers, error)
        except Exception as error:
            logger.exception("a step of the engine failed", extra={"answers": len(answers)})
            self._metrics.engine_errors.inc()
            self._fail(answers, GenerationFailed(f"the engine failed ({type(error).__name__}); try again"))

    def _begin(self, version: str, answers: list[Answer]) -> None:
        """Read the prompts, draw the first token of each, and join the version's group."""
        self._bank.activate(version)
        prompts = [answer.prompt for answer in answers]
        batch, logits_BV = prefill(self._bank.model, prompts, pad_id=self._base.pad_id, device=self._base.device)
        self._metrics.input_tokens.labels(version).inc(sum(map(len, prompts)))
        self._draw(version, answers, logits_BV)
        going_on = [n for n, answer in enumerate(answers) if not answer.finished]
        if not going_on:
            return
        if len(going_on) < len(answers):
            batch.keep(going_on)
        staying = [answers[n] for n in going_on]
        group = self._groups.get(version)
        if group is None:
            self._groups[version] = _Group(staying, batch)
            return
        group.batch.join(batch)
        group.answers = group.answers + staying

    def _step(self, version: str, group: _Group) -> None:
        """One more token for every row of the group."""
        self._bank.activate(version)
        tokens_B = torch.tensor([answer.next_token for answer in group.answers], device=self._base.device)
        logits_BV = group.batch.step(self._bank.model, tokens_B)
        self._draw(version, group.answers, logits_BV)
        if any(answer.finished for answer in group.answers):
            self._retain(version, group, [not answer.finished for answer in group.answers])

    def _draw(self, version: str, answers: Sequence[Answer], logits_BV: torch.Tensor) -> None:
        where = logits_BV.device
        tokens_B = choose(
            logits_BV,
            temperature_B=torch.tensor([a.job.sampling.temperature for a in answers], device=where),
            top_p_B=torch.tensor([a.job.sampling.top_p for a in answers], device=where),
            uniform_B=torch.tensor([a.uniform() for a in answers], device=where, dtype=torch.float64),
        )
        for answer, token in zip(answers, tokens_B.tolist(), strict=True):
            answer.send(answer.take(token))
        self._metrics.output_tokens.labels(version).inc(len(answers))

    def _retain(self, version: str, group: _Group, staying: Sequence[bool]) -> None:
        rows = [n for n, stays in enumerate(staying) if stays]
        if not rows:
            del self._groups[version]
            return
        with torch.inference_mode():
            group.batch.keep(rows)
        group.answers = [group.answers[n] for n in rows]

    def _fail(self, answers: Sequence[Answer], error: Exception) -> None:
        failed = set(map(id, answers))
        for version, group in list(self._groups.items()):
            # Rows that fail while they join are not in a group yet; those that fail in a step are all of it.
            if any(id(answer) in failed for answer in group.answers):
                failed.update(map(id, group.answers))
                answers = [*answers, *(a for a in group.answers if a not in answers)]
                del self._groups[version]
        for answer in answers:
            if not answer.finished:
                answer.send(error)

    def _fail_everything(self, error: Exception) -> None:
        with self._wake:
            waiting, self._queue = self._queue, []
            arrivals, self._arrivals = self._arrivals, []
        for group in self._groups.values():
            waiting.extend(group.answers)
        self._groups.clear()
        for answer in waiting:
            if not answer.finished:
                answer.send(error)
        for _, done in arrivals:
            done.set_exception(error)
