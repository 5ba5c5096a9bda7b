"""What a reward model is worth on prompts it has not seen: accuracy, calibration, and what mere length reaches.

Shapes: N answers, P pairs, R ratings.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.calibration import calibration_error
from trainer.core.estimates import Estimate, accuracy, correlation, hits, mean_over_groups
from trainer.core.ordering import ordering
from trainer.core.reward_data import RewardData
from trainer.core.reward_domain_report import DomainReport, Gain

RATINGS = "rating"
"""The name of thumbs among the sources of labels."""


@dataclass(frozen=True)
class Agreement:
    """How often the scores agree with one kind of labels, or with the labels of one segment."""

    name: str
    accuracy: Estimate


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold accuracy over every label, for the reward model and for length, and the paired difference.

    Length chooses its sign on the training folds: "the longer one wins", or the shorter one. Intervals of the shares
    are Wilson's; that of the difference is a bootstrap over prompts.
    """

    accuracy: Estimate
    length: Estimate
    difference: Estimate
    with_length: Estimate
    """Of the scores before the length effect was taken out of them."""


@dataclass(frozen=True)
class RewardReport:
    """What the ensemble is worth on prompts it has not seen; None where there were no such cases.

    The `length_correlation`s are Pearson's, of score and number of words: as the scores are, and with the effect of
    length left in. `cross_validated` is out of fold on the training labels, pairs if there are any, else ratings.
    """

    n_pairs: int
    n_ratings: int
    l2: float
    pair_accuracy: Estimate | None
    pair_length_baseline: Estimate | None
    rating_accuracy: Estimate | None
    rating_length_baseline: Estimate | None
    ece: float | None
    """Expected calibration error of the pair (or, without pairs, thumb) probabilities, ten bins."""
    length_correlation: float
    ece_before: float | None = None
    """The same without the temperature."""
    temperature: float = 1.0
    length_correlation_before: float = 0.0
    cross_validated: Estimate | None = None
    dropped: int = 0
    """Labels left out because a feature or a weight was no finite number, or the rater is one-sided."""
    ordering: Estimate | None = None
    """Share of labels whose order the scores have, those that were trained on (out of fold) included; see
    `trainer.core.ordering`."""
    by_source: tuple[Agreement, ...] = ()
    by_segment: tuple[Agreement, ...] = ()
    domains: tuple[DomainReport, ...] = ()
    """Of each domain that the labels name, where domains are told apart."""
    domains_gain: Gain | None = None
    """Of all domains with weights of their own together."""
    own_l2: float | None = None
    """Strength at which these are drawn to the common ones; infinite: there are none."""


@dataclass(frozen=True)
class Scored:
    """Mean scores of the answers under judgement: calibrated, before that, and with the effect of length."""

    scores_N: Tensor
    uncalibrated_N: Tensor
    with_length_N: Tensor


def report(
    scored: Scored,
    held_out: RewardData,
    *,
    l2: float,
    temperature: float,
    trained_on: RewardData,
    dropped: int = 0,
    cross_validated: Estimate | None = None,
    also: Sequence[tuple[Tensor, RewardData]] = (),
) -> RewardReport:
    """The report on the labels of `held_out`; length chooses its sign on `trained_on`.

    `also` are scores out of fold with the labels on their answers, which tell of the ordering as well.
    """
    margins_P, rated_R = margins(scored.scores_N, held_out), scored.scores_N[held_out.rated_R]
    return RewardReport(
        n_pairs=len(trained_on.pairs_P2),
        n_ratings=len(trained_on.rated_R),
        l2=l2,
        pair_accuracy=accuracy(margins_P, torch.ones(len(margins_P))),
        pair_length_baseline=accuracy(pair_length_margins(held_out, trained_on), torch.ones(len(margins_P))),
        rating_accuracy=accuracy(rated_R, held_out.labels_R),
        rating_length_baseline=accuracy(rating_length_margins(held_out, trained_on), held_out.labels_R),
        ece=_ece(scored.scores_N, held_out),
        ece_before=_ece(scored.uncalibrated_N, held_out),
        temperature=temperature,
        length_correlation=correlation(scored.scores_N, held_out.lengths_N.float()),
        length_correlation_before=correlation(scored.with_length_N, held_out.lengths_N.float()),
        cross_validated=cross_validated,
        dropped=dropped,
        ordering=ordering([*also, (scored.scores_N, held_out)]),
        by_source=agreement(margins_P, rated_R, held_out, held_out.sources_P, (RATINGS,) * len(rated_R)),
        by_segment=agreement(margins_P, rated_R, held_out, held_out.segments_P, held_out.segments_R),
    )


def margins(scores_N: Tensor, data: RewardData) -> Tensor:
    """Score of the chosen answer minus that of the rejected one, P."""
    chosen, rejected = data.pairs_P2.unbind(1)
    return scores_N[chosen] - scores_N[rejected]


def pair_length_margins(data: RewardData, trained_on: RewardData) -> Tensor:
    """The baseline's margins P: longer wins, or shorter where that is right more often on the training pairs."""
    sign = -1.0 if float(_word_margins(trained_on).sign().mean().nan_to_num()) < 0 else 1.0
    return sign * _word_margins(data)


def _word_margins(data: RewardData) -> Tensor:
    return margins(data.lengths_N.float(), data)


def rating_length_margins(data: RewardData, trained_on: RewardData) -> Tensor:
    """The baseline's margins R: words beyond the training answers' median, with the sign that fits their labels."""
    middle = float(trained_on.lengths_N.float().median())
    trained = trained_on.lengths_N[trained_on.rated_R].float() - middle
    sign = 1.0
    if len(trained):
        sign = 1.0 if float(hits(trained, trained_on.labels_R).mean()) >= 0.5 else -1.0
    return sign * (data.lengths_N[data.rated_R].float() - middle)


def _ece(scores_N: Tensor, data: RewardData) -> float | None:
    margins_P = margins(scores_N, data)
    if len(margins_P):
        return calibration_error(margins_P.sigmoid(), torch.ones(len(margins_P)))
    return calibration_error(scores_N[data.rated_R].sigmoid(), data.labels_R)


def agreement(
    margins_P: Tensor, rated_R: Tensor, data: RewardData, names_P: Sequence[str], names_R: Sequence[str]
) -> tuple[Agreement, ...]:
    """Accuracy for each name, by name; pairs and ratings of the same name are counted together."""
    if len(names_P) != len(margins_P) or len(names_R) != len(rated_R):
        names_P = names_P or ("",) * len(margins_P)
        names_R = names_R or ("",) * len(rated_R)
    right = torch.cat([hits(margins_P, torch.ones(len(margins_P))), hits(rated_R, data.labels_R)]).tolist()
    found: dict[str, list[float]] = {}
    for name, hit in zip((*names_P, *names_R), right, strict=True):
        if name:
            found.setdefault(name, []).append(hit)
    return tuple(Agreement(name, _wilson_of(found[name])) for name in sorted(found))


def _wilson_of(right: Sequence[float]) -> Estimate:
    ones = torch.ones(len(right))
    estimate = accuracy(torch.tensor(right) - 0.5, ones)
    assert estimate is not None
    return estimate


def compare_with_length(
    scores_N: Tensor, with_length_N: Tensor, length_margins_K: Tensor, data: RewardData
) -> CrossValidated | None:
    """The comparison over pairs, or over ratings where there are no pairs; None without labels."""
    if len(data.pairs_P2):
        groups_K, labels_K = data.groups_N[data.pairs_P2[:, 0]], torch.ones(len(data.pairs_P2))
        model_K, before_K = margins(scores_N, data), margins(with_length_N, data)
    else:
        groups_K, labels_K = data.groups_N[data.rated_R], data.labels_R
        model_K, before_K = scores_N[data.rated_R], with_length_N[data.rated_R]
    model, length = accuracy(model_K, labels_K), accuracy(length_margins_K, labels_K)
    before = accuracy(before_K, labels_K)
    difference = mean_over_groups(hits(model_K, labels_K) - hits(length_margins_K, labels_K), groups_K)
    if model is None or length is None or before is None or difference is None:
        return None
    return CrossValidated(model, length, difference, before)


_FLAT_ESTIMATES = ("ordering", "pair_accuracy", "pair_length_baseline", "rating_accuracy", "rating_length_baseline")


def as_metrics(report: RewardReport) -> Mapping[str, float | None]:
    """The report as flat numbers for events and files; what differs by source or segment is in the files alone."""
    flat: dict[str, float | None] = {
        "n_pairs": float(report.n_pairs),
        "n_ratings": float(report.n_ratings),
        "l2": report.l2,
        "ece": report.ece,
        "ece_before": report.ece_before,
        "temperature": report.temperature,
        "length_correlation": report.length_correlation,
        "length_correlation_before": report.length_correlation_before,
        "cross_validated": None if report.cross_validated is None else report.cross_validated.mean,
        "dropped": float(report.dropped),
    }
    if report.domains:
        flat |= {"domains": float(len(report.domains)), "domains_own": float(sum(d.crowd.own for d in report.domains))}
        if report.domains_gain is not None:
            gain = report.domains_gain.difference
            flat |= {"domains_gain_mean": gain.mean, "domains_gain_low": gain.low, "domains_gain_high": gain.high}
    for name in _FLAT_ESTIMATES:
        estimate: Estimate | None = getattr(report, name)
        for part in ("mean", "low", "high"):
            flat[f"{name}_{part}"] = None if estimate is None else getattr(estimate, part)
    return flat
