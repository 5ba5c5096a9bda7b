"""The reward model alone: trained on every label, judged on held-out prompts, beside "the longer one wins".

No policy, no version, no event: a report, for looking at data (or a base model) before letting it steer anything.
"""

import json
import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from schemas.errors import NotEnoughData
from schemas.ids import new_cycle_id
from trainer.adapters.files import write_whole
from trainer.adapters.lake import TrainerLake
from trainer.core import reward
from trainer.core.dataset import all_labels
from trainer.core.reward import Estimate
from trainer.cycle import LoadBase
from trainer.features import answers_of, featurize, reward_data
from trainer.settings import TrainerSettings
from trainer.stages import Stopped

logger = logging.getLogger(__name__)

REPORT_FILE = "reward_report.json"


class Accuracy(BaseModel):
    """A share of labels with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    n: int


class RewardOnlyReport(BaseModel):
    """`reward_report.json`. Accuracies are on held-out prompts; None where there were no such labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    file: str
    base_model: str
    tables: dict[str, int | None]
    train_labels: int
    held_out_labels: int
    pair_accuracy: Accuracy | None
    pair_length_baseline: Accuracy | None
    rating_accuracy: Accuracy | None
    rating_length_baseline: Accuracy | None
    ece: float | None
    length_correlation: float
    l2: float
    seconds: float

    def table(self) -> str:
        """The report for a terminal."""
        rows = [
            ("pairs: reward model", self.pair_accuracy),
            ("pairs: the longer one wins", self.pair_length_baseline),
            ("thumbs: reward model", self.rating_accuracy),
            ("thumbs: by length", self.rating_length_baseline),
        ]
        lines = [f"{'held-out accuracy':<28}{'mean':>8}   {'95 % interval':<16}{'labels':>7}"]
        for name, a in rows:
            if a is not None:
                lines.append(f"{name:<28}{a.mean:>8.3f}   {f'[{a.low:.3f}, {a.high:.3f}]':<16}{a.n:>7}")
        calibration = "" if self.ece is None else f"calibration error {self.ece:.3f}; "
        lines.append(
            f"trained on {self.train_labels} labels in {self.seconds:.0f} s; {calibration}"
            f"correlation of score and length {self.length_correlation:+.2f}"
        )
        return "\n".join([*lines, f"report: {self.file}"])


def train_reward_only(
    settings: TrainerSettings, load_base: LoadBase, *, now: datetime, stop: Callable[[], bool] = lambda: False
) -> RewardOnlyReport:
    """Train on all labels of the newest table versions; raises `NotEnoughData` where there are too few."""
    began = time.monotonic()
    lake = TrainerLake(settings.lake)
    pinned = lake.read(lake.pins())
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
    lm = load_base()
    table = featurize(lm, [*answers_of(train), *answers_of(held)], settings.limits, _Progress(stop))
    _, report = reward.fit_ensemble(
        reward_data(train, table),
        settings.reward.change(reward.RewardConfig()),
        torch.Generator().manual_seed(settings.seed),
        held_out=reward_data(held, table),
    )
    folder = settings.cycles / new_cycle_id(now)
    folder.mkdir(parents=True)
    whole = RewardOnlyReport(
        id=folder.name,
        file=str(folder / REPORT_FILE),
        base_model=settings.base_model_name,
        tables=pinned.pins.versions(),
        train_labels=len(train),
        held_out_labels=len(held),
        pair_accuracy=_accuracy(report.pair_accuracy),
        pair_length_baseline=_accuracy(report.pair_length_baseline),
        rating_accuracy=_accuracy(report.rating_accuracy),
        rating_length_baseline=_accuracy(report.rating_length_baseline),
        ece=report.ece,
        length_correlation=report.length_correlation,
        l2=report.l2,
        seconds=time.monotonic() - began,
    )
    write_whole(Path(whole.file), json.dumps(whole.model_dump(), indent=2) + "\n")
    return whole


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


def _accuracy(estimate: Estimate | None) -> Accuracy | None:
    if estimate is None:
        return None
    return Accuracy(mean=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)
