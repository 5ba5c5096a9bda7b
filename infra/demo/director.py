"""Runs a demo from an empty folder to its report.

    prepare ─► start ─► traffic ◄──► cycle ─► closing ─► drain ─► evaluate ─► report ─► done
      │          │         └── full speed; a trickle while a cycle trains
      │          │      closing: the last version's first answers   drain: until the tables hold what was acknowledged
      └──────────┴─ any step: a service that stays down, cycles that fail, a taste that raises ─► error, and which log
                    Ctrl-C ─► everything is stopped, the folder stays

Beside the director run: the traffic (one task), the labelers and the watcher (a thread each), the screen (one task).
The first of them that fails ends the demo, and its error is the demo's.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

import infra.settings
from infra.demo import summary
from infra.demo.evaluate import Evaluation, evaluate
from infra.demo.lake import Lake
from infra.demo.options import DemoOptions, Tuning, tuning_for
from infra.demo.progress import cycle_view, order_of, version_views
from infra.demo.screen import Screen
from infra.demo.state import DemoState, Rate, Said
from infra.demo.summary import Outcome, exactness
from infra.demo.watch import Watcher
from infra.local.stack import LocalStack, StackOptions
from infra.report import write_report
from infra.simulate import bad_events, prompts, tastes, users
from infra.simulate.client import GatewayClient
from infra.simulate.labelers import Labelers
from infra.simulate.tastes import Taste
from infra.simulate.traffic import Pace, Traffic, TrafficPlan
from schemas.errors import SettingsError, ThumbwheelError
from schemas.feedback import FeedbackKind
from schemas.versions import VersionState

FRAME_SECONDS = 0.5
LOOK_SECONDS = 0.2
DRAIN_SECONDS = 60.0
MOST_FAILED_CYCLES = 3
SAMPLE_SECONDS = 5.0


class DemoFailed(ThumbwheelError):
    """The demo could not run to its end; the message says which log to read."""


def main(options: DemoOptions) -> int:
    """Run a demo; the exit code. Raises `ThumbwheelError` for what stops it."""
    taste = tastes.load(options.taste)
    folder = _new_folder(options.data)
    console = Console(highlight=False)
    console.print(f"The demo's folder is {folder}")
    tuning = tuning_for(options.model)
    stack = LocalStack(_stack_options(options, tuning, folder), progress=console.print)
    with _log_to(folder / "logs" / "demo.log"):
        try:
            try:
                stack.start()
                outcome = asyncio.run(_Director(options, tuning, taste, stack, console).run())
            finally:
                # A second Ctrl-C must not leave half of the processes behind.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                stack.stop()
                signal.signal(signal.SIGINT, signal.default_int_handler)
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print(f"Interrupted: everything is stopped, and what was collected so far is in\n{folder}")
            return 130
    return _tell(outcome, folder, console)


class _Director:
    def __init__(self, options: DemoOptions, tuning: Tuning, taste: Taste, stack: LocalStack, console: Console) -> None:
        self._options, self._tuning, self._taste, self._stack = options, tuning, taste, stack
        self._screen = Screen(console, plain=options.plain or not console.is_terminal)
        self._lake = Lake(stack.data / "lake")
        self._watcher = Watcher(stack.kafka, self._lake)
        self._labelers = Labelers(
            stack.kafka, self._lake.label_queue, taste=taste, noise=options.noise, seed=options.seed
        )
        self._pace = Pace()
        self._phase, self._task = "starting", None
        self._began, self._started_at = time.monotonic(), datetime.now(UTC)
        self._samples: list[tuple[float, int, int]] = []
        self._traffic: Traffic

    async def run(self) -> Outcome:
        """The whole demo, with the screen on."""
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with GatewayClient(self._stack.gateway_url) as client:
            self._traffic = Traffic(self._plan(), client, pace=self._pace, clock=self._elapsed)
            with self._screen:
                return await self._directed(client)

    async def _directed(self, client: GatewayClient) -> Outcome:
        try:
            async with asyncio.TaskGroup() as group, _background(group) as background:
                background(self._show())
                background(self._look_after())
                await self._ready()
                quiet = threading.Event()
                try:
                    background(asyncio.to_thread(self._watcher.run, quiet))
                    await self._loop(group)
                    return await self._close(client)
                finally:
                    quiet.set()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures

    async def _ready(self) -> None:
        await asyncio.to_thread(self._stack.wait_until_ready)

    async def _loop(self, group: asyncio.TaskGroup) -> None:
        """Traffic until all cycles have ended and the last version has given some answers; then the tables catch up."""
        stop, off_duty = asyncio.Event(), threading.Event()
        traffic = group.create_task(self._traffic.run(stop))
        labeling = group.create_task(asyncio.to_thread(self._labelers.run, off_duty))
        try:
            await self._misbehave()
            await self._cycles()
            await self._closing()
        finally:
            stop.set()
            off_duty.set()
        await traffic
        await labeling
        self._pace.rate = None
        await self._drain()

    async def _misbehave(self) -> None:
        await self._traffic.misbehave()
        self._traffic.ledger.bad_on_purpose = await asyncio.to_thread(bad_events.send, self._stack.kafka)

    async def _cycles(self) -> None:
        ended, since = 0, time.monotonic()
        while ended < self._options.cycles or not self._watcher.seen.progress.settled():
            progress = self._watcher.seen.progress
            if len(progress.ended) > ended:
                ended, since = len(progress.ended), time.monotonic()
            self._phase = "training" if progress.running else "collecting thumbs"
            self._pace.rate = self._tuning.trickle if progress.running else None
            self._check_cycles(time.monotonic() - since)
            await asyncio.sleep(LOOK_SECONDS)

    def _check_cycles(self, waited: float) -> None:
        failed, log = self._watcher.seen.progress.failed, self._stack.logs / "trainer.log"
        if len(failed) >= MOST_FAILED_CYCLES:
            raise DemoFailed(f"{len(failed)} update cycles failed (the last one: {failed[-1].last.reason}); see {log}")
        if waited > self._tuning.cycle_timeout_seconds:
            raise DemoFailed(
                f"no update cycle ended for {waited:.0f} s; see {log} and {self._stack.logs / 'refine.log'}"
            )

    async def _closing(self) -> None:
        self._phase, self._pace.rate = "answers of the last version", None
        serving = self._watcher.seen.progress.serving or "base"
        ledger, wanted = self._traffic.ledger, self._tuning.closing_answers
        began = time.monotonic()
        while ledger.answers_of[serving] < wanted:
            self._task = ("answers of the last version", ledger.answers_of[serving] / wanted)
            if time.monotonic() - began > self._tuning.cycle_timeout_seconds:
                raise DemoFailed(
                    f"the gateway does not answer with {serving}, which is live; see {self._stack.logs / 'gateway.log'}"
                )
            await asyncio.sleep(LOOK_SECONDS)
        self._task = None

    async def _drain(self) -> None:
        """Wait until the tables hold all that was acknowledged, or until it is clear that they won't."""
        self._phase, deadline = "draining", time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            feedback, outputs = await asyncio.to_thread(self._exactness)
            labels = len(self._labelers.answered)
            missing = feedback.missing + outputs.missing + max(0, labels - self._lake.rows("labels"))
            known = feedback.acknowledged + outputs.acknowledged + labels
            self._task = ("waiting for the tables", 1 - missing / max(known, 1))
            if not missing and await asyncio.to_thread(self._joined):
                break
            await asyncio.sleep(1.0)
        self._task = None

    def _joined(self) -> bool:
        """Whether the join has caught up with the answers: one row at least for each."""
        return self._lake.rows("responses") >= len(self._traffic.ledger.response_ids)

    def _exactness(self) -> tuple[summary.Exactness, summary.Exactness]:
        ledger = self._traffic.ledger
        return (
            exactness(set(ledger.acknowledged), self._lake.feedback_ids()),
            exactness(ledger.response_ids, self._lake.response_ids()),
        )

    async def _close(self, client: GatewayClient) -> Outcome:
        self._phase = "comparing the versions"
        evaluation = await self._evaluate(client)
        self._phase, self._task = "writing the report", None
        outcome = await asyncio.to_thread(self._outcome, evaluation)
        summary.write(self._stack.data, summary.build(outcome))
        await asyncio.to_thread(write_report, self._stack.data)
        self._phase = "done"
        return outcome

    async def _evaluate(self, client: GatewayClient) -> Evaluation:
        standings = self._watcher.seen.progress.board.standings

        def report(share: float) -> None:
            self._task = ("held-out prompts", share)

        return await evaluate(
            client,
            sorted(standings, key=order_of),
            tuning=self._tuning,
            taste=self._taste,
            seed=self._options.seed,
            optional=frozenset(v for v, s in standings.items() if s.state is VersionState.REJECTED),
            on_progress=report,
        )

    def _outcome(self, evaluation: Evaluation) -> Outcome:
        feedback, outputs = self._exactness()
        return Outcome(
            options=self._options,
            tuning=self._tuning,
            started_at=self._started_at,
            seconds=self._elapsed(),
            progress=self._watcher.seen.progress,
            evaluation=evaluation,
            ledger=self._traffic.ledger,
            labels=len(self._labelers.answered),
            thumbs=self._lake.thumbs(),
            tables=self._watcher.counts(),
            dead_letters=self._lake.dead_letters(),
            feedback=feedback,
            outputs=outputs,
            samples=tuple(self._samples),
            restarts=self._restarts(),
        )

    async def _show(self) -> None:
        while True:
            self._sample()
            self._screen.show(self._state())
            await asyncio.sleep(FRAME_SECONDS)

    async def _look_after(self) -> None:
        while True:
            self._stack.check()
            await asyncio.sleep(1.0)

    def _sample(self) -> None:
        if not self._samples or self._elapsed() - self._samples[-1][0] >= SAMPLE_SECONDS:
            ledger, tables = self._traffic.ledger, self._watcher.seen.tables
            sent = ledger.answers + len(ledger.acknowledged) + len(self._labelers.answered)
            self._samples.append((self._elapsed(), sent, sum(tables.get(n, 0) for n in summary.BRONZE)))

    def _state(self) -> DemoState:
        ledger, seen = self._traffic.ledger, self._watcher.seen
        return DemoState(
            model=self._options.model,
            seed=self._options.seed,
            folder=str(self._stack.data),
            elapsed=self._elapsed(),
            phase=self._phase,
            cycles_wanted=self._options.cycles,
            cycles_ended=len(seen.progress.ended),
            answers=ledger.answers,
            feedback=len(ledger.acknowledged),
            labels=len(self._labelers.answered),
            retries=ledger.retries,
            bad_on_purpose=ledger.bad_on_purpose,
            topics=seen.topics,
            tables=seen.tables,
            dead_letters=seen.tables.get("dead_letters", 0),
            rates=tuple(
                Rate(v, ledger.thumbs[v, FeedbackKind.THUMBS_UP], ledger.thumbs[v, FeedbackKind.THUMBS_DOWN], n)
                for v, n in sorted(ledger.answers_of.items(), key=lambda item: order_of(item[0]))
            ),
            cycle=cycle_view(seen.progress),
            versions=version_views(seen.progress.board),
            serving=seen.progress.serving,
            said=tuple(Said(a.version, a.prompt, a.text, _THUMB.get(a.thumb)) for a in reversed(ledger.recent)),
            restarts=self._restarts(),
            task=self._task,
        )

    def _restarts(self) -> int:
        return sum(status.restarts for status in self._stack.processes())

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _plan(self) -> TrafficPlan:
        options, tuning = self._options, self._tuning
        return TrafficPlan(
            population=users.population(
                users=options.users, noise=options.noise, spammers=options.spammers, seed=options.seed
            ),
            prompts=prompts.traffic(),
            taste=self._taste,
            temperature=tuning.temperature,
            max_completion_tokens=tuning.max_completion_tokens,
            instruction=tuning.instruction,
            concurrency=tuning.concurrency,
            first_thumbs_after=tuning.first_thumbs_after,
            seed=options.seed,
        )


_THUMB = {FeedbackKind.THUMBS_UP: 1, FeedbackKind.THUMBS_DOWN: -1, None: None}


@contextlib.asynccontextmanager
async def _background(group: asyncio.TaskGroup) -> AsyncIterator[Callable[[Coroutine[None, None, None]], None]]:
    """Tasks that run for as long as the block does. Threads among them must be told to end by their own event."""
    tasks: list[asyncio.Task[None]] = []

    def begin(work: Coroutine[None, None, None]) -> None:
        tasks.append(group.create_task(work))

    try:
        yield begin
    finally:
        for task in tasks:
            task.cancel()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it: of those raised on purpose the first, otherwise the first of all."""
    found = failures.exceptions[0]
    wanted = failures.subgroup(ThumbwheelError)
    if wanted is not None:
        found = wanted.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _new_folder(asked: Path | None) -> Path:
    """The run's folder, absolute; raises `SettingsError` where it holds a run already."""
    folder = (asked or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}").expanduser().resolve()
    if (folder / "lake").exists() or (folder / summary.FILE).exists():
        raise SettingsError(f"{folder} holds a run already; name another folder by --data, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _stack_options(options: DemoOptions, tuning: Tuning, folder: Path) -> StackOptions:
    settings = infra.settings.load()
    kafka = settings.kafka if settings.names_a_broker else None
    if options.bootstrap_servers:
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": options.bootstrap_servers})
    return StackOptions(
        data=folder,
        model=options.model,
        models_dir=settings.models_folder(),
        kafka=kafka,
        environment=_environment(options, tuning),
    )


def _environment(options: DemoOptions, tuning: Tuning) -> dict[str, str]:
    """What the services are told beside their defaults. What the tuning says gives way to the user's environment."""
    return {
        "THUMBWHEEL_SEED": str(options.seed),
        # No more cycles than were asked for: the evaluation should have the machine for itself.
        "THUMBWHEEL_MAX_CYCLES": str(options.cycles),
        # The evaluation also asks versions that did not pass.
        "THUMBWHEEL_PIN_REJECTED": "true",
        # Two processes that each want both cores wait for one another.
        "THUMBWHEEL_THREADS": "1",
        "THUMBWHEEL_PPO__MAX_NEW_TOKENS": str(tuning.max_completion_tokens),
        "THUMBWHEEL_PPO__TEMPERATURE": str(tuning.temperature),
        **{name: value for name, value in tuning.told(os.cpu_count() or 1).items() if name not in os.environ},
    }


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send this process's own log to a file: the terminal belongs to the view."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _tell(outcome: Outcome, folder: Path, console: Console) -> int:
    """The last words: the verdict, and where the files are. The folder's path is the last line."""
    built = summary.build(outcome)
    exact = outcome.feedback.holds and outcome.outputs.holds
    console.print(f"\n[bold]{built['verdict']['headline']}[/bold] {built['verdict']['sentence']}")
    for version in built["versions"]:
        if version["win_rate_vs_base"] is not None and version["version"] != "base":
            low, high = version["win_rate_ci"]
            console.print(
                f"  {version['version']}: wins {version['win_rate_vs_base']:.0%} over the base "
                f"({low:.0%} to {high:.0%}), true taste {version['true_taste_mean']:.2f}, {version['state']}"
            )
    if not exact:
        console.print(f"[red]Acknowledged events are missing or doubled in the tables:[/red] {built['exactly_once']}")
    for name in ("report.html", summary.FILE):
        console.print(str(folder / name), soft_wrap=True)
    console.print(str(folder), soft_wrap=True)
    return 0 if exact else 1
