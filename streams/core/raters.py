"""What is known of each rater becomes the weight that their judgements are multiplied by.

Weights of raters live in a table of their own (`gold/annotators`), not in the ratings and pairs: when a rater is found
out, or becomes known, one narrow row changes, and not everything that they ever judged. Whoever learns from rows or
exports them multiplies by the weights of a pinned version of that table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from schemas.labels import Verdict
from schemas.tables import AnnotatorRow, annotator_id
from streams.core.pairing import Cast, in_order, votes_on, winner
from streams.core.reliability import Opinion, Reliability, unknown, weight_of

DIGITS = 3
"""Figures are rounded to so many digits: a new judgement moves everybody's estimate a little, and must not rewrite
every row for that."""
NEITHER = 2


@dataclass(frozen=True, slots=True)
class Conduct:
    """What one rater did in the time that is looked at. `judgements` counts answers (or tasks), not clicks."""

    rater_id: str
    kind: Literal["user", "labeler"]
    judgements: int
    newest: datetime
    overlapping: int = 0
    gold_asked: int = 0
    gold_right: int = 0
    bursts: int = 0
    duplicates: int = 0


def annotator(conduct: Conduct, estimate: Reliability | None, *, cap: int) -> AnnotatorRow | None:
    """The row of one rater, or None where there is nothing to say of them (they weigh 1)."""
    capped = cap_factor(conduct, cap)
    if estimate is None and capped == 1 and not (conduct.bursts or conduct.duplicates):
        return None
    known = estimate or unknown()
    return AnnotatorRow(
        rater_id=conduct.rater_id,
        revision=1,
        kind=conduct.kind,
        judgements=conduct.judgements,
        overlapping=conduct.overlapping,
        gold_asked=conduct.gold_asked,
        gold_right=conduct.gold_right,
        bursts=conduct.bursts,
        duplicates=conduct.duplicates,
        reliability=round(known.mean, DIGITS),
        low=round(known.low, DIGITS),
        high=round(known.high, DIGITS),
        weight=round(weight_of(known.mean) * capped, DIGITS),
        estimated_at=conduct.newest,
    )


def cap_factor(conduct: Conduct, cap: int) -> float:
    """min(1, cap / judgements): whoever judges more than `cap` answers weighs as one who judged `cap`.

    One user who clicks a thousand times would otherwise teach a model their own taste, or their own attack: 1 to 5 %
    of poisoned preferences are known to suffice (Rando & Tramer 2023, arXiv:2311.14455; Baumgärtner et al. 2024,
    arXiv:2404.05530). Labelers are asked to judge much, and are not capped.
    """
    return 1.0 if conduct.kind == "labeler" else min(1.0, cap / max(1, conduct.judgements))


def opinions(labels: Iterable[Cast]) -> list[Opinion]:
    """What each labeler says of each task, as a class: 0 and 1 are the two texts in order, 2 is neither of them.

    Ties and "both bad" are both "neither"; a skip says nothing. Classes follow the texts and not the sides on the
    screen, so a labeler who always takes the left one looks as random as they are.
    """
    tasks: dict[str, list[Cast]] = {}
    for cast in in_order(labels):
        tasks.setdefault(cast.label.task_id, []).append(cast)
    return [
        Opinion(annotator_id("labeler", labeler), task, label_class(cast))
        for task, casts in sorted(tasks.items())
        for labeler, cast in sorted(votes_on(casts).items())
        if cast.label.verdict is not Verdict.SKIP
    ]


def label_class(cast: Cast) -> int:
    """0 where the text that comes first in order is preferred, 1 where the other is, 2 for neither."""
    return side_of(winner(cast.label), (cast.label.left.completion, cast.label.right.completion))


def side_of(text: str | None, texts: Iterable[str]) -> int:
    """The class of a preferred text; a text that is none of the two is "neither"."""
    ordered = sorted(texts)
    return ordered.index(text) if text is not None and text in ordered else NEITHER
