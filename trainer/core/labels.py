"""What people said, as rows: comparisons and thumbs, who is behind each, and how far these people are trusted."""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from schemas.ids import content_id
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
People = Callable[[Row], frozenset[str]]
"""Whoever is behind a label: one person, or the two whose thumbs were made into a pair."""
_BETWEEN_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Labels:
    """Pairs and ratings of one set, in a fixed order."""

    pairs: tuple[PairRow, ...]
    ratings: tuple[RatingRow, ...]

    def __len__(self) -> int:
        return len(self.pairs) + len(self.ratings)

    def rows(self) -> tuple[Row, ...]:
        """All of them, pairs first."""
        return (*self.pairs, *self.ratings)

    def raters(self) -> set[str]:
        """Whoever is named by these labels."""
        return {rater_of(row) for row in self.rows()}


def rater_of(row: Row) -> str:
    """The rater's id; a label without one counts as a person of its own."""
    return row.rater if row.rater is not None else f"unknown:{row.id}"


def texts_of(row: Row) -> tuple[str, ...]:
    """The answers that a label speaks of."""
    return (row.chosen, row.rejected) if isinstance(row, PairRow) else (row.completion,)


def prompt_key(prompt: Iterable[Turn]) -> str:
    """An id that a prompt shares with those that differ in case, blanks and punctuation only."""
    return content_id("prompt", *(part for role, content in prompt for part in (role, text_key(content))))


def text_key(text: str) -> str:
    """Letters and digits of a text in one case and Unicode form; a text without any stands for itself."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _BETWEEN_WORDS.sub("", plain) or text


def people_behind(ratings: Iterable[RatingRow]) -> People:
    """Who is behind a label, given all the thumbs that pairs were made from (those too old to be used as well).

    A pair of source `same_prompt` was made from the thumbs on two answers, often two people's, and names one of them.
    """
    thumbs = {row.response: rater_of(row) for row in ratings if row.response}

    def behind(row: Row) -> frozenset[str]:
        others = row.responses if isinstance(row, PairRow) and row.source == "same_prompt" else ()
        return frozenset({rater_of(row), *(thumbs[response] for response in others if response in thumbs)})

    return behind


def trusted(
    pairs: Iterable[PairRow], ratings: Iterable[RatingRow], trust: Mapping[str, float]
) -> tuple[tuple[PairRow, ...], tuple[RatingRow, ...]]:
    """The same labels, each with the weights of the people behind it multiplied in.

    `trust` is gold.annotators: weight by annotator id; who is not in it weighs 1. A pair of two people's thumbs is as
    sure as both of them are. What weighs nothing is left out by `dataset.build`, which counts it.
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
