"""Which labels no cycle has looked at: those whose ids the last conclusive cycle did not count."""

import logging
from dataclasses import dataclass

import polars as pl

from trainer.adapters.cycles import CycleFolder, Cycles
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pins
from trainer.core.triggers import effective_number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewLabels:
    """How many labels are new, and what they are worth together (Kish's effective number)."""

    rows: int
    effective: float


def new_labels(lake: TrainerLake, cycles: Cycles, pins: Pins, *, rater_cap: float) -> NewLabels:
    """What is new at these versions. Reads narrow columns; raises `DataGone`.

    Where the last cycle has kept no ids (an earlier release, a full disk) the numbers alone are compared.
    """
    labels, last = lake.labels(pins), cycles.last_conclusive()
    if last is not None:
        file = cycles.folder(last.cycle_id).labels
        try:
            seen = pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError):
            rows = max(0, labels.height - last.labels)
            return NewLabels(rows, float(rows))
        labels = labels.join(seen, on="id", how="anti")
    pairs = list(labels.select("rater", "weight").iter_rows())
    return NewLabels(labels.height, effective_number(pairs, rater_cap))


def keep_ids(folder: CycleFolder, labels: pl.DataFrame) -> None:
    """Remember which labels counted. Without it the next look counts rows alone: no reason to fail."""
    temporary = folder.labels.with_suffix(".part")
    try:
        labels.select("id").write_parquet(temporary)
        temporary.replace(folder.labels)
    except (OSError, pl.exceptions.PolarsError) as error:
        temporary.unlink(missing_ok=True)
        logger.warning("the ids of the labels were not kept", extra={"error": str(error)})


def forget_older(cycles: Cycles) -> None:
    """Remove the ids that no look asks for any more: all but those of the last conclusive cycle."""
    last = cycles.last_conclusive()
    for cycle_id in cycles.ids():
        folder = cycles.folder(cycle_id)
        if last is not None and cycle_id != last.cycle_id and folder.outcome() is not None:
            folder.labels.unlink(missing_ok=True)
