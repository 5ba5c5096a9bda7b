"""From labels to the sets that a cycle learns from, checks on and judges by.

                     raters of the reward model     raters of the judge
  prompts to train   train (reward model)           judge
  prompts held out   held_out (its report)          judge

A label's weight is its row's (how sure its judges are) times that of the raters behind it (`trusted`). Then, in order:
1. Empty and identical answers are dropped, and labels that weigh nothing. What one rater said twice of the same texts
   counts once; where the same rater says both, the weights net out and the stronger side keeps the difference (a tie
   drops both). Different raters who disagree are kept: that is the signal.
2. The newest `max_labels` are taken, so that a cycle over a long history costs no more than over a short one.
3. Prompts and raters are assigned by a hash of their id, so what was held out in one cycle is held out in every later
   one: no version's parent has trained on it.
4. The judge learns from people whom the reward model never heard of. A pair made from two people's thumbs belongs to a
   side only if both do; otherwise it is dropped. With fewer than `min_raters` people there is nobody to spare: then the
   judge learns from the labels on held-out prompts, which the reward model has not seen either (`judged_by` says so).
5. In each set, one rater's weight is at most the larger of `rater_cap` and twice a fair share (2 / raters): a user who
   clicks a thousand times weighs as one user.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from schemas.errors import NotEnoughData
from schemas.tables import annotator_id

Turn = tuple[str, str]
"""Role and content."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """A comparison. `responses` are the ids of the answers compared, where they were served."""

    id: str
    prompt_id: str
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    weight: float
    source: str
    rater: str | None
    judged_at: float
    responses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RatingRow:
    """A thumb: up (`label` true) or down."""

    id: str
    prompt_id: str
    prompt: tuple[Turn, ...]
    completion: str
    label: bool
    weight: float
    source: str
    rater: str | None
    judged_at: float
    response: str = ""


Row = PairRow | RatingRow
R = TypeVar("R", PairRow, RatingRow)


@dataclass(frozen=True)
class SplitConfig:
    """How labels are split. `seed` stays the same over the life of a data folder: see rule 3."""

    holdout_share: float = 0.25
    judge_share: float = 0.35
    rater_cap: float = 0.01
    min_raters: int = 6
    min_labels: int = 20
    """Fewest labels in the training set and in the judge's."""
    max_labels: int = 3000
    max_train_prompts: int = 256
    max_held_out_prompts: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.holdout_share < 1 and 0 < self.judge_share < 1 and 0 < self.rater_cap <= 1):
            raise ValueError("holdout_share, judge_share and rater_cap must be between 0 and 1")


@dataclass(frozen=True)
class Labels:
    """Pairs and ratings of one set, in a fixed order."""

    pairs: tuple[PairRow, ...]
    ratings: tuple[RatingRow, ...]

    def __len__(self) -> int:
        return len(self.pairs) + len(self.ratings)

    def raters(self) -> set[str]:
        """Whoever stands behind these labels."""
        return {rater_of(row) for row in (*self.pairs, *self.ratings)}


@dataclass(frozen=True)
class Dataset:
    """What one cycle works with. `dropped` counts labels by the reason they are in no set."""

    train: Labels
    held_out: Labels
    judge: Labels
    judged_by: Literal["raters", "prompts"]
    train_prompts: tuple[tuple[Turn, ...], ...]
    held_out_prompts: tuple[tuple[Turn, ...], ...]
    dropped: Mapping[str, int]
    content_hash: str


def rater_of(row: Row) -> str:
    """The rater's id; a label without one counts as a person of its own."""
    return row.rater if row.rater is not None else f"unknown:{row.id}"


def trusted(
    pairs: Iterable[PairRow], ratings: Iterable[RatingRow], trust: Mapping[str, float]
) -> tuple[tuple[PairRow, ...], tuple[RatingRow, ...]]:
    """The same labels, each with the weights of the people behind it multiplied in.

    `trust` is gold.annotators: weight by annotator id; who is not in it weighs 1. A pair of two people's thumbs is as
    sure as both of them are. What weighs nothing is left out by `build`, which counts it.
    """
    rated = tuple(replace(row, weight=row.weight * _trust_of(row, trust)) for row in ratings)
    thumbs = {row.response: row for row in rated if row.response}
    weighed: list[PairRow] = []
    for row in pairs:
        behind = {_annotator(row): _trust_of(row, trust)}
        if row.source == "same_prompt":
            others = [thumbs[response] for response in row.responses if response in thumbs]
            behind |= {_annotator(other): _trust_of(other, trust) for other in others}
        weighed.append(replace(row, weight=row.weight * math.prod(behind.values())))
    return tuple(weighed), rated


def _trust_of(row: Row, trust: Mapping[str, float]) -> float:
    return trust.get(_annotator(row), 1.0)


def _annotator(row: Row) -> str:
    return annotator_id("labeler" if row.source == "label" else "user", rater_of(row))


def build(
    pairs: Iterable[PairRow],
    ratings: Iterable[RatingRow],
    prompts: Mapping[str, tuple[Turn, ...]],
    config: SplitConfig,
) -> Dataset:
    """Split labels and prompts (id -> turns, from production) by the rules above; the order of rows is of no effect.

    Raises `NotEnoughData` where a set that is needed would be too small.
    """
    dropped: Counter[str] = Counter()
    clean_pairs, clean_ratings = _clean_pairs(pairs, dropped), _clean_ratings(ratings, dropped)
    kept = _newest([*clean_pairs, *clean_ratings], config.max_labels)
    dropped["older"] = len(clean_pairs) + len(clean_ratings) - len(kept)
    _require(len(kept), config.min_labels, "labels in all", dropped)
    sides = _sides(kept, config)
    sets: dict[str, list[Row]] = defaultdict(list)
    for row in kept:
        sets[sides(row)].append(row)
    dropped["mixed_raters"] = len(sets["mixed"])
    judged_by: Literal["raters", "prompts"] = (
        "raters" if len({rater_of(r) for r in kept}) >= config.min_raters else "prompts"
    )
    if judged_by == "prompts":
        sets["judge"] = sets["held_out"]
    train, held_out, judge = (labels(sets[name], config.rater_cap) for name in ("train", "held_out", "judge"))
    _require(len(train), config.min_labels, "labels to train on", dropped)
    _require(len(judge), config.min_labels, "labels for the judge", dropped)
    every = dict(prompts) | {row.prompt_id: row.prompt for row in kept}
    train_ids, held_ids = _prompt_ids(every, config)
    _require(len(train_ids), 1, "prompts to train on", dropped)
    _require(len(held_ids), 1, "held-out prompts", dropped)
    return Dataset(
        train=train,
        held_out=held_out,
        judge=judge,
        judged_by=judged_by,
        train_prompts=tuple(every[i] for i in train_ids),
        held_out_prompts=tuple(every[i] for i in held_ids),
        dropped={reason: n for reason, n in sorted(dropped.items()) if n},
        content_hash=_content_hash(train, held_out, judge, [*train_ids, "/", *held_ids]),
    )


def all_labels(
    pairs: Iterable[PairRow], ratings: Iterable[RatingRow], *, holdout_share: float, seed: int, rater_cap: float
) -> tuple[Labels, Labels]:
    """Every label, split by prompt into train and held out: for looking at a reward model alone, without a judge."""
    dropped: Counter[str] = Counter()
    rows: list[Row] = [*_clean_pairs(pairs, dropped), *_clean_ratings(ratings, dropped)]
    held = [row for row in rows if is_held_out(row.prompt_id, holdout_share, seed)]
    train = [row for row in rows if not is_held_out(row.prompt_id, holdout_share, seed)]
    return labels(train, rater_cap), labels(held, rater_cap)


def share_of(kind: str, id: str, seed: int) -> float:
    """A number in [0, 1) that belongs to an id for good: the first 64 bits of a SHA-256."""
    digest = hashlib.sha256(f"{seed}/{kind}/{id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(prompt_id: str, share: float, seed: int) -> bool:
    """Whether a prompt is never trained on."""
    return share_of("prompt", prompt_id, seed) < share


def labels(rows: Iterable[Row], rater_cap: float) -> Labels:
    """A set in its fixed order, with the raters' weights capped; pairs and ratings are capped each by themselves."""
    ordered = sorted(rows, key=lambda row: row.id)
    pairs = [row for row in ordered if isinstance(row, PairRow)]
    ratings = [row for row in ordered if isinstance(row, RatingRow)]
    return Labels(tuple(_capped(pairs, rater_cap)), tuple(_capped(ratings, rater_cap)))


def cap_weights(totals: Mapping[str, float], share: float) -> float:
    """The largest total weight c that a rater may have: c = s * sum(min(total, c)), with s = max(share, 2 / raters).

    Solved from the top: with the k heaviest at the cap, c = s * rest / (1 - s k). Infinite where nobody is above it.
    """
    heaviest = sorted(totals.values(), reverse=True)
    allowed = max(share, 2 / max(1, len(heaviest)))
    if allowed >= 1 or not heaviest or heaviest[0] <= allowed * sum(heaviest):
        return float("inf")
    rest = sum(heaviest)
    cap = heaviest[0]
    for k, weight in enumerate(heaviest, start=1):
        rest -= weight
        if allowed * k >= 1:
            break
        cap = allowed * rest / (1 - allowed * k)
        if k == len(heaviest) or heaviest[k] <= cap:
            break
    return cap


def _capped(rows: Sequence[R], share: float) -> list[R]:
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        totals[rater_of(row)] += row.weight
    cap = cap_weights(totals, share)
    factors = {rater: min(1.0, cap / total) for rater, total in totals.items()}
    return [replace(row, weight=row.weight * factors[rater_of(row)]) for row in rows]


def _clean_pairs(rows: Iterable[PairRow], dropped: Counter[str]) -> list[PairRow]:
    usable: list[PairRow] = []
    for row in rows:
        if not row.chosen.strip() or not row.rejected.strip():
            dropped["empty"] += 1
        elif row.chosen == row.rejected:
            dropped["identical"] += 1
        elif not row.weight > 0:
            dropped["weightless"] += 1
        else:
            usable.append(row)
    return _netted(
        usable,
        what=lambda r: (rater_of(r), r.prompt_id, *sorted((r.chosen, r.rejected))),
        side=lambda r: r.chosen > r.rejected,
        dropped=dropped,
    )


def _clean_ratings(rows: Iterable[RatingRow], dropped: Counter[str]) -> list[RatingRow]:
    usable: list[RatingRow] = []
    for row in rows:
        if not row.completion.strip():
            dropped["empty"] += 1
        elif not row.weight > 0:
            dropped["weightless"] += 1
        else:
            usable.append(row)
    return _netted(
        usable, what=lambda r: (rater_of(r), r.prompt_id, r.completion), side=lambda r: r.label, dropped=dropped
    )


def _netted(
    rows: Sequence[R], *, what: Callable[[R], tuple[str, ...]], side: Callable[[R], bool], dropped: Counter[str]
) -> list[R]:
    """One row for all that a rater said of the same texts: the heaviest row of the side that prevails."""
    groups: dict[tuple[str, ...], list[R]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: (-r.weight, r.id)):
        groups[what(row)].append(row)
    found: list[R] = []
    for group in groups.values():
        ayes, noes = ([r for r in group if side(r) is wanted] for wanted in (True, False))
        strength = (ayes[0].weight if ayes else 0.0) - (noes[0].weight if noes else 0.0)
        if strength:
            found.append(replace((ayes if strength > 0 else noes)[0], weight=abs(strength)))
        dropped["repeated"] += len(ayes) + len(noes) - (1 if strength else 0)
    return found


def _newest(rows: Iterable[Row], limit: int) -> list[Row]:
    return sorted(rows, key=lambda r: (-r.judged_at, r.id))[:limit]


def _sides(rows: Sequence[Row], config: SplitConfig) -> Callable[[Row], str]:
    """Which set a row belongs to: train, held_out, judge or mixed."""
    few = len({rater_of(row) for row in rows}) < config.min_raters
    thumbs = {row.response: rater_of(row) for row in rows if isinstance(row, RatingRow) and row.response}

    def judges(rater: str) -> bool:
        return not few and share_of("rater", rater, config.seed) < config.judge_share

    def side(row: Row) -> str:
        behind = {rater_of(row)}
        if isinstance(row, PairRow) and row.source == "same_prompt":
            behind |= {thumbs[response] for response in row.responses if response in thumbs}
        verdicts = {judges(rater) for rater in behind}
        if len(verdicts) > 1:
            return "mixed"
        if verdicts == {True}:
            return "judge"
        return "held_out" if is_held_out(row.prompt_id, config.holdout_share, config.seed) else "train"

    return side


def _prompt_ids(prompts: Mapping[str, tuple[Turn, ...]], config: SplitConfig) -> tuple[list[str], list[str]]:
    """Prompts to train on and held-out ones, each shuffled once and for all and cut to its limit."""
    order = sorted(prompts, key=lambda i: (share_of("order", i, config.seed), i))
    held = [i for i in order if is_held_out(i, config.holdout_share, config.seed)]
    train = [i for i in order if not is_held_out(i, config.holdout_share, config.seed)]
    return train[: config.max_train_prompts], held[: config.max_held_out_prompts]


def _require(found: int, needed: int, what: str, dropped: Counter[str]) -> None:
    if found >= needed:
        return
    lost = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()) if n)
    raise NotEnoughData(
        f"there are {found} {what} and {needed} are needed{f' (left out: {lost})' if lost else ''}: "
        f"collect more feedback, from more people and on more prompts"
    )


def _content_hash(train: Labels, held_out: Labels, judge: Labels, prompts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in (train, held_out, judge):
        for row in (*part.pairs, *part.ratings):
            texts = (row.chosen, row.rejected) if isinstance(row, PairRow) else (row.completion, str(row.label))
            digest.update(json.dumps([row.id, row.prompt_id, *texts, row.rater, repr(row.weight)]).encode())
        digest.update(b"/")
    digest.update(json.dumps(list(prompts)).encode())
    return digest.hexdigest()
