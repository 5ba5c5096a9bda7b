"""How much each label counts: by where it comes from, and at most so much for one source and for one person.

In each set, pairs and thumbs each by themselves (they have losses of their own):
1. A row's weight is multiplied by that of its source (`SourceWeights`).
2. A source holds at most `source_cap` of the weight. It is cut for that to a quarter at most: a handful of labels of
   another kind must not come to rule by being scarce.
3. A person holds at most the larger of `rater_cap` and twice a fair share. This goes last and is exact; a pair of two
   people's thumbs counts for both in full, because without either there would be no pair.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from trainer.core.labels import Labels, PairRow, People, R, RatingRow, Row, people_behind

LARGEST_CUT = 4.0
"""By how much a label of a source that is beyond its cap may be made to count less than another."""
ROUNDS = 200
P = TypeVar("P", str, int)
"""A person, by name or by number."""


@dataclass(frozen=True)
class SourceWeights:
    """What a label of each source counts, times the weight that its row has.

    All are 1 by default, because the rows of gold carry their source's weight already (`WEIGHTS` in
    streams/core/pairing.py: 1, and 0.5 for `same_prompt`); a second one would count the same doubt twice. Change one
    where a product knows better than that table: it takes effect without a rebuild. 0 leaves a source out.
    """

    thumb: float = 1.0
    """One person's verdict on one answer: the signal that there is most of."""
    label: float = 1.0
    """A labeler saw both texts side by side."""
    correction: float = 1.0
    """Somebody wrote what they wanted instead. Lower it where such texts are told from a model's by their style."""
    regenerate: float = 1.0
    """One user saw both answers, one in place of the other, and judged each."""
    siblings: float = 1.0
    """One user was shown both answers to one request and judged each."""
    same_prompt: float = 1.0
    """Two verdicts that were not made as a comparison, often by two people: the row says 0.5."""

    def __post_init__(self) -> None:
        if any(not 0 <= weight < float("inf") for weight in asdict(self).values()):
            raise ValueError("the weight of a source must be a number from 0")

    def of(self, row: Row) -> float:
        """1 for a source that is not known here."""
        return float(getattr(self, row.source, 1.0))


@dataclass(frozen=True)
class WeightRules:
    """The three rules above."""

    rater_cap: float
    source_cap: float = 1.0
    sources: SourceWeights = field(default_factory=SourceWeights)


def weigh(rows: Iterable[Row], rules: WeightRules, behind: People | None = None) -> Labels:
    """A set in its fixed order, its weights by the rules; what one person is behind altogether is left out.

    `behind` tells who is; by default it is told by the thumbs among the rows.
    """
    ordered = sorted(rows, key=lambda row: row.id)
    who = behind or people_behind(row for row in ordered if isinstance(row, RatingRow))
    pairs = [row for row in ordered if isinstance(row, PairRow)]
    ratings = [row for row in ordered if isinstance(row, RatingRow)]
    return Labels(tuple(_weighed(pairs, rules, who)), tuple(_weighed(ratings, rules, who)))


def shares(rows: Sequence[Row], sources: SourceWeights | None = None) -> dict[str, float]:
    """Each source's share of the weight, in order of name."""
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row.source] += row.weight * (sources.of(row) if sources else 1.0)  # type: ignore[assignment]
    whole = sum(totals.values()) or 1.0
    return {source: totals[source] / whole for source in sorted(totals)}


def cap_weights(totals: Mapping[str, float], share: float) -> float:
    """The largest total weight c that a rater may have: c = s * sum(min(total, c)), with s = max(share, 2 / raters)."""
    return solve_cap(list(totals.values()), max(share, 2 / max(1, len(totals))))


def solve_cap(totals: Sequence[float], share: float) -> float:
    """c = share * sum(min(total, c)). Infinite where nobody is above it.

    Solved from the top: with the k heaviest at the cap, c = share * rest / (1 - share k).
    """
    heaviest = sorted(totals, reverse=True)
    if share >= 1 or not heaviest or heaviest[0] <= share * sum(heaviest):
        return float("inf")
    rest = sum(heaviest)
    cap = heaviest[0]
    for k, weight in enumerate(heaviest, start=1):
        rest -= weight
        if share * k >= 1:
            break
        cap = share * rest / (1 - share * k)
        if k == len(heaviest) or heaviest[k] <= cap:
            break
    return cap


def _weighed(rows: Sequence[R], rules: WeightRules, behind: People) -> list[R]:
    weighed = [replace(row, weight=row.weight * rules.sources.of(row)) for row in rows]
    balanced = _balanced([row for row in weighed if row.weight > 0], rules.source_cap)
    return _capped(balanced, rules.rater_cap, behind)


def _balanced(rows: Sequence[R], share: float) -> list[R]:
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        totals[row.source] += row.weight
    cap = solve_cap(list(totals.values()), max(share, 1 / max(1, len(totals))))
    factors = {source: max(1 / LARGEST_CUT, min(1.0, cap / total)) for source, total in totals.items()}
    return [replace(row, weight=row.weight * factors[row.source]) for row in rows]


def _capped(rows: Sequence[R], share: float, behind: People) -> list[R]:
    weights = capped([sorted(behind(row)) for row in rows], [row.weight for row in rows], share)
    return [replace(row, weight=w) for row, w in zip(rows, weights, strict=True) if w is not None]


def capped(people: Sequence[Sequence[P]], weights: Sequence[float], share: float) -> list[float | None]:
    """Cut whoever is above the larger of `share` and twice a fair share, again and again while that lowers the sum.

    `people` are those behind each weight. Where somebody is behind so much that nothing else would be left, all of
    theirs goes (None).
    """
    everyone = {person for some in people for person in some}
    if not everyone:
        return [None] * len(people)
    allowed = max(share, 2 * sum(map(len, people)) / len(people) / len(everyone))
    cut = list(weights)
    for _ in range(ROUNDS):
        totals = _totals(people, cut)
        whole, counted = sum(cut), sum(totals.values())
        if max(totals.values()) <= allowed * whole * (1 + 1e-9):
            break
        cap = solve_cap(list(totals.values()), allowed * whole / counted)
        factors = {person: min(1.0, cap / total) for person, total in totals.items()}
        cut = [w * min(factors[p] for p in some) for w, some in zip(cut, people, strict=True)]
    else:
        totals = _totals(people, cut)
        heaviest = max(totals, key=lambda person: (totals[person], person))
        kept = [n for n, some in enumerate(people) if heaviest not in some]
        left = capped([people[n] for n in kept], [weights[n] for n in kept], share)
        found = dict(zip(kept, left, strict=True))
        return [found.get(n) for n in range(len(people))]
    return list(cut)


def _totals(people: Sequence[Sequence[P]], weights: Sequence[float]) -> dict[P, float]:
    totals: dict[P, float] = defaultdict(float)
    for some, weight in zip(people, weights, strict=True):
        for person in some:
            totals[person] += weight
    return totals
