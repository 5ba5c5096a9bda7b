"""The reward model alone: judged on held-out prompts and by cross-validation over all labels, beside mere length.

No policy, no version, no event: a report, for looking at data (or a base model) before letting it steer anything.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from schemas.errors import NotEnoughData
from schemas.ids import new_cycle_id
from trainer.adapters.answers_file import read_safety_file
from trainer.adapters.environment import base_model_info
from trainer.adapters.files import write_whole
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pins
from trainer.core import reward
from trainer.core.dataset import Labels, all_labels
from trainer.core.safety import SafetyConfig, fit_safety
from trainer.core.safety_examples import SafetyExample, from_flags
from trainer.cycle import LoadBase
from trainer.domain_figures import domain_infos, finite
from trainer.features import featurize, in_order_of_time, reward_data, safety_data
from trainer.kept_features import kept_features
from trainer.reward_report import RewardOnlyReport, accuracy_of, agreements, cross_validation, safety_of
from trainer.reward_trunks import Trunks
from trainer.settings import TrainerSettings
from trainer.stages import Stopped

logger = logging.getLogger(__name__)

REPORT_FILE = "reward_report.json"
FOLDS = 5
"""At least so many for the accuracy over all labels: the fewer, the smaller the training parts."""


def train_reward_only(
    settings: TrainerSettings, load_base: LoadBase, *, now: datetime, stop: Callable[[], bool] = lambda: False
) -> RewardOnlyReport:
    """Train on all labels of the newest table versions; raises `NotEnoughData` where there are too few."""
    began = time.monotonic()
    lake = TrainerLake(settings.lake)
    config = settings.reward.change(reward.RewardConfig())
    pinned = lake.read(lake.pins(), by=config.by)
    split = settings.split()
    train, held = all_labels(
        pinned.pairs,
        pinned.ratings,
        holdout_share=split.holdout_share,
        seed=split.seed,
        rater_cap=split.rater_cap,
    )
    if len(train) < split.min_labels or not len(held):
        raise NotEnoughData(
            f"there are {len(train)} labels to train on and {len(held)} on held-out prompts; {split.min_labels} and 1 "
            f"are needed: collect feedback, or feed comparisons from a file with `thumbwheel replay FILE`"
        )
    examples = safety_examples(settings, lake, pinned.pins)
    lm, progress = load_base(), _Progress(stop)
    cache = kept_features(settings, base_model_info(settings.base_model_name, settings.base_model), lm)
    table = featurize(lm, in_order_of_time((train, held), (e.key for e in examples)), settings.limits, progress, cache)
    lora = settings.lora.for_size(lm.n_parameters())
    generator = torch.Generator().manual_seed(settings.seed)
    seen = Trunks(lm, config, lora, settings.limits, settings.seed, progress).look(train, [held], table)
    traffic = pinned.traffic
    trained, judged = (reward_data(part, seen.table, pinned.segments, traffic=traffic) for part in (train, held))
    _, report = reward.fit_ensemble(trained, config, generator, held_out=judged, cross=seen.cross)
    folds = replace(config, folds=max(config.folds, FOLDS), trunk_folds=max(config.trunk_folds, FOLDS))
    whole = _together(train, held)
    cross = Trunks(lm, folds, lora, settings.limits, settings.seed, progress).cross(whole, table)
    validated = reward.cross_validate(
        reward_data(whole, table, traffic=traffic), folds, torch.Generator().manual_seed(settings.seed), cross
    )
    _, safe = fit_safety(safety_data(examples, table), SafetyConfig(), generator)
    folder = settings.cycles / new_cycle_id(now)
    folder.mkdir(parents=True)
    made = RewardOnlyReport(
        id=folder.name,
        file=str(folder / REPORT_FILE),
        base_model=settings.base_model_name,
        tables=pinned.pins.versions(),
        train_labels=len(train),
        held_out_labels=len(held),
        pair_accuracy=accuracy_of(report.pair_accuracy),
        pair_length_baseline=accuracy_of(report.pair_length_baseline),
        rating_accuracy=accuracy_of(report.rating_accuracy),
        rating_length_baseline=accuracy_of(report.rating_length_baseline),
        ece=report.ece,
        ece_before=report.ece_before,
        temperature=report.temperature,
        length_correlation=report.length_correlation,
        length_correlation_before=report.length_correlation_before,
        l2=report.l2,
        trunk=config.trunk,
        dropped=report.dropped,
        cross_validation=cross_validation(validated, folds.folds),
        by_source=agreements(report.by_source),
        by_segment=agreements(report.by_segment),
        safety=safety_of(safe),
        by=config.by,
        own_l2=finite(report.own_l2),
        domains=domain_infos(report),
        seconds=time.monotonic() - began,
    )
    write_whole(Path(made.file), json.dumps(made.model_dump(), indent=2) + "\n")
    return made


def safety_examples(settings: TrainerSettings, lake: TrainerLake, pins: Pins) -> list[SafetyExample]:
    """What users flagged, and the labelled file if there is one; raises `SettingsError`, `DataGone`."""
    found = from_flags(lake.flagged(pins))
    if settings.safety_data is not None:
        found += read_safety_file(settings.safety_data, limit=settings.max_safety_examples)
    return found


def _together(train: Labels, held: Labels) -> Labels:
    return Labels((*train.pairs, *held.pairs), (*train.ratings, *held.ratings))


class _Progress:
    """A line of log for each twentieth of the way."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self._told = 0

    def __call__(self, share: float) -> None:
        if self._stop():
            raise Stopped("stopped")
        if int(share * 20) > self._told:
            self._told = int(share * 20)
            logger.info("reading answers", extra={"percent": self._told * 5})
