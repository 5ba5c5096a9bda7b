"""The domains of a reward model for records and reports: who speaks in them, and what weights of their own bring."""

import math

from trainer.core.estimates import Estimate
from trainer.core.reward import RewardReport
from trainer.core.reward_domain_report import DomainReport
from trainer.records import Interval, RewardDomainInfo


def domain_infos(report: RewardReport) -> tuple[RewardDomainInfo, ...]:
    """By name."""
    return tuple(_info(domain) for domain in report.domains)


def _info(domain: DomainReport) -> RewardDomainInfo:
    crowd, gain = domain.crowd, domain.gain
    return RewardDomainInfo(
        name=crowd.name,
        labels=crowd.labels,
        counted=crowd.counted,
        users=crowd.users,
        own=crowd.own,
        own_accuracy=None if gain is None else _interval(gain.own),
        common_accuracy=None if gain is None else _interval(gain.common),
        difference=None if gain is None else _interval(gain.difference),
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(mean=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)


def domain_figures(report: RewardReport) -> dict[str, object]:
    """For a cycle's `reward_report.json`; nothing where domains are not told apart."""
    if not report.domains:
        return {}
    return {"domains": [info.model_dump() for info in domain_infos(report)], "own_l2": finite(report.own_l2)}


def finite(value: float | None) -> float | None:
    """JSON knows no infinity: None is no weights of any domain's own."""
    return value if value is not None and math.isfinite(value) else None
