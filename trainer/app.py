"""Wiring: settings to a runner, a service, or a look at the reward model alone."""

import logging
import threading
from datetime import UTC, datetime

import torch

from trainer import score_report
from trainer.adapters.events import Events, KafkaEvents
from trainer.adapters.policies import LanguageModel, load_base
from trainer.cycle import CycleRunner, LoadBase, reproduce
from trainer.metrics import Metrics
from trainer.records import Outcome
from trainer.reward_only import RewardOnlyReport, train_reward_only
from trainer.score_report import ScoreReport, ScoreRequest
from trainer.settings import TrainerSettings
from trainer.watch import Watch

logger = logging.getLogger(__name__)


def loader(settings: TrainerSettings) -> LoadBase:
    """How this process loads its base model."""

    def load() -> LanguageModel:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        return load_base(settings.base_model, dtype=settings.dtype, device=settings.torch_device())

    return load


def run_service(settings: TrainerSettings, stop: threading.Event) -> None:
    """Wait for labels and run cycles until `stop`."""
    metrics = Metrics()
    metrics.serve(settings.metrics_port)
    events = KafkaEvents(settings.kafka)
    load = loader(settings)
    logger.info("starting", extra={"data": str(settings.data), "base_model": settings.base_model_name})
    try:
        Watch(CycleRunner(settings, events, load_base=load, metrics=metrics), stop, load_base=load).run()
    finally:
        events.close()
    logger.info("stopped")


def run_once(settings: TrainerSettings, stop: threading.Event, *, events: Events | None = None) -> Outcome:
    """One cycle now, whatever number of labels is new."""
    log = events or KafkaEvents(settings.kafka)
    try:
        return CycleRunner(settings, log, load_base=loader(settings)).run(stop.is_set)
    finally:
        log.close()


def run_reward_only(settings: TrainerSettings, stop: threading.Event) -> RewardOnlyReport:
    """The reward model on every label there is, and what it is worth on held-out prompts."""
    return train_reward_only(settings, loader(settings), now=datetime.now(UTC), stop=stop.is_set)


def run_score(settings: TrainerSettings, request: ScoreRequest) -> ScoreReport:
    """What a reward model says of production's newest answers, or of a file's."""
    return score_report.run_score(settings, request, loader(settings), now=lambda: datetime.now(UTC))


def run_reproduce(settings: TrainerSettings, version: str) -> tuple[str, str]:
    """The adapter's SHA-256 in a version's record, and the one that comes out today."""
    record, digest = reproduce(settings, version, load_base=loader(settings))
    return record.adapter_sha256, digest
