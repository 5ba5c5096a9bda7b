"""Judged answers to one prompt become preference pairs.

Every pair is a function of the prompt's present evidence alone (its responses and its labels), never of the order
in which that came: the whole set is recomputed whenever something about the prompt changes, and the difference
is written as revisions. Choices among candidates are made by hash, so that a rebuild makes the same ones.

Identical texts never pair: such a pair has nothing to teach and would make contradictory thumbs cancel noisily.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.ids import content_id
from schemas.labels import Label, Verdict
from schemas.preferences import PreferenceSource
from schemas.tables import PreferenceRow, ResponseRow

MAX_PAIRS_PER_RESPONSE = 3
"""Pairs that share an answer are not independent evidence; a few of them suffice (InstructGPT, section 3.4, trains
all pairs of one prompt in one batch because they otherwise overfit)."""

MAX_RATED_PER_PROMPT = 64
"""So many answers of either thumb are considered for one prompt: a popular prompt must not cost quadratic work."""

WEIGHTS = {
    PreferenceSource.LABEL: 1.0,  # a human saw both texts side by side
    PreferenceSource.CORRECTION: 1.0,  # a human wrote what they wanted instead
    PreferenceSource.REGENERATE: 1.0,  # one user saw both answers and judged each
    PreferenceSource.SAME_PROMPT: 0.5,  # two judgements that were not made as a comparison, often by two people
}


@dataclass(frozen=True, slots=True)
class Cast:
    """One label event."""

    event_id: str
    time: datetime
    label: Label


def pairs(responses: Iterable[ResponseRow], labels: Iterable[Cast]) -> dict[str, PreferenceRow]:
    """All pairs of one prompt by their ids. `responses` are its latest rows, `labels` all that was cast on it."""
    alive = sorted((r for r in responses if not r.retracted), key=lambda r: r.response_id)
    found = [*_linked(alive), *_corrected(alive), *_decided(labels)]
    taken = {p.preference_id for p in found}
    found += [p for p in _rated(alive) if p.preference_id not in taken]
    return {p.preference_id: p for p in found}


def _linked(responses: Sequence[ResponseRow]) -> list[PreferenceRow]:
    """An answer and the one that replaced it on request, with opposite thumbs: one user's own comparison."""
    by_id = {r.response_id: r for r in responses}
    links = [(later, by_id[later.regenerates]) for later in responses if later.regenerates in by_id]
    opposed = [_up_first(a, b) for a, b in links if a.thumb and b.thumb and a.thumb != b.thumb]
    return [_pair(up, down, PreferenceSource.REGENERATE) for up, down in opposed if up.completion != down.completion]


def _up_first(a: ResponseRow, b: ResponseRow) -> tuple[ResponseRow, ResponseRow]:
    return (a, b) if (a.thumb or 0) > 0 else (b, a)


def _rated(responses: Sequence[ResponseRow]) -> list[PreferenceRow]:
    """One answer rated up and one rated down: greedily by the hash of the pair, each answer in a few at most."""
    ups, downs = _considered(responses, 1), _considered(responses, -1)
    candidates = [(u, d) for u in ups for d in downs if u.completion != d.completion]
    candidates.sort(key=lambda pair: _draw(pair[0].response_id, pair[1].response_id))
    used: Counter[str] = Counter()
    chosen: list[PreferenceRow] = []
    for up, down in candidates:
        if max(used[up.response_id], used[down.response_id]) < MAX_PAIRS_PER_RESPONSE:
            used.update((up.response_id, down.response_id))
            chosen.append(_pair(up, down, PreferenceSource.SAME_PROMPT))
    return chosen


def _considered(responses: Sequence[ResponseRow], thumb: int) -> list[ResponseRow]:
    rated = sorted((r for r in responses if r.thumb == thumb), key=lambda r: _draw(r.response_id))
    return rated[:MAX_RATED_PER_PROMPT]


def _draw(*parts: str) -> bytes:
    """A number drawn by content: the same in every process, and blind to time and order."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def _pair(up: ResponseRow, down: ResponseRow, source: PreferenceSource) -> PreferenceRow:
    assert up.rated_at is not None
    assert down.rated_at is not None
    return PreferenceRow(
        preference_id=content_id("pair", *sorted((up.response_id, down.response_id))),
        revision=1,
        prompt_id=up.prompt_id,
        prompt=up.prompt,
        chosen=up.completion,
        rejected=down.completion,
        weight=WEIGHTS[source],
        source=source,
        rater_id=up.rater_id,
        judged_at=max(up.rated_at, down.rated_at),
        chosen_response_id=up.response_id,
        rejected_response_id=down.response_id,
        chosen_version=up.version,
        rejected_version=down.version,
    )


def _corrected(responses: Iterable[ResponseRow]) -> list[PreferenceRow]:
    """A correction is preferred to the answer that it corrects. It was never served, so it has no response id."""
    return [
        PreferenceRow(
            preference_id=content_id("correction", row.response_id),
            revision=1,
            prompt_id=row.prompt_id,
            prompt=row.prompt,
            chosen=row.correction,
            rejected=row.completion,
            weight=WEIGHTS[PreferenceSource.CORRECTION],
            source=PreferenceSource.CORRECTION,
            rater_id=row.corrected_by,
            judged_at=row.corrected_at or row.event_time,
            rejected_response_id=row.response_id,
            rejected_version=row.version,
        )
        for row in responses
        if row.correction and row.correction.strip() != row.completion.strip()
    ]


def _decided(labels: Iterable[Cast]) -> list[PreferenceRow]:
    tasks: dict[str, list[Cast]] = defaultdict(list)
    for cast in sorted(labels, key=lambda c: (c.time, c.event_id)):
        tasks[cast.label.task_id].append(cast)
    decisions = [_decision(casts) for _, casts in sorted(tasks.items())]
    return [d for d in decisions if d is not None]


def _decision(casts: Sequence[Cast]) -> PreferenceRow | None:
    """What the labels of one task come to, in order of time; None where no side has more votes than the rest.

    Each labeler has one vote, the latest. Sides may have been shuffled for each labeler, so votes count by text.
    A tie and "both bad" are votes for neither side; a skip is none.
    """
    first = casts[0].label
    texts = {first.left.completion, first.right.completion}
    votes = {c.label.labeler_id: c for c in casts if {c.label.left.completion, c.label.right.completion} == texts}
    counted = [c for c in votes.values() if c.label.verdict is not Verdict.SKIP]
    tally = Counter(_winner(c.label) for c in counted)
    if len(texts) == 1 or not tally:
        return None
    (best, most), *others = tally.most_common()
    if best is None or any(n == most for _, n in others):
        return None
    return _labelled(max((c for c in counted if _winner(c.label) == best), key=lambda c: (c.time, c.event_id)))


def _winner(label: Label) -> str | None:
    sides = {Verdict.LEFT: label.left, Verdict.RIGHT: label.right}
    return sides[label.verdict].completion if label.verdict in sides else None


def _labelled(cast: Cast) -> PreferenceRow:
    label = cast.label
    won_left = label.verdict is Verdict.LEFT
    chosen, rejected = (label.left, label.right) if won_left else (label.right, label.left)
    return PreferenceRow(
        preference_id=content_id("label", label.prompt_id, label.task_id),
        revision=1,
        prompt_id=label.prompt_id,
        prompt=label.prompt,
        chosen=chosen.completion,
        rejected=rejected.completion,
        weight=WEIGHTS[PreferenceSource.LABEL],
        source=PreferenceSource.LABEL,
        rater_id=label.labeler_id,
        judged_at=cast.time,
        chosen_response_id=chosen.response_id,
        rejected_response_id=rejected.response_id,
        chosen_version=chosen.version,
        rejected_version=rejected.version,
    )
