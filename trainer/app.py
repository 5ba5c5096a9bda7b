"""Wiring: settings to a runner, a service, or a look at the reward model alone."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import torch

from trainer import score_report
from trainer.adapters import environment
from trainer.adapters.events import Events, KafkaEvents
from trainer.adapters.policies import LanguageModel, load_base
from trainer.adapters.processes import Processes, local_device
from trainer.adapters.registry import Registry
from trainer.cycle import CycleRunner, LoadBase, reproduce
from trainer.distill import run_distill
from trainer.distill_records import DistillReport
from trainer.distill_sources import DistillRequest
from trainer.metrics import Metrics
from trainer.records import Outcome, Reproduction
from trainer.reward_only import RewardOnlyReport, train_reward_only
from trainer.score_report import ScoreReport, ScoreRequest
from trainer.settings import TrainerSettings
from trainer.together import help_out
from trainer.watch import Watch

logger = logging.getLogger(__name__)


def loader(settings: TrainerSettings) -> LoadBase:
    """How this process loads its base model."""

    def load() -> LanguageModel:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        base = load_base(settings.base_model, dtype=settings.dtype, device=local_device(settings.torch_device()))
        _same_bits_again(base)
        return base

    return load


def _same_bits_again(base: LanguageModel) -> None:
    """On the CPU the same weights from run to run, with several threads too.

    Otherwise these add the gradients of states that several tokens share in whatever order they come to it.
    """
    torch.use_deterministic_algorithms(base.device.type == "cpu")
    # A debugging aid, which would cost a pass over each tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def processes(settings: TrainerSettings) -> Processes | None:
    """The processes that torchrun started; None where this one is alone."""
    device = settings.torch_device() or ("cuda" if torch.cuda.is_available() else "cpu")
    return Processes.launched(seconds=settings.peer_seconds, gpus=device.startswith("cuda"))


def run_helper(settings: TrainerSettings, team: Processes, stop: threading.Event) -> None:
    """Be one of the other processes of a trainer, until its process 0 ends."""
    logging.getLogger("trainer.stages").setLevel(logging.WARNING)  # how far a stage is, process 0 tells
    help_out(team, settings, loader(settings), stop.is_set)


def run_service(settings: TrainerSettings, stop: threading.Event, *, team: Processes | None = None) -> None:
    """Wait for labels and run cycles until `stop`."""
    metrics = Metrics()
    metrics.serve(settings.metrics_port)
    events = KafkaEvents(settings.kafka)
    load = loader(settings)
    logger.info("starting", extra={"data": str(settings.data), "base_model": settings.base_model_name})
    try:
        runner = CycleRunner(settings, events, load_base=load, metrics=metrics, processes=team)
        Watch(runner, stop, load_base=load).run()
    finally:
        events.close()
    logger.info("stopped")


def run_once(
    settings: TrainerSettings, stop: threading.Event, *, events: Events | None = None, team: Processes | None = None
) -> Outcome:
    """One cycle now, whatever number of labels is new."""
    log = events or KafkaEvents(settings.kafka)
    try:
        return CycleRunner(settings, log, load_base=loader(settings), processes=team).run(stop.is_set)
    finally:
        log.close()


def run_reward_only(settings: TrainerSettings, stop: threading.Event) -> RewardOnlyReport:
    """The reward model on every label there is, and what it is worth on held-out prompts."""
    return train_reward_only(settings, loader(settings), now=datetime.now(UTC), stop=stop.is_set)


def run_score(settings: TrainerSettings, request: ScoreRequest) -> ScoreReport:
    """What a reward model says of production's newest answers, or of a file's."""
    return score_report.run_score(settings, request, loader(settings), now=lambda: datetime.now(UTC))


def distill(
    settings: TrainerSettings,
    request: DistillRequest,
    stop: Callable[[], bool] = lambda: False,
    *,
    events: Callable[[], Events] | None = None,
) -> DistillReport:
    """A smaller student of a version. The log is asked only which version is live."""
    log = events or (lambda: KafkaEvents(settings.kafka))
    return run_distill(settings, request, loader(settings), events=log, now=lambda: datetime.now(UTC), stop=stop)


def run_reproduce(settings: TrainerSettings, version: str, stop: Callable[[], bool] = lambda: False) -> tuple[str, str]:
    """The adapter's SHA-256 in a version's record, and the one that comes out today."""
    found = compare(settings, version, stop)
    return found.recorded, found.today


def compare(
    settings: TrainerSettings,
    version: str,
    stop: Callable[[], bool] = lambda: False,
    *,
    team: Processes | None = None,
) -> Reproduction:
    """Run a version's cycle again, with the record's threads, type of numbers and device.

    In as many processes as torchrun started; where that is another number than the record's, it is a difference.
    """
    config = Registry(settings.registry).record(version).config
    same = {"threads": config.threads, "dtype": config.dtype, "device": config.device}
    settings = settings.model_copy(update=same)
    record, today = reproduce(settings, version, load_base=loader(settings), stop=stop, processes=team)
    base = environment.base_model_info(settings.base_model_name, settings.base_model)
    there = environment.environment().model_dump() | {"code": environment.code_version(), "base model": base.sha256}
    then = record.environment.model_dump() | {"code": record.code_version, "base model": record.base_model.sha256}
    there["processes"], then["processes"] = str(1 if team is None else team.size), str(record.config.processes)
    differences = tuple(f"{name}: {then[name]} then, {there[name]} now" for name in then if then[name] != there[name])
    return Reproduction(version=version, recorded=record.adapter_sha256, today=today, differences=differences)
