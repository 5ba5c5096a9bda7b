"""The record of a version: all that is needed to judge it, to find where it came from, and to make it again."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import computed_field

from schemas.cycles import Cost, Trigger
from schemas.versions import GateResult
from trainer.journal import BaseModelInfo, CycleStart, Environment, Frozen, Outcome
from trainer.settings import CycleConfig

__all__ = ["BaseModelInfo", "CycleStart", "Environment", "Frozen", "Outcome"]  # whoever writes records asks here


class Interval(Frozen):
    """A share with its 95 % interval over `n` cases."""

    mean: float
    low: float
    high: float
    n: int


class Sample(Frozen):
    """What parent and new version answered to the same held-out prompt."""

    prompt: str
    before: str
    after: str
    judge_before: float
    judge_after: float


class ProbeFigures(Frozen):
    """The means of one probe over `n` cases. `base` is None where it was not asked, or is the parent."""

    name: str
    n: int
    new: float
    parent: float
    base: float | None = None


class Evaluation(Frozen):
    """The new version on held-out prompts, by a judge that learned from other labels than the reward model.

    The fields with defaults are None or empty in records from before there were probes. `token_seconds` is processor
    time for a token of the new version and of its parent, sampled in turns: for a human, no gate looks at it.
    """

    prompts: int
    judged_by: Literal["raters", "prompts"]
    win_rate_vs_parent: Interval
    win_rate_vs_base: Interval
    kl: float
    length: float
    parent_length: float
    base_length: float
    finished: float
    samples: tuple[Sample, ...]
    kl_parent: float | None = None
    probes: tuple[ProbeFigures, ...] = ()
    probes_asked: int = 0
    suite_sha256: str | None = None
    token_seconds: tuple[float, float] | None = None
    win_certainty: float | None = None
    """The chance that it beats its parent, by the judge's heads (`trainer.core.judge.certainty`)."""


class RewardTrunkInfo(Frozen):
    """The reward model's own trunk. `trained_in` is the version whose cycle trained it, on `labels` labels; the heads
    learned from `new_labels` more that it has not seen."""

    kind: Literal["lora", "full"]
    file: str
    sha256: str
    trained_in: str
    labels: int
    new_labels: int


class RewardDomainInfo(Frozen):
    """A domain that labels name: how many, how many these are by the weight that the people's caps leave to them, and
    by how many people. With weights of its own, how often these and the common ones are right about its labels on
    prompts that neither has seen; None where there is no such label."""

    name: str
    labels: int
    counted: float
    users: int
    own: bool
    own_accuracy: Interval | None = None
    common_accuracy: Interval | None = None
    difference: Interval | None = None


class RewardModelInfo(Frozen):
    """The reward model that the policy was trained with; `file` is relative to the version's folder."""

    id: str
    file: str
    sha256: str
    trunk: RewardTrunkInfo | None = None
    """None where the heads read the frozen base."""
    domains: tuple[RewardDomainInfo, ...] = ()
    """Empty where domains are not told apart."""


class VersionRecord(Frozen):
    """`record.json` in a version's folder."""

    version: str
    parent: str
    cycle_id: str
    created_at: datetime
    tables: dict[str, int | None]
    pins_sha256: str | None = None
    """Of `pins.json`, which lists the data files of these versions; None in records from before there was one."""
    content_hash: str
    evidence_sha256: str | None = None
    """Of `evidence.jsonl`, which names each label that was used; None in records from before there was one."""
    labels: dict[str, int]
    dropped: dict[str, int]
    config: CycleConfig
    code_version: str
    environment: Environment
    base_model: BaseModelInfo
    parent_adapter_sha256: str | None
    adapter_sha256: str
    reward_model: RewardModelInfo
    metrics: dict[str, float | None]
    evaluation: Evaluation
    gates: tuple[GateResult, ...]
    passed: bool
    cost: dict[str, Cost]
    trigger: Trigger | None = None


class Reproduction(Frozen):
    """A version's cycle run again: the adapter's SHA-256 in its record and today, and what is not as it was then."""

    version: str
    recorded: str
    today: str
    differences: tuple[str, ...]

    @computed_field
    @property
    def same(self) -> bool:
        return self.recorded == self.today


def read_record(folder: Path) -> VersionRecord:
    """The record in a version's folder."""
    return VersionRecord.model_validate_json((folder / "record.json").read_text(encoding="utf-8"))
