"""From labels to the sets that a cycle learns from, checks on and judges by.

                     raters of the reward model     raters of the judge        any rater, drawn by lot
  prompts to train   train (reward model)           judge                      judge_only
  prompts held out   held_out (its report)          judge                      judge_only

1. What can't be used is dropped and counted (`trainer.core.cleaning`). The newest `max_labels` are taken, so that a
   cycle over a long history costs no more than over a short one.
2. `judge_only_share` of the labels, drawn by a hash of their ids and so for good, are never learned from, neither by
   the reward model nor by the judge: how far these two agree with them is what an unbiased sample of people says. Such
   a label counts only where none of its answers (up to case, blanks and punctuation) is spoken of, under its prompt,
   by a label in another set; else it is dropped as `seen`.
3. What one rater said twice of the same texts counts once; where the same rater says both, the weights net out and the
   stronger side keeps the difference (a tie drops both). Different raters who disagree are kept: that is the signal.
4. Prompts and raters are assigned by a hash of their id, so what was held out in one cycle is held out in every later
   one: no version's parent has trained on it. Prompts that differ in case, blanks and punctuation only are one prompt.
5. The judge learns from people whom the reward model never heard of. A pair made from two people's thumbs belongs to a
   side only if both do; otherwise it is dropped. A user is whom the tables know as one: the same id under two tenants
   is two people, a labeler is one person under all. Who gave no id is one person for each prompt. With fewer than
   `min_raters` people there is nobody to spare: then the judge learns from the labels on held-out prompts, which the
   reward model has not seen either (`judged_by` says so).
6. Thumbs that all point the same way teach nothing and are dropped from the set that they are alone in.
7. In each set, labels weigh by their source, and a person and a source at most their share (`trainer.core.weights`): a
   user who clicks a thousand times weighs as one user.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.errors import NotEnoughData
from trainer.core.cleaning import is_usable, netted_pairs, netted_ratings, two_sided, usable, usable_prompts
from trainer.core.labels import (
    Labels,
    PairRow,
    People,
    RatingRow,
    Row,
    Turn,
    people_behind,
    prompt_key,
    rater_of,
    text_key,
    texts_of,
    trusted,
)
from trainer.core.weights import SourceWeights, WeightRules, shares, weigh

__all__ = [
    "Dataset",
    "Labels",
    "PairRow",
    "RatingRow",
    "Row",
    "SplitConfig",
    "Turn",
    "all_labels",
    "build",
    "countable",
    "is_held_out",
    "rater_of",
    "share_of",
    "trusted",
]

Side = Literal["train", "held_out", "judge", "mixed"]


@dataclass(frozen=True)
class SplitConfig:
    """How labels are split. `seed` stays the same over the life of a data folder: see rule 4."""

    holdout_share: float = 0.25
    judge_share: float = 0.35
    judge_only_share: float = 0.1
    """Of 200 labels 20: enough to see a judge that is wrong. 0 holds none out."""
    rater_cap: float = 0.01
    source_cap: float = 0.7
    """Largest share of a set's pairs, or of its thumbs, that one source holds where there are others."""
    source_weights: SourceWeights = field(default_factory=SourceWeights)
    min_raters: int = 6
    min_labels: int = 20
    """Fewest labels in the training set and in the judge's."""
    max_labels: int = 3000
    max_text_chars: int = 200_000
    """Prompt and answers of one label together. Beyond it, reading the text costs more than a label is worth; the
    models see the end of a prompt and the beginning of an answer only (`Limits`)."""
    max_train_prompts: int = 256
    max_held_out_prompts: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.holdout_share < 1 and 0 < self.judge_share < 1 and 0 <= self.judge_only_share < 1):
            raise ValueError("holdout_share, judge_share and judge_only_share must be between 0 and 1")
        if not (0 < self.rater_cap <= 1 and 0 < self.source_cap <= 1):
            raise ValueError("rater_cap and source_cap must be above 0 and at most 1")

    @property
    def weights(self) -> WeightRules:
        return WeightRules(self.rater_cap, self.source_cap, self.source_weights)


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
    judge_only: Labels = field(default_factory=lambda: Labels((), ()))
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    """Shares of each source in the weight of the training set's pairs and thumbs, before (`_raw`) and after the caps,
    and the largest share that one person has there."""


def build(
    pairs: Iterable[PairRow],
    ratings: Iterable[RatingRow],
    prompts: Mapping[str, tuple[Turn, ...]],
    config: SplitConfig,
    *,
    thumbs: Iterable[RatingRow] = (),
    older: int = 0,
) -> Dataset:
    """Split labels and prompts (id -> turns, from production) by the rules above; the order of rows is of no effect.

    Where only the newest labels were read, `thumbs` are older ones that pairs were made from (of these only who gave
    them counts), and `older` is how many labels were left out. Raises `NotEnoughData` where a set that is needed would
    be too small.
    """
    ratings = list(ratings)
    dropped: Counter[str] = Counter(older=older)
    behind = people_behind(sorted([*ratings, *thumbs], key=lambda row: row.id))
    rows = _usable(pairs, ratings, config, dropped)
    sealed = [row for row in rows if is_sealed(row.id, config)]
    open_rows = _netted([row for row in rows if not is_sealed(row.id, config)], dropped)
    _require(len(open_rows) + len(sealed), config.min_labels, "labels in all", dropped)
    judged_by: Literal["raters", "prompts"] = (
        "raters" if len({rater_of(row) for row in open_rows}) >= config.min_raters else "prompts"
    )
    sets: dict[Side, list[Row]] = defaultdict(list)
    for row in open_rows:
        sets[_side(row, behind, judged_by, config)].append(row)
    dropped["mixed_raters"] = len(sets["mixed"])
    raw = two_sided(sets["train"], dropped)
    judging = sets["judge"] if judged_by == "raters" else sets["held_out"]
    train, judge = (_weighed(part, config, behind, dropped) for part in (raw, two_sided(judging, dropped)))
    held_out = _weighed(sets["held_out"], config, behind, dropped) if judged_by == "raters" else judge
    _require(len(train), config.min_labels, "labels to train on", dropped)
    _require(len(judge), config.min_labels, "labels for the judge", dropped)
    judge_only = _unseen(_netted(sealed, dropped), [*train.rows(), *held_out.rows(), *judge.rows()], dropped)
    every = usable_prompts(prompts, max_chars=config.max_text_chars) | {row.prompt_id: row.prompt for row in rows}
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
        content_hash=_content_hash((train, held_out, judge, judge_only), [*train_ids, "/", *held_ids]),
        judge_only=judge_only,
        figures=_figures(raw, train, behind),
    )


def all_labels(
    pairs: Iterable[PairRow], ratings: Iterable[RatingRow], *, holdout_share: float, seed: int, rater_cap: float
) -> tuple[Labels, Labels]:
    """Every label, split by prompt into train and held out: for looking at a reward model alone, without a judge."""
    ratings = list(ratings)
    config = SplitConfig(holdout_share=holdout_share, seed=seed, rater_cap=rater_cap, max_labels=2**62)
    dropped: Counter[str] = Counter()
    rows = _netted(_usable(pairs, ratings, config, dropped), dropped)
    held, train = _halves(rows, lambda row: is_held_out(row.prompt, holdout_share, seed))
    behind, rules = people_behind(ratings), WeightRules(rater_cap)
    return weigh(two_sided(train, dropped), rules, behind), weigh(held, rules, behind)


def share_of(kind: str, id: str, seed: int) -> float:
    """A number in [0, 1) that belongs to an id for good: the first 64 bits of a SHA-256."""
    digest = hashlib.sha256(f"{seed}/{kind}/{id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(prompt: Iterable[Turn], share: float, seed: int) -> bool:
    """Whether a prompt, and with it each that differs in case, blanks and punctuation only, is never trained on."""
    return share_of("prompt", prompt_key(prompt), seed) < share


def is_sealed(label_id: str, config: SplitConfig) -> bool:
    """Whether a label is for judging only."""
    return share_of("label", label_id, config.seed) < config.judge_only_share


def _usable(
    pairs: Iterable[PairRow], ratings: Iterable[RatingRow], config: SplitConfig, dropped: Counter[str]
) -> list[Row]:
    """The newest labels that can be used, of sources that count."""
    chars = config.max_text_chars
    rows: list[Row] = [*usable(pairs, dropped, max_chars=chars), *usable(ratings, dropped, max_chars=chars)]
    off, on = _halves(rows, lambda row: config.source_weights.of(row) == 0)
    newest = sorted(on, key=lambda r: (-r.judged_at, r.id))[: config.max_labels]
    dropped["source_off"] = len(off)
    dropped["older"] += len(on) - len(newest)
    return newest


def countable(config: SplitConfig) -> Callable[[Row], bool]:
    """Whether a label is one of those of which the newest `max_labels` are taken."""

    def counts(row: Row) -> bool:
        return is_usable(row, max_chars=config.max_text_chars) and config.source_weights.of(row) > 0

    return counts


def _netted(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    pairs = [row for row in rows if isinstance(row, PairRow)]
    ratings = [row for row in rows if isinstance(row, RatingRow)]
    return [*netted_pairs(pairs, dropped), *netted_ratings(ratings, dropped)]


def _halves(rows: Iterable[Row], which: Callable[[Row], bool]) -> tuple[list[Row], list[Row]]:
    """The rows for which it holds, and the others."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        halves[0 if which(row) else 1].append(row)
    return halves


def _side(row: Row, behind: People, judged_by: Literal["raters", "prompts"], config: SplitConfig) -> Side:
    """Which set a row belongs to."""
    verdicts = {judged_by == "raters" and _judges(person, row, config) for person in behind(row)}
    if len(verdicts) > 1:
        return "mixed"
    if verdicts == {True}:
        return "judge"
    return "held_out" if is_held_out(row.prompt, config.holdout_share, config.seed) else "train"


def _judges(person: str, row: Row, config: SplitConfig) -> bool:
    """Whether somebody is of the judge's raters. The nameless are one for each prompt: it may well be one person."""
    who = f"unknown:{prompt_key(row.prompt)}" if person.startswith("unknown:") else person
    return share_of("rater", who, config.seed) < config.judge_share


def _weighed(rows: Sequence[Row], config: SplitConfig, behind: People, dropped: Counter[str]) -> Labels:
    found = weigh(rows, config.weights, behind)
    dropped["one_person"] += len(rows) - len(found)
    return found


def _unseen(sealed: Sequence[Row], others: Sequence[Row], dropped: Counter[str]) -> Labels:
    """The labels none of whose answers is spoken of in another set."""
    known = {answer for row in others for answer in _answers(row)}
    seen, unseen = _halves(sealed, lambda row: not known.isdisjoint(_answers(row)))
    dropped["seen"] = len(seen)
    return weigh(unseen, WeightRules(1.0))


def _answers(row: Row) -> set[tuple[str, str]]:
    prompt = prompt_key(row.prompt)
    return {(prompt, text_key(text)) for text in texts_of(row)}


def _figures(raw: Sequence[Row], train: Labels, behind: People) -> dict[str, float]:
    """What the caps did to the training set."""
    found: dict[str, float] = {}
    for kind, rows, whole in (
        ("pairs", train.pairs, [r for r in raw if isinstance(r, PairRow)]),
        ("thumbs", train.ratings, [r for r in raw if isinstance(r, RatingRow)]),
    ):
        found |= {f"data_{kind}_{source}_share_raw": share for source, share in shares(whole).items()}
        found |= {f"data_{kind}_{source}_share": share for source, share in shares(rows).items()}
        totals: dict[str, float] = defaultdict(float)
        for row in rows:
            for person in behind(row):
                totals[person] += row.weight
        if totals:
            found[f"data_{kind}_largest_person"] = max(totals.values()) / sum(row.weight for row in rows)
    return found


def _prompt_ids(prompts: Mapping[str, tuple[Turn, ...]], config: SplitConfig) -> tuple[list[str], list[str]]:
    """Prompts to train on and held-out ones, each shuffled once and for all and cut to its limit.

    Of those that differ in case, blanks and punctuation only, one.
    """
    one_each: dict[str, str] = {}
    for prompt_id in sorted(prompts):
        one_each.setdefault(prompt_key(prompts[prompt_id]), prompt_id)
    order = sorted(one_each.values(), key=lambda i: (share_of("order", i, config.seed), i))
    held = [i for i in order if is_held_out(prompts[i], config.holdout_share, config.seed)]
    train = [i for i in order if not is_held_out(prompts[i], config.holdout_share, config.seed)]
    return train[: config.max_train_prompts], held[: config.max_held_out_prompts]


def _require(found: int, needed: int, what: str, dropped: Counter[str]) -> None:
    if found >= needed:
        return
    lost = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()) if n)
    hint = "; thumbs teach only where there are both ups and downs" if dropped["one_sided"] else ""
    raise NotEnoughData(
        f"there are {found} {what} and {needed} are needed{f' (left out: {lost})' if lost else ''}: "
        f"collect more feedback, from more people and on more prompts{hint}"
    )


def _content_hash(parts: Sequence[Labels], prompts: Sequence[str]) -> str:
    """Of all that is learned from labels: who said what of which texts, in which set, from where, at which weight."""
    digest = hashlib.sha256()
    for part in parts:
        for row in part.rows():
            texts = (*texts_of(row), *((str(row.label),) if isinstance(row, RatingRow) else ()))
            said = [row.id, row.prompt_id, row.prompt, *texts, row.source, row.rater, repr(row.weight)]
            digest.update(json.dumps(said).encode())
        digest.update(b"/")
    digest.update(json.dumps(list(prompts)).encode())
    return digest.hexdigest()
