"""An update cycle: from the tables to a version that is registered, or refused by its gates.

    pin ─► reward_model ─► policy ─► evaluate ─► register ─► score
     │         │             │          │           │          └ gold.scores of recent answers
     │         │             │          │           └ registry/<version>/ whole on disk, THEN its event (outbox: sent
     │         │             │          │             again at the next start if the log did not acknowledge it)
     │         │             │          └ held-out prompts, judged by other people's labels; the gates decide
     │         │             └ PPO from the parent's adapter, held to its KL budget
     │         └ ensemble of heads on the training raters' labels; the judge on the other raters'
     └ versions of gold and silver, their files held before they are read; the parent is the version that is live

One cycle at a time: a lease on the data folder. Every cycle ends in an `outcome.json`; one without it was cut off, and
is closed as failed by the next process that takes the lease. Progress may be lost, outcomes and versions may not.
"""

import logging
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from deltalake.exceptions import DeltaError

from schemas.cycles import Cost, Cycle, CycleStatus, Stage
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable, DataGone, ModelError, ThumbwheelError
from schemas.ids import new_cycle_id, new_event_id
from schemas.versions import BASE_VERSION
from trainer import learning, scoring
from trainer.adapters import environment
from trainer.adapters.cycles import CycleFolder, Cycles
from trainer.adapters.events import SOURCE, Events
from trainer.adapters.files import sha256_of, write_lines
from trainer.adapters.lake import Pinned, TrainerLake
from trainer.adapters.pins import Pins
from trainer.adapters.policies import LanguageModel, save_adapter
from trainer.adapters.registry import (
    ADAPTER_FILE,
    EVIDENCE_FILE,
    JUDGE_FILE,
    PINS_FILE,
    REWARD_FILE,
    Registry,
    version_event,
)
from trainer.adapters.rewards import ExtraReward, load_reward, same_reward
from trainer.core import gates
from trainer.core.budget import Budget
from trainer.core.evidence import evidence
from trainer.learning import Learned, learn
from trainer.metrics import Metrics
from trainer.outcomes import Closer, finite_figures
from trainer.records import CycleStart, Outcome, RewardModelInfo, VersionRecord
from trainer.settings import CycleConfig, TrainerSettings
from trainer.stages import Stages, Stopped

logger = logging.getLogger(__name__)

LoadBase = Callable[[], LanguageModel]
Now = Callable[[], datetime]


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
    ) -> None:
        self.settings, self.events, self.metrics = settings, events, metrics or Metrics()
        self.lake = TrainerLake(settings.lake)
        self.registry = Registry(settings.registry)
        self.cycles = Cycles(settings.cycles)
        self.closer = Closer(self.cycles, self.registry, events, now=now)
        self._load_base, self._now = load_base, now

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """One cycle, to its outcome: finished, refused or failed.

        Raises `LeaseHeld` where another runs, and `BrokerUnavailable` where the log is away before it begins.
        """
        with self.cycles.lease():
            self.closer.recover()
            parent = self.events.board().live()
            self.metrics.running.set(1)
            try:
                return self._run(parent.version if parent else BASE_VERSION, stop)
            finally:
                self.metrics.running.set(0)

    def recover(self) -> None:
        """Close what an earlier process left open, and announce what the log has not heard. Raises `LeaseHeld`."""
        with self.cycles.lease():
            self.closer.recover()

    def _run(self, parent: str, stop: Callable[[], bool]) -> Outcome:
        started_at = self._now()
        cycle_id = new_cycle_id(started_at)
        folder = self.cycles.folder(cycle_id)
        budget = Budget(max_seconds=self.settings.max_cycle_seconds, max_tokens=self.settings.max_cycle_tokens)
        stages = Stages(cycle_id, budget=budget, events=self.events, metrics=self.metrics, stop=stop)
        pins = self.lake.pins()
        self.lake.hold(cycle_id, pins)
        labels = self.lake.count_labels(pins)
        folder.begin(
            CycleStart(
                cycle_id=cycle_id,
                started_at=started_at,
                pid=environment.process_id(),
                parent=parent,
                labels=labels,
                tables=pins.versions(),
            )
        )
        self._started(cycle_id, parent, labels)
        try:
            record = self._stages(stages, folder, parent, lambda: self.lake.read(pins))
            status = CycleStatus.FINISHED if record.passed else CycleStatus.REFUSED
            figures = finite_figures(record.metrics)
            outcome = self._outcome(stages, status, labels, record.version, gates.refusal(record.gates), figures)
        except (ThumbwheelError, DeltaError, OSError, RuntimeError, ValueError) as error:
            stopped = isinstance(error, Stopped)
            reason = str(error) or type(error).__name__
            unexpected = not isinstance(error, ThumbwheelError)
            logger.warning("cycle failed", extra={"cycle": cycle_id, "reason": reason}, exc_info=unexpected)
            outcome = self._outcome(stages, CycleStatus.FAILED, labels, None, reason, {}, conclusive=not stopped)
            self._release(cycle_id, pins)
        folder.end(outcome)
        self.metrics.cycles.labels(outcome.status.value).inc()
        return self.closer.announce(outcome)

    def _release(self, cycle_id: str, pins: Pins) -> None:
        """Nobody will ask for what a cycle without a version has read. Where this fails, it is kept in vain."""
        try:
            if self.registry.by_cycle(cycle_id) is None:
                self.lake.release(cycle_id, pins)
        except (ThumbwheelError, OSError) as error:
            logger.info("pinned files stay for now", extra={"cycle": cycle_id, "error": str(error)})

    def _stages(self, stages: Stages, folder: CycleFolder, parent: str, read: Callable[[], Pinned]) -> VersionRecord:
        with stages.stage(Stage.PIN):
            pinned = read()
            lm = self._load_base()
            version = self.registry.next_version()
            extra = load_reward(self.settings)
            config = self._config(lm, extra, seed=self.settings.seed + int(version[1:]))
            stages.device = config.device
            folder.config(config)
            parent_dir = self._parent_dir(parent, lm)
        learned = learn(lm, pinned, config, parent_dir, stages, folder, extra)
        with stages.stage(Stage.REGISTER):
            record = self._register(version, parent, pinned, config, learned, stages)
        del learned
        with stages.stage(Stage.SCORE):
            self._score(lm, stages)
        return record

    def _config(self, lm: LanguageModel, extra: ExtraReward | None, *, seed: int) -> CycleConfig:
        return self.settings.cycle_config(
            n_parameters=lm.n_parameters(),
            dtype=str(lm.dtype).removeprefix("torch."),
            device=str(lm.device),
            threads=environment.threads(),
            seed=seed,
            extra_reward=None if extra is None else extra.info,
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
        self, version: str, parent: str, pinned: Pinned, config: CycleConfig, learned: Learned, stages: Stages
    ) -> VersionRecord:
        base = environment.base_model_info(self.settings.base_model_name, self.settings.base_model)
        figures = learning.measured(learned.fitted, learned.report, learned.evaluation) | dict(learned.figures)
        verdicts = gates.judge_candidate(learning.candidate(learned, config, figures), config.gates)

        def fill(directory: Path) -> VersionRecord:
            save_adapter(learned.policy, directory)
            learned.fitted.reward.save(directory / REWARD_FILE)
            learned.fitted.judge.save(directory / JUDGE_FILE)
            (directory / PINS_FILE).write_text(pinned.pins.text(), encoding="utf-8")
            write_lines(directory / EVIDENCE_FILE, (e.model_dump_json() for e in evidence(learned.dataset)))
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
                base_model=base,
                parent_adapter_sha256=None if parent == BASE_VERSION else self.registry.record(parent).adapter_sha256,
                adapter_sha256=sha256_of(directory / ADAPTER_FILE),
                reward_model=RewardModelInfo(
                    id=f"reward-{version}", file=REWARD_FILE, sha256=sha256_of(directory / REWARD_FILE)
                ),
                metrics=figures,
                evaluation=learned.evaluation,
                gates=verdicts,
                passed=gates.passed(verdicts),
                cost=stages.cost_by_stage(),
            )

        record, event = self.registry.write(
            version, fill, lambda r: version_event(r, source=SOURCE, id=new_event_id(), time=self._now())
        )
        logger.info("version written", extra={"version": version, "passed": record.passed, "cycle": stages.cycle_id})
        try:
            self.events.publish(event)
            self.registry.acknowledged(version)
        except BrokerUnavailable as error:
            logger.warning(
                "the version is announced at the next start", extra={"version": version, "error": str(error)}
            )
        return record

    def _score(self, lm: LanguageModel, stages: Stages) -> None:
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
            )
            self.metrics.scored.inc(n)
        except (DataGone, DeltaError, OSError, Stopped) as error:
            logger.warning("answers were not scored", extra={"cycle": stages.cycle_id, "error": str(error)})

    def _started(self, cycle_id: str, parent: str, labels: int) -> None:
        data = Cycle(
            cycle_id=cycle_id,
            status=CycleStatus.STARTED,
            stage=Stage.PIN,
            reason=f"from {parent}",
            metrics={"labels": float(labels)},
            cost=Cost(seconds=0.0),
        )
        logger.info("cycle started", extra={"cycle": cycle_id, "parent": parent, "labels": labels})
        self.events.offer(new_event(data, source=SOURCE, id=f"{cycle_id}-started"))

    def _outcome(
        self,
        stages: Stages,
        status: CycleStatus,
        labels: int,
        version: str | None,
        reason: str,
        figures: dict[str, float],
        *,
        conclusive: bool = True,
    ) -> Outcome:
        total = stages.total()
        return Outcome(
            cycle_id=stages.cycle_id,
            status=status,
            version=version,
            reason=reason,
            metrics=figures,
            seconds=total.seconds,
            generated_tokens=total.generated_tokens,
            trained_tokens=total.trained_tokens,
            device=stages.device,
            labels=labels,
            conclusive=conclusive,
            ended_at=self._now(),
        )


def reproduce(settings: TrainerSettings, version: str, *, load_base: LoadBase) -> tuple[VersionRecord, str]:
    """Run a version's cycle again from its record: the record, and the SHA-256 that its adapter has this time.

    Nothing is published and nothing is kept. The weights are the same on the same processor, libraries and number of
    threads; set the latter to the record's before loading the base.
    """
    registry, lake = Registry(settings.registry), TrainerLake(settings.lake)
    record = registry.verify(version)
    pins = registry.pins(version)
    parent_dir = None if record.parent == BASE_VERSION else registry.folder(registry.verify(record.parent).version)
    stages = Stages(f"reproduce-{version}", budget=record.config.budget)
    extra = same_reward(settings, record.config.extra_reward)
    learned = learn(load_base(), lake.read(pins), record.config, parent_dir, stages, extra=extra)
    with tempfile.TemporaryDirectory() as directory:
        save_adapter(learned.policy, Path(directory))
        return record, sha256_of(Path(directory) / ADAPTER_FILE)
