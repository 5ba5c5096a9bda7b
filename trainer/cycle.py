"""An update cycle: from the tables to a version that is registered, or refused by its gates.

    pin ─► reward_model ─► policy ─► evaluate ─► register ─► score
     │         │             │          │           │          └ gold.scores of recent answers
     │         │             │          │           └ registry/<version>/ whole on disk, THEN its event (outbox: sent
     │         │             │          │             again at the next start if the log did not acknowledge it)
     │         │             │          └ held-out prompts, judged by other people's labels; the gates decide
     │         │             └ PPO from the parent's adapter, held to its KL budget
     │         └ ensemble of heads on the training raters' labels; the judge on the other raters'
     └ versions of gold and silver, their files held before they are read; the parent is the version that is live

One cycle at a time: a lease on the data folder. Every cycle ends in an `outcome.json`; one without it was cut off. The
next process that takes the lease goes on with it, under the same id, seed and pins, from what is finished of it; where
it can't (`_obstacle`) it closes it as failed. A killed cycle comes to the same weights as one that was not.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deltalake.exceptions import DeltaError

from schemas.cycles import Cost, Cycle, CycleStatus, Stage, Trigger
from schemas.envelope import new_event
from schemas.errors import (
    BrokerUnavailable,
    BudgetSpent,
    CycleError,
    DataGone,
    GenerationFailed,
    ModelError,
    PeerFailed,
    ThumbwheelError,
)
from schemas.ids import new_cycle_id, new_event_id
from schemas.versions import BASE_VERSION
from trainer import scoring
from trainer.adapters import environment, new_labels, vllm
from trainer.adapters.answers_file import load_safety_file, same_safety_file
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import CycleFolder, Cycles
from trainer.adapters.events import SOURCE, Events
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.files import sha256_of, write_lines
from trainer.adapters.lake import Pinned, TrainerLake
from trainer.adapters.pins import Pins
from trainer.adapters.policies import LanguageModel, save_adapter
from trainer.adapters.processes import Processes
from trainer.adapters.registry import (
    ADAPTER_FILE,
    EVIDENCE_FILE,
    JUDGE_FILE,
    PINS_FILE,
    REWARD_FILE,
    SAFETY_FILE,
    Registry,
    version_event,
)
from trainer.adapters.rewards import ExtraReward, load_reward, same_reward
from trainer.adapters.signing import signer
from trainer.core import gates, triggers
from trainer.core.budget import Spent
from trainer.core.cost import Month, of_month
from trainer.core.dataset import SplitConfig, countable
from trainer.core.domains import By
from trainer.core.evidence import evidence
from trainer.domain_figures import domain_infos
from trainer.figures import candidate, measured
from trainer.kept_features import kept_features
from trainer.learning import Learned
from trainer.metrics import Metrics
from trainer.outcomes import AWAITING, Closer, Obstacle, finite_figures, status_of
from trainer.records import BaseModelInfo, CycleStart, Outcome, RewardModelInfo, VersionRecord
from trainer.reward_trunks import parent_trunk
from trainer.reward_trunks import save as save_trunk
from trainer.settings import CycleConfig, SafetyFile, TrainerSettings
from trainer.stages import Stages, Stopped
from trainer.together import leading

logger = logging.getLogger(__name__)

LoadBase = Callable[[], LanguageModel]
Now = Callable[[], datetime]


class Changed(CycleError):
    """A cycle that was cut off can't be gone on with: what decides its result is not what it was."""


class CycleRunner:
    """Runs cycles, one at a time. `load_base` gives a fresh base model for each."""

    def __init__(
        self,
        settings: TrainerSettings,
        events: Events,
        *,
        load_base: LoadBase,
        metrics: Metrics | None = None,
        now: Now = lambda: datetime.now(UTC),
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes
        self.settings, self.events, self.metrics = settings, events, metrics or Metrics()
        self.lake = TrainerLake(settings.lake)
        self.registry = Registry(settings.registry, signer(settings.signing_key_file))
        self._base: BaseModelInfo | None = None
        self.cycles = Cycles(settings.cycles)
        self.closer = Closer(self.cycles, self.registry, events, now=now)
        self._load_base, self._now = load_base, now

    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        *,
        trigger: Trigger = Trigger.HAND,
        why: str = "",
    ) -> Outcome:
        """One cycle, to its outcome: finished, awaiting approval, refused or failed. One that was cut off goes first.

        Raises `LeaseHeld` where another runs, `BrokerUnavailable` where the log is away before it begins, and
        `BudgetSpent` where the month's budget is used up.
        """
        with self._working():
            resumed = self._resumed(stop)
            if resumed is not None:
                return resumed
            self._require_budget()
            return self._begin(stop, trigger, why)

    def resume(self, stop: Callable[[], bool] = lambda: False) -> Outcome | None:
        """Go on with a cycle that was cut off; None where there is none. Raises as `run` does."""
        with self._working():
            return self._resumed(stop)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Under the lease, with everything closed and announced that can be."""
        with self.cycles.lease():
            self.closer.recover(self._obstacle)
            self.metrics.running.set(1)
            try:
                yield
            finally:
                self.metrics.running.set(0)

    def _resumed(self, stop: Callable[[], bool]) -> Outcome | None:
        for start in self.cycles.cut_off():
            outcome = self._resume(start, stop)
            if outcome is not None:
                return outcome
        return None

    def recover(self) -> None:
        """Close what nobody can go on with, and announce what the log has not heard. Raises `LeaseHeld`."""
        with self.cycles.lease():
            self.closer.recover(self._obstacle)

    def cut_off(self) -> bool:
        """Whether a cycle waits to be gone on with."""
        return bool(self.cycles.cut_off())

    def month(self) -> Month:
        """What the cycles that ended this month have used, and what they may."""
        ends = [(o.ended_at, spent_of(o)) for o in self.cycles.outcomes()]
        return Month(self.settings.month_limits(), of_month(ends, self._now()))

    def _require_budget(self) -> None:
        why = self.month().spent_up()
        if why is not None:
            raise BudgetSpent(why)

    def _obstacle(self, start: CycleStart) -> Obstacle | None:
        """Why this process can't go on with a cycle that was cut off, or None."""
        if start.tries >= self.settings.max_tries:
            return Obstacle(f"{start.tries} died of it by now: look into their logs; more memory helps most", True)
        if start.code_version != environment.code_version() or start.environment != environment.environment():
            return Obstacle("the code or what it runs on has changed since")
        if start.base_model != self._base_info():
            return Obstacle("the base model has changed since")
        if not self.cycles.folder(start.cycle_id).pins.is_file():
            return Obstacle("it had not pinned its tables")
        live = self.events.board().live()
        if start.parent != (live.version if live else BASE_VERSION):
            return Obstacle(f"another version than {start.parent} is live since")
        return None

    def _base_info(self) -> BaseModelInfo:
        if self._base is None:
            self._base = environment.base_model_info(self.settings.base_model_name, self.settings.base_model)
        return self._base

    def _begin(self, stop: Callable[[], bool], trigger: Trigger, why: str) -> Outcome:
        live = self.events.board().live()
        started_at = self._now()
        cycle_id = new_cycle_id(started_at)
        pins = self.lake.pins()
        self.lake.hold(cycle_id, pins)
        labels = self.lake.labels(pins)
        start = CycleStart(
            cycle_id=cycle_id,
            started_at=started_at,
            pid=environment.process_id(),
            host=environment.host(),
            parent=live.version if live else BASE_VERSION,
            labels=labels.height,
            tables=pins.versions(),
            trigger=trigger,
            why=why,
            code_version=environment.code_version(),
            environment=environment.environment(),
            base_model=self._base_info(),
        )
        folder = self.cycles.folder(cycle_id)
        folder.begin(start, pins.text())
        new_labels.keep_ids(folder, labels)
        self._started(start)
        return self._run(start, folder, pins, stop)

    def _resume(self, start: CycleStart, stop: Callable[[], bool]) -> Outcome | None:
        """Go on with a cycle that was cut off; None where it turns out that nobody can."""
        again = start.model_copy(
            update={"tries": start.tries + 1, "pid": environment.process_id(), "host": environment.host()}
        )
        folder = self.cycles.folder(start.cycle_id)
        folder.again(again)
        logger.info("going on with a cycle that was cut off", extra={"cycle": start.cycle_id, "try": again.tries})
        self._started(again)
        try:
            return self._run(again, folder, Pins.read(folder.pins), stop)
        except Changed as error:
            self.closer.announce(self.closer.close(start, Obstacle(str(error))))
            return None

    def _run(self, start: CycleStart, folder: CycleFolder, pins: Pins, stop: Callable[[], bool]) -> Outcome:
        keep = Checkpoints(folder.state, seconds=self.settings.checkpoint_seconds, usage=lambda: stages.usage())
        stages = Stages(
            start.cycle_id,
            budget=self.settings.budget(),
            events=self.events,
            metrics=self.metrics,
            stop=stop,
            month=self.month(),
            spent=keep.spent(),
            trigger=start.trigger,
            currency=self.settings.currency,
        )
        try:
            record = self._stages(stages, folder, start, keep, lambda: self._labels(pins))
            waits = record.version in {e.data.version for e in self.registry.awaiting()}
            reason = gates.refusal(record.gates) or (AWAITING if waits else "")
            figures = finite_figures(record.metrics)
            status = status_of(record, waits=waits)
            outcome = self._outcome(stages, start, status, version=record.version, reason=reason, figures=figures)
        except Changed:
            raise
        except (ThumbwheelError, DeltaError, OSError, RuntimeError, ValueError) as error:
            outcome = self._failed(stages, start, error)
            self._release(start.cycle_id, pins)
        folder.end(outcome)
        keep.discard()
        new_labels.forget_older(self.cycles)
        self.metrics.cycles.labels(outcome.status.value).inc()
        return self.closer.announce(outcome)

    def _failed(self, stages: Stages, start: CycleStart, error: Exception) -> Outcome:
        """The outcome of a cycle that broke off.

        What is wrong with its labels or its settings is wrong the next time too, so these labels are looked at; what
        came from outside (disk, device, an erasure) is tried again a few times, later and later (see
        `trainer.core.triggers`).
        """
        stopped = isinstance(error, Stopped)
        reason = str(error) or type(error).__name__
        unexpected = not isinstance(error, ThumbwheelError)
        logger.warning("cycle failed", extra={"cycle": stages.cycle_id, "reason": reason}, exc_info=unexpected)
        outside = isinstance(error, (OSError, DeltaError, RuntimeError, DataGone, PeerFailed, GenerationFailed))
        again = stopped or (outside and len(self.cycles.failures()) + 1 < triggers.MAX_FAILURES)
        return self._outcome(stages, start, CycleStatus.FAILED, reason=reason, conclusive=not again, stopped=stopped)

    def _release(self, cycle_id: str, pins: Pins) -> None:
        """Nobody will ask for what a cycle without a version has read. Where this fails, it is kept in vain."""
        try:
            if self.registry.by_cycle(cycle_id) is None:
                self.lake.release(cycle_id, pins)
        except (ThumbwheelError, OSError) as error:
            logger.info("pinned files stay for now", extra={"cycle": cycle_id, "error": str(error)})

    def _stages(
        self,
        stages: Stages,
        folder: CycleFolder,
        start: CycleStart,
        keep: Checkpoints,
        read: Callable[[], Pinned],
    ) -> VersionRecord:
        with stages.stage(Stage.PIN):
            pinned = read()
            lm = self._load_base()
            version = self.registry.next_version()
            extra = load_reward(self.settings)
            file, labelled = load_safety_file(self.settings)
            pinned = replace(pinned, safety=(*pinned.safety, *labelled))
            config = self._config(lm, extra, file, seed=self.settings.seed + int(version[1:]))
            stages.device = config.device
            _require_same(folder, config)
            folder.config(config)
            parent_dir = self._parent_dir(start.parent, lm)
            trunk = None if parent_dir is None else parent_trunk(self.registry, start.parent, config)
            cache = kept_features(self.settings, self._base_info(), lm)
        with vllm.serving(self.settings) as drawing:
            learned = leading(self._processes)(
                lm, pinned, config, parent_dir, stages, folder, keep, extra, trunk=trunk, cache=cache, drawing=drawing
            )
        with stages.stage(Stage.REGISTER):
            record = self._register(version, start, pinned, config, learned, stages)
        del learned
        with stages.stage(Stage.SCORE):
            if config.shard == "none":  # else the base was cut up, and the others have left
                self._score(lm, stages, cache)
        self._count_read(stages.cycle_id, cache)
        return record

    def _labels(self, pins: Pins) -> Pinned:
        return read_labels(self.lake, pins, self.settings.split(), self.settings.reward.by or "none")

    def _count_read(self, cycle_id: str, cache: FeatureCache | None) -> None:
        if cache is None:
            return
        self.metrics.answers_read.labels("read").inc(cache.read)
        self.metrics.answers_read.labels("kept").inc(cache.kept)
        logger.info("answers read", extra={"cycle": cycle_id, "read": cache.read, "kept": cache.kept})

    def _config(
        self, lm: LanguageModel, extra: ExtraReward | None, file: SafetyFile | None, *, seed: int
    ) -> CycleConfig:
        return self.settings.cycle_config(
            n_parameters=lm.n_parameters(),
            dtype=str(lm.dtype).removeprefix("torch."),
            device=str(lm.device),
            threads=environment.threads(),
            seed=seed,
            extra_reward=None if extra is None else extra.info,
            safety_file=file,
            processes=1 if self._processes is None else self._processes.size,
            generation=vllm.address(self.settings),
        )

    def _parent_dir(self, parent: str, lm: LanguageModel) -> Path | None:
        """The folder of the parent's adapter, checked; None for the base."""
        if parent == BASE_VERSION:
            return None
        record = self.registry.verify(parent)
        if record.base_model.name != self.settings.base_model_name:
            raise ModelError(
                f"version {parent} is an adapter of {record.base_model.name}, and this trainer's base is "
                f"{self.settings.base_model_name}: use one data folder for each base model"
            )
        return self.registry.folder(parent)

    def _register(
        self, version: str, start: CycleStart, pinned: Pinned, config: CycleConfig, learned: Learned, stages: Stages
    ) -> VersionRecord:
        parent = start.parent
        found = measured(learned.fitted, learned.report, learned.evaluation) | dict(learned.figures)
        verdicts = gates.judge_candidate(candidate(learned, config, found), config.gates)

        def fill(directory: Path) -> VersionRecord:
            save_adapter(learned.policy, directory)
            learned.fitted.reward.save(directory / REWARD_FILE)
            learned.fitted.judge.save(directory / JUDGE_FILE)
            trunk = learned.fitted.trunk
            if learned.fitted.safety is not None:
                learned.fitted.safety.save(directory / SAFETY_FILE)
            (directory / PINS_FILE).write_text(pinned.pins.text(), encoding="utf-8")
            write_lines(
                directory / EVIDENCE_FILE, (e.model_dump_json() for e in evidence(learned.dataset, pinned.safety))
            )
            return VersionRecord(
                version=version,
                parent=parent,
                cycle_id=stages.cycle_id,
                created_at=self._now(),
                tables=pinned.pins.versions(),
                pins_sha256=sha256_of(directory / PINS_FILE),
                content_hash=learned.dataset.content_hash,
                evidence_sha256=sha256_of(directory / EVIDENCE_FILE),
                labels={
                    name: len(part)
                    for name, part in (
                        ("train", learned.dataset.train),
                        ("held_out", learned.dataset.held_out),
                        ("judge", learned.dataset.judge),
                        ("judge_only", learned.dataset.judge_only),
                    )
                },
                dropped=dict(learned.dataset.dropped),
                config=config,
                code_version=environment.code_version(),
                environment=environment.environment(),
                base_model=self._base_info(),
                parent_adapter_sha256=None if parent == BASE_VERSION else self.registry.record(parent).adapter_sha256,
                adapter_sha256=sha256_of(directory / ADAPTER_FILE),
                reward_model=RewardModelInfo(
                    id=f"reward-{version}",
                    file=REWARD_FILE,
                    sha256=sha256_of(directory / REWARD_FILE),
                    trunk=None if trunk is None else save_trunk(trunk, directory, version, learned.policy.lm, config),
                    domains=domain_infos(learned.fitted.reward_report),
                ),
                metrics=found,
                evaluation=learned.evaluation,
                gates=verdicts,
                passed=gates.passed(verdicts),
                cost=stages.cost_by_stage(),
                trigger=start.trigger,
            )

        record, event = self.registry.write(
            version,
            fill,
            lambda r: version_event(r, source=SOURCE, id=new_event_id(), time=self._now()),
            awaits=lambda r: r.passed and self.settings.approval == "required",
        )
        logger.info("version written", extra={"version": version, "passed": record.passed, "cycle": stages.cycle_id})
        if event.id in {e.id for e in self.registry.awaiting()}:
            return record
        try:
            self.events.publish(event)
            self.registry.acknowledged(version)
        except BrokerUnavailable as error:
            logger.warning(
                "the version is announced at the next start", extra={"version": version, "error": str(error)}
            )
        return record

    def _score(self, lm: LanguageModel, stages: Stages, cache: FeatureCache | None) -> None:
        """Scores are for the selector; that they fail does not undo a version that is registered."""
        try:
            n = scoring.score_newest(
                lambda: lm,
                self.lake,
                self.registry,
                limit=self.settings.score_responses,
                limits=self.settings.limits,
                now=self._now,
                progress=stages.progress,
                cache=cache,
            )
            self.metrics.scored.inc(n)
        except (DataGone, DeltaError, ModelError, OSError, Stopped) as error:
            logger.warning("answers were not scored", extra={"cycle": stages.cycle_id, "error": str(error)})

    def _started(self, start: CycleStart) -> None:
        again = f", try {start.tries}" if start.tries > 1 else ""
        data = Cycle(
            cycle_id=start.cycle_id,
            status=CycleStatus.STARTED,
            stage=Stage.PIN,
            reason=f"from {start.parent}{again}{f': {start.why}' if start.why else ''}",
            metrics={"labels": float(start.labels)},
            cost=Cost(seconds=0.0),
            trigger=start.trigger,
        )
        extra = {"cycle": start.cycle_id, "parent": start.parent, "labels": start.labels, "trigger": start.trigger}
        logger.info("cycle started", extra=extra)
        suffix = f"-{start.tries}" if start.tries > 1 else ""
        self.events.offer(new_event(data, source=SOURCE, id=f"{start.cycle_id}-started{suffix}"))

    def _outcome(
        self,
        stages: Stages,
        start: CycleStart,
        status: CycleStatus,
        *,
        reason: str,
        version: str | None = None,
        figures: dict[str, float] | None = None,
        conclusive: bool = True,
        stopped: bool = False,
    ) -> Outcome:
        total = stages.cost()
        return Outcome(
            cycle_id=stages.cycle_id,
            status=status,
            version=version,
            reason=reason,
            metrics=figures or {},
            seconds=total.seconds,
            generated_tokens=total.generated_tokens,
            trained_tokens=total.trained_tokens,
            device=stages.device,
            labels=start.labels,
            conclusive=conclusive,
            stopped=stopped,
            trigger=start.trigger,
            money=total.money,
            currency=total.currency,
            stages=stages.cost_so_far(),
            tries=start.tries,
            ended_at=self._now(),
        )


def _require_same(folder: CycleFolder, config: CycleConfig) -> None:
    """Raise `Changed` where a cycle that is resumed had another configuration."""
    before = folder.read_config()
    if before is not None and CycleConfig.model_validate_json(before) != config:
        raise Changed("the configuration has changed since")


def spent_of(outcome: Outcome) -> Spent:
    """What a cycle used, by its outcome."""
    return Spent(outcome.seconds, outcome.generated_tokens, outcome.trained_tokens)


def read_labels(lake: TrainerLake, pins: Pins, split: SplitConfig, by: By = "none") -> Pinned:
    """What a cycle reads at these versions: no more labels than it may learn from; `by` tells domains apart."""
    return lake.read(pins, newest_labels=split.max_labels, counts=countable(split), by=by)


def reproduce(
    settings: TrainerSettings,
    version: str,
    *,
    load_base: LoadBase,
    stop: Callable[[], bool] = lambda: False,
    processes: Processes | None = None,
) -> tuple[VersionRecord, str]:
    """Run a version's cycle again from its record: the record, and the SHA-256 that its adapter has this time.

    Nothing is published and nothing is kept. The weights are the same on the same processor, libraries and number of
    threads; set the latter to the record's before loading the base.
    """
    registry, lake = Registry(settings.registry, signer(settings.signing_key_file)), TrainerLake(settings.lake)
    record = registry.verify(version)
    pins = registry.pins(version)
    parent_dir = None if record.parent == BASE_VERSION else registry.folder(registry.verify(record.parent).version)
    stages = Stages(f"reproduce-{version}", budget=record.config.budget, stop=stop)
    extra = same_reward(settings, record.config.extra_reward)
    pinned = read_labels(lake, pins, record.config.split, record.config.reward.by)
    pinned = replace(pinned, safety=(*pinned.safety, *same_safety_file(settings, record.config.safety_file)))
    trunk = None if parent_dir is None else parent_trunk(registry, record.parent, record.config)
    with vllm.same_server(settings, record.config.generation) as drawing:
        learned = leading(processes)(
            load_base(), pinned, record.config, parent_dir, stages, extra=extra, trunk=trunk, drawing=drawing
        )
    with tempfile.TemporaryDirectory() as directory:
        save_adapter(learned.policy, Path(directory))
        return record, sha256_of(Path(directory) / ADAPTER_FILE)
