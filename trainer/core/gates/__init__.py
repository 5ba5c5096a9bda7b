"""What a version must show before it may be served. Every gate is recorded with its figure, interval, threshold, number
of cases and verdict; one that does not hold also says what would change it.

    thresholds.py   every threshold, with its reason
    labels.py       the reward model on labels it has not seen: calibration, and order against length
    paired.py       new version against its parent on the same cases: intervals, chance, many gates at once
    verdicts.py     the gates, and what they say together
"""

from trainer.core.gates.labels import Calibration, LabelOutcomes, Share, effective
from trainer.core.gates.paired import Paired
from trainer.core.gates.thresholds import GateThresholds
from trainer.core.gates.verdicts import Candidate, Distance, judge_candidate, passed, refusal

__all__ = [
    "Calibration",
    "Candidate",
    "Distance",
    "GateThresholds",
    "LabelOutcomes",
    "Paired",
    "Share",
    "effective",
    "judge_candidate",
    "passed",
    "refusal",
]
