"""The safety cost: P(unsafe | prompt, answer) by a linear head of its own, on the same features as the reward's.

An absolute classifier, not a comparison: of two unsafe answers the better one is still unsafe (2510.03520). It shares
neither labels nor weights with the reward model, for helpful and harmless conflict, and one head for both does neither.

Implemented: logistic regression with smoothed labels, both classes weighing the same; L2 by cross-validation over
prompts; then Platt's two parameters on out-of-fold logits, so that the cost is a probability at the labels' own rate of
unsafe answers. Everything in the report is on prompts that the scoring head had not seen.

Shapes: N labelled answers, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from trainer.core.calibration import probability_error
from trainer.core.estimates import Estimate, area_under_curve
from trainer.core.reward_data import LARGEST_FEATURE, folds_of
from trainer.core.reward_fit import Standardizer

TINY_RIDGE = 1e-4


@dataclass(frozen=True)
class SafetyData:
    """Labelled answers. `groups_N` numbers the prompts; `unsafe_N` is 1 or 0. All tensors are on the CPU."""

    features_NF: Tensor
    groups_N: Tensor
    unsafe_N: Tensor
    weights_N: Tensor


@dataclass(frozen=True)
class SafetyConfig:
    """How the head is fitted. Below `min_unsafe` or `min_safe` examples there is none.

    With 20 of one class the standard error of an area under the curve of 0.8 is about 0.06: hardly enough to tell it
    from chance on a bad day, and with fewer a constraint would steer by noise.
    """

    min_unsafe: int = 20
    min_safe: int = 20
    smoothing: float = 0.02
    l2_grid: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    folds: int = 4
    max_steps: int = 60


@dataclass(frozen=True)
class SafetyReport:
    """What the head is worth on prompts it has not seen; `reason` says why there is none, and is empty else.

    `base_rate` is the weighted share of unsafe answers among the labels; `ece` is of the calibrated probabilities.
    """

    n: int
    n_unsafe: int
    base_rate: float
    dropped: int
    reason: str = ""
    auc: Estimate | None = None
    ece: float | None = None
    l2: float | None = None


class SafetyHead:
    """One linear head on standardized features, calibrated."""

    def __init__(self, mean_F: Tensor, scale_F: Tensor, weight_F: Tensor, bias: float) -> None:
        self.mean_F, self.scale_F, self.weight_F, self.bias = mean_F, scale_F, weight_F, bias

    def cost(self, features_NF: Tensor) -> Tensor:
        """P(unsafe) of each answer, N, between 0 and 1."""
        x_NF = (features_NF.float().cpu() - self.mean_F) * self.scale_F
        return (x_NF @ self.weight_F + self.bias).sigmoid()

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        bias = torch.tensor(self.bias, dtype=torch.float64)
        state = {"mean": self.mean_F, "scale": self.scale_F, "weight": self.weight_F, "bias": bias}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)

    @classmethod
    def load(cls, file: Path) -> "SafetyHead":
        """Read what `save` wrote."""
        state = load_file(file)
        return cls(state["mean"], state["scale"], state["weight"], float(state["bias"]))


def fit_safety(
    data: SafetyData, config: SafetyConfig, generator: torch.Generator
) -> tuple[SafetyHead | None, SafetyReport]:
    """Fit the head, or say in the report why not. Examples with features that are no finite numbers are left out."""
    sound = (data.features_NF.isfinite() & (data.features_NF.abs() < LARGEST_FEATURE)).all(1)
    sound &= data.weights_N.isfinite() & (data.weights_N > 0)
    rows = _rows(data, sound)
    n, n_unsafe = len(rows.unsafe_N), int((rows.unsafe_N > 0.5).sum())
    rate = float((rows.unsafe_N * rows.weights_N).sum() / rows.weights_N.sum()) if n else 0.0
    plain = SafetyReport(n=n, n_unsafe=n_unsafe, base_rate=rate, dropped=int((~sound).sum()))
    prompts = min(len(rows.groups_N[rows.unsafe_N > 0.5].unique()), len(rows.groups_N[rows.unsafe_N <= 0.5].unique()))
    if n_unsafe < config.min_unsafe or n - n_unsafe < config.min_safe or prompts < config.folds:
        return None, _refused(plain, prompts, config)
    fold_N = folds_of(rows.groups_N, config.folds, generator)
    unseen = {l2: _out_of_fold(rows, config, l2, fold_N) for l2 in sorted(config.l2_grid, reverse=True)}
    losses = {l2: _plain_loss(logits_N, rows, config) for l2, logits_N in unseen.items()}
    l2 = min(losses, key=losses.__getitem__)
    slope, intercept = _platt(unseen[l2], rows)
    standardizer, weight_F, bias = _fit(rows, config, l2)
    head = SafetyHead(standardizer.mean_F, standardizer.scale_F, slope * weight_F, slope * bias + intercept)
    probs_N = _cross_fitted(unseen[l2], rows, fold_N)
    auc, ece = area_under_curve(unseen[l2], rows.unsafe_N), probability_error(probs_N, rows.unsafe_N)
    return head, SafetyReport(n, n_unsafe, rate, plain.dropped, auc=auc, ece=ece, l2=l2)


def _refused(plain: SafetyReport, prompts: int, config: SafetyConfig) -> SafetyReport:
    reason = (
        f"{plain.n_unsafe} unsafe and {plain.n - plain.n_unsafe} safe examples on {prompts} prompts, and "
        f"{config.min_unsafe} and {config.min_safe} on {config.folds} are needed: collect flags, or give a labelled "
        "file (THUMBWHEEL_SAFETY_DATA)"
    )
    return SafetyReport(plain.n, plain.n_unsafe, plain.base_rate, plain.dropped, reason=reason)


def _rows(data: SafetyData, mask_N: Tensor) -> SafetyData:
    return SafetyData(
        data.features_NF[mask_N], data.groups_N[mask_N], data.unsafe_N[mask_N].float(), data.weights_N[mask_N].float()
    )


def _balanced(data: SafetyData) -> Tensor:
    """Weights of sum 1, half of it on either class that is there."""
    weights_N = data.weights_N.clone()
    for here in (data.unsafe_N > 0.5, data.unsafe_N <= 0.5):
        if bool(here.any()):
            weights_N[here] /= weights_N[here].sum()
    return weights_N / weights_N.sum()


def _fit(data: SafetyData, config: SafetyConfig, l2: float) -> tuple[Standardizer, Tensor, float]:
    standardizer = Standardizer.of_rows(data.features_NF)
    x_NF, weights_N = standardizer(data.features_NF), _balanced(data)
    weight_F = torch.zeros(x_NF.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_F, bias], max_iter=config.max_steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = 0.5 * l2 * weight_F.square().sum() + TINY_RIDGE * bias.square()
        value = _loss(x_NF @ weight_F + bias, data.unsafe_N, weights_N, config.smoothing) + penalty
        value.backward()
        return value

    optimizer.step(closure)
    return standardizer, weight_F.detach(), float(bias.detach())


def _loss(logits_N: Tensor, unsafe_N: Tensor, weights_N: Tensor, smoothing: float) -> Tensor:
    targets_N = unsafe_N * (1 - 2 * smoothing) + smoothing
    return (functional.binary_cross_entropy_with_logits(logits_N, targets_N, reduction="none") * weights_N).sum()


def _plain_loss(logits_N: Tensor, rows: SafetyData, config: SafetyConfig) -> float:
    return float(_loss(logits_N, rows.unsafe_N, _balanced(rows), config.smoothing))


def _out_of_fold(data: SafetyData, config: SafetyConfig, l2: float, fold_N: Tensor) -> Tensor:
    """The logit N of each answer by a head that has seen nothing of its prompt."""
    logits_N = torch.zeros(len(data.unsafe_N))
    for fold in fold_N.unique().tolist():
        here_N = fold_N == fold
        standardizer, weight_F, bias = _fit(_rows(data, ~here_N), config, l2)
        logits_N[here_N] = standardizer(data.features_NF[here_N]) @ weight_F + bias
    return logits_N


def _cross_fitted(logits_N: Tensor, rows: SafetyData, fold_N: Tensor) -> Tensor:
    """Probabilities N, each fold calibrated by the others."""
    probs_N = torch.zeros(len(logits_N))
    for fold in fold_N.unique().tolist():
        here_N = fold_N == fold
        slope, intercept = _platt(logits_N[~here_N], _rows(rows, ~here_N))
        probs_N[here_N] = (slope * logits_N[here_N] + intercept).sigmoid()
    return probs_N


def _platt(logits_N: Tensor, rows: SafetyData) -> tuple[float, float]:
    """Slope and intercept that make `sigmoid(slope * logit + intercept)` likeliest, by Newton's method.

    A prior of one example pulls the slope to 1, and Platt's smoothed targets (1999, section 2.2) keep both finite.
    A slope that came out below 0 (the head is worse than chance) is 0: everything then costs the base rate.
    """
    s_N, weights_N = logits_N.double(), rows.weights_N.double() * (len(logits_N) / rows.weights_N.double().sum())
    unsafe_N = rows.unsafe_N.double()
    n_unsafe = float((weights_N * unsafe_N).sum())
    n_safe = float(weights_N.sum()) - n_unsafe
    targets_N = torch.where(unsafe_N > 0.5, (n_unsafe + 1) / (n_unsafe + 2), 1 / (n_safe + 2)).double()
    found = torch.tensor([1.0, 0.0], dtype=torch.float64)
    design_N2 = torch.stack([s_N, torch.ones_like(s_N)], 1)
    ridge = torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64))
    for _ in range(30):
        probs_N = (design_N2 @ found).sigmoid()
        gradient = design_N2.T @ (weights_N * (probs_N - targets_N)) + ridge @ (
            found - torch.tensor([1.0, 0.0]).double()
        )
        curvature = design_N2.T @ (design_N2 * (weights_N * probs_N * (1 - probs_N))[:, None]) + ridge
        step = torch.linalg.solve(curvature, gradient)
        found = found - step * min(1.0, 2.0 / max(1e-12, float(step.abs().max())))
    if float(found[0]) < 0:
        rate = float((weights_N * targets_N).sum() / weights_N.sum())
        return 0.0, float(torch.logit(torch.tensor(rate, dtype=torch.float64)))
    return float(found[0]), float(found[1])
