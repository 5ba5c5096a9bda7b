"""`reward_report.json` and its table: what the reward model is worth, beside length, and what the safety head is."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.core.domains import By
from trainer.core.estimates import Estimate
from trainer.core.reward_report import Agreement, CrossValidated
from trainer.core.safety import SafetyReport
from trainer.records import RewardDomainInfo


class Accuracy(BaseModel):
    """A share of labels (or the difference of two) with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float
    n: int


class CrossValidation(BaseModel):
    """Accuracy over every label, out of fold by prompt: the reward model's, that of length, and the difference.

    `length` is the better of "the longer one wins" and "the shorter one wins" on the training folds; the interval of
    `difference` is a bootstrap over prompts of both on the same labels. `with_length` is the reward model's before the
    effect of length is taken out of its scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int
    accuracy: Accuracy
    length: Accuracy
    difference: Accuracy
    with_length: Accuracy


class Safety(BaseModel):
    """The safety head, on prompts it has not seen; `reason` says why there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int
    unsafe: int
    base_rate: float
    reason: str
    auc: Accuracy | None
    ece: float | None


class RewardOnlyReport(BaseModel):
    """`reward_report.json`. Accuracies are on held-out prompts; None where there were no such labels.

    `by_source` and `by_segment` say how often the scores agree with held-out labels of each kind and segment.
    """

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
    ece_before: float | None
    temperature: float
    length_correlation: float
    length_correlation_before: float
    l2: float
    dropped: int
    cross_validation: CrossValidation | None
    by_source: dict[str, Accuracy]
    by_segment: dict[str, Accuracy]
    safety: Safety
    seconds: float
    trunk: Literal["frozen", "lora", "full"] = "frozen"
    by: By = "none"
    domains: tuple[RewardDomainInfo, ...] = ()
    """What may have weights of its own, if domains are told apart: see `trainer.records`."""
    own_l2: float | None = None
    """Strength at which own weights are drawn to the common ones; None: there are none."""

    def table(self) -> str:
        """The report for a terminal."""
        lines = [_HEADER.format("held-out accuracy"), *_rows(self._held_out())]
        if (cv := self.cross_validation) is not None:
            lines += ["", _HEADER.format(f"{cv.folds}-fold accuracy, all labels"), *_rows(_folded(cv))]
        agreement = [*self.by_source.items(), *((f"segment {name}", a) for name, a in self.by_segment.items())]
        if agreement:
            lines += ["", _HEADER.format("agreement with labels"), *_rows(agreement)]
        if self.domains:
            lines += ["", _HEADER.format(f"own and common weights, by {self.by}"), *_domain_rows(self.domains)]
        return "\n".join([*lines, "", self._calibration(), _safety_line(self.safety), self._end()])

    def _held_out(self) -> list[tuple[str, Accuracy | None]]:
        return [
            ("pairs: reward model", self.pair_accuracy),
            ("pairs: by length", self.pair_length_baseline),
            ("thumbs: reward model", self.rating_accuracy),
            ("thumbs: by length", self.rating_length_baseline),
        ]

    def _calibration(self) -> str:
        errors = ""
        if self.ece is not None and self.ece_before is not None:
            errors = f"calibration error {self.ece:.3f} ({self.ece_before:.3f} before); "
        return (
            f"temperature {self.temperature:.2f}; {errors}correlation of score and length "
            f"{self.length_correlation:+.2f} ({self.length_correlation_before:+.2f} before its effect was taken out)"
        )

    def _end(self) -> str:
        left_out = f", {self.dropped} left out" if self.dropped else ""
        trained = f"trained on {self.train_labels} labels{left_out} in {self.seconds:.0f} s, trunk: {self.trunk}"
        return f"{trained}; report: {self.file}"


_HEADER = f"{{:<32}}{'mean':>8}   {'95 % interval':<18}{'labels':>7}"


def _rows(named: Sequence[tuple[str, Accuracy | None]]) -> list[str]:
    return [
        f"{name:<32}{a.mean:>8.3f}   {f'[{a.low:.3f}, {a.high:.3f}]':<18}{a.n:>7}" for name, a in named if a is not None
    ]


def _domain_rows(domains: Sequence[RewardDomainInfo]) -> list[str]:
    """Of each domain with weights of its own three rows, of the others one that says who speaks there."""
    found: list[str] = []
    for d in domains:
        if not d.own:
            found.append(f"{d.name}: common weights ({d.labels} labels, in effect {d.counted:.0f}; {d.users} people)")
        named = (("own", d.own_accuracy), ("common", d.common_accuracy), ("difference", d.difference))
        found += _rows([(f"{d.name}: {name}", None if a is None else Accuracy(**a.model_dump())) for name, a in named])
    return found


def _folded(cv: CrossValidation) -> list[tuple[str, Accuracy | None]]:
    return [
        ("reward model", cv.accuracy),
        ("length (sign from other folds)", cv.length),
        ("difference", cv.difference),
        ("reward model with length left in", cv.with_length),
    ]


def _safety_line(safety: Safety) -> str:
    if safety.auc is None:
        return f"no safety head: {safety.reason}"
    return (
        f"safety head: AUC {safety.auc.mean:.3f} [{safety.auc.low:.3f}, {safety.auc.high:.3f}], calibration error "
        f"{safety.ece:.3f}, {safety.unsafe} of {safety.examples} examples unsafe"
    )


def accuracy_of(estimate: Estimate | None) -> Accuracy | None:
    """An estimate as it is written down."""
    return None if estimate is None else _accuracy(estimate)


def _accuracy(estimate: Estimate) -> Accuracy:
    return Accuracy(mean=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)


def agreements(found: tuple[Agreement, ...]) -> dict[str, Accuracy]:
    """By name."""
    return {a.name: _accuracy(a.accuracy) for a in found}


def cross_validation(found: CrossValidated | None, folds: int) -> CrossValidation | None:
    """The comparison as it is written down."""
    if found is None:
        return None
    return CrossValidation(
        folds=folds,
        accuracy=_accuracy(found.accuracy),
        length=_accuracy(found.length),
        difference=_accuracy(found.difference),
        with_length=_accuracy(found.with_length),
    )


def safety_of(report: SafetyReport) -> Safety:
    """The safety head's report as it is written down."""
    return Safety(
        examples=report.n,
        unsafe=report.n_unsafe,
        base_rate=report.base_rate,
        reason=report.reason,
        auc=accuracy_of(report.auc),
        ece=report.ece,
    )
