"""What came of a cycle, and the file of it: one JSON line for each finished cycle of each seed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.demo.statistics import Estimate
from infra.lab.log import append_line, whole_lines
from schemas.cycles import CycleStatus
from schemas.errors import SettingsError
from schemas.versions import GateResult

FILE = "results.jsonl"
Regression = Literal["no", "unclear", "yes"]


class Frozen(BaseModel):
    """Closed and frozen; a figure may be NaN (the trainer's gates refuse such a version, the lab tells of it)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Range(Frozen):
    """A share with its 95 % interval, over `n` prompts where it is a win rate."""

    value: float
    low: float
    high: float
    n: int | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> "Range":
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


class Collected(Frozen):
    """What the users of one cycle gave: answers that they read, and events by what they said."""

    answers: int
    feedback: dict[str, int]
    labels: int


class CycleResult(Frozen):
    """One cycle of one seed.

    `parent` served when it began and `serving` when it ended. `vs_base` and `vs_parent` are the true win rates of the
    new version, refused or not; `serving_vs_base` is that of the version that serves (None: the base does).
    `reward_accuracy` is the gate's figure: how often the reward model has people's order. `length_baseline` is how
    often length alone is right on held-out pairs, or on thumbs where there are no pairs. `ppo_reward` is what PPO
    pushed up, in spreads of the base's answers; `judge_vs_parent` is what the gates saw.
    """

    seed: int
    cycle: int
    cycle_id: str
    status: CycleStatus
    reason: str
    parent: str
    version: str | None
    serving: str
    promoted: bool
    collected: Collected
    labels: int
    labels_used: dict[str, int]
    labels_dropped: dict[str, int]
    reward_accuracy: Range | None
    length_baseline: float | None
    kl: float | None
    kl_limit: float | None
    judge_vs_parent: Range | None
    ppo_first_reward: float | None
    ppo_reward: float | None
    vs_base: Range | None
    vs_parent: Range | None
    vs_base_by_segment: dict[str, Range]
    regression: Regression | None
    """Of a promoted version: whether it is truly worse than the one that it replaced. `unclear`: its win rate over that
    is below one half, and the interval holds one half."""
    serving_vs_base: Range | None
    serving_by_prompt: tuple[float, ...]
    """The same for each prompt, in the order of the prompts; empty where the base serves."""
    words: float | None
    parent_words: float | None
    gates: tuple[GateResult, ...]
    seconds: float
    """Of the cycle alone, without answers and judging."""


class Results:
    """The file below a lab's folder. A line that a killed process left unfinished is cut away."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def read(self) -> list[CycleResult]:
        """In order of seed and cycle; raises `SettingsError` for a line that is none of ours."""
        found: list[CycleResult] = []
        for number, line in enumerate(whole_lines(self.file), 1):
            try:
                found.append(CycleResult.model_validate_json(line))
            except ValidationError as error:
                raise SettingsError(
                    f"{self.file}, line {number} is no result of this release; give another --data"
                ) from error
        return sorted(found, key=lambda r: (r.seed, r.cycle))

    def append(self, result: CycleResult) -> None:
        """Add one; it is on the disk when this returns."""
        append_line(self.file, result.model_dump_json())


def finished(results: Iterable[CycleResult]) -> set[tuple[int, int]]:
    """(seed, cycle) of those that need not be run again."""
    return {(r.seed, r.cycle) for r in results}
