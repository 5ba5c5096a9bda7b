"""Judged answers to one prompt become preference pairs.

Every pair is a function of the prompt's present evidence alone (its responses and its labels), never of the order
in which that came: the whole set is recomputed whenever something about the prompt changes, and the difference
is written as revisions. Choices among candidates are made by hash, so that a rebuild makes the same ones.

Identical texts never pair: such a pair has nothing to teach and would make contradictory thumbs cancel noisily.
Answers of two tenants never pair: what one's users said is not the other's to learn from. Answers that must not be
learned from, and thumbs that count for nothing, are left out.

An edit makes no pair. A correction says "this is what it should have said"; an edited text was adapted to a use that
we don't see (a name filled in, a tone, a cut), so whether it is the better *answer* is unknown. It stays in
silver.responses. Copies and flags are counts there for the same reason: the one says that a text was used, the other
that somebody should look.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.consent import Purpose, permits
from schemas.ids import content_id
from schemas.labels import Label, Verdict
from schemas.preferences import PreferenceSource
from schemas.tables import PreferenceRow, ResponseRow
from streams.core.aggregation import evidence_of, rateable, usable, weight_of
from streams.core.conduct import duplicates
from streams.core.selection import task_id

MAX_PAIRS_PER_RESPONSE = 3
"""Pairs that share an answer are not independent evidence; a few of them suffice (InstructGPT, section 3.4, trains
all pairs of one prompt in one batch because they otherwise overfit)."""

MAX_RATED_PER_PROMPT = 64
"""So many answers of either thumb are considered for one prompt: a popular prompt must not cost quadratic work."""

WEIGHTS = {
    PreferenceSource.LABEL: 1.0,  # a human saw both texts side by side
    PreferenceSource.CORRECTION: 1.0,  # a human wrote what they wanted instead
    PreferenceSource.REGENERATE: 1.0,  # one user saw both answers and judged each
    PreferenceSource.SIBLINGS: 1.0,  # one user was shown both answers to one request (n > 1) and judged each
    PreferenceSource.SAME_PROMPT: 0.5,  # two judgements that were not made as a comparison, often by two people
}


@dataclass(frozen=True, slots=True)
class Cast:
    """One label event. `stated` is what the event itself says of its time, if that differs."""

    event_id: str
    time: datetime
    label: Label
    stated: datetime | None = None


def pairs(responses: Iterable[ResponseRow], labels: Iterable[Cast]) -> dict[str, PreferenceRow]:
    """All pairs of one prompt by their ids. `responses` are its latest rows, `labels` all that was cast on it.

    Of answers without a thumb, a correction or a label nothing comes; they may be missing. Two answers make one pair,
    by the strongest of: one asked for in place of the other, siblings of one request, the same prompt.
    """
    rows = sorted(responses, key=lambda r: r.response_id)
    judged = [r for r in rows if rateable(r) and weight_of(r) > 0]
    repeated = duplicates(judged)
    lone = [r for r in judged if r.response_id not in repeated]
    found = {p.preference_id: p for p in (*_corrected(rows), *_decided(labels, {r.response_id: r for r in rows}))}
    for pair in (*_regenerated(judged), *_siblings(judged), *_rated(lone)):
        found.setdefault(pair.preference_id, pair)
    return found


def _regenerated(responses: Sequence[ResponseRow]) -> list[PreferenceRow]:
    """An answer and the one that replaced it on request, with opposite thumbs: one user's own comparison."""
    by_id = {r.response_id: r for r in responses}
    links = [(later, by_id[later.regenerates]) for later in responses if later.regenerates in by_id]
    opposed = [_up_first(a, b) for a, b in links if _compared(a, b)]
    return [_pair(up, down, PreferenceSource.REGENERATE) for up, down in opposed]


def _siblings(responses: Sequence[ResponseRow]) -> list[PreferenceRow]:
    """Answers to one request (n > 1) with opposite thumbs of one user, each answer in a few pairs at most.

    A sibling without a thumb is not taken for worse: whether the user saw it at all is unknown.
    """
    requests: dict[tuple[str | None, str], list[ResponseRow]] = defaultdict(list)
    for row in responses:
        if row.request_id is not None:
            requests[row.tenant, row.request_id].append(row)
    return [
        pair
        for _, rows in sorted(requests.items(), key=lambda item: item[0][1])
        for pair in _few_each(_opposed(rows, same_rater=True), PreferenceSource.SIBLINGS)
    ]


def _rated(responses: Sequence[ResponseRow]) -> list[PreferenceRow]:
    """One answer rated up and one rated down: greedily by the hash of the pair, each answer in a few at most."""
    tenants: dict[str | None, list[ResponseRow]] = defaultdict(list)
    for row in responses:
        tenants[row.tenant].append(row)
    considered = [[*_considered(rows, 1), *_considered(rows, -1)] for rows in tenants.values()]
    return [p for rows in considered for p in _few_each(_opposed(rows), PreferenceSource.SAME_PROMPT)]


def _compared(a: ResponseRow, b: ResponseRow) -> bool:
    """Whether one user judged both answers, and differently."""
    return a.rater_id == b.rater_id and a.tenant == b.tenant and a.thumb != b.thumb and a.completion != b.completion


def _opposed(responses: Sequence[ResponseRow], *, same_rater: bool = False) -> list[tuple[ResponseRow, ResponseRow]]:
    """Every answer rated up with every one rated down, the texts differing."""
    ups, downs = ([r for r in responses if r.thumb == thumb] for thumb in (1, -1))
    both = [(u, d) for u in ups for d in downs if u.completion != d.completion]
    return [(u, d) for u, d in both if not same_rater or _compared(u, d)]


def _few_each(candidates: Iterable[tuple[ResponseRow, ResponseRow]], source: PreferenceSource) -> list[PreferenceRow]:
    """Pairs of the candidates in the order of a draw, no answer in more than `MAX_PAIRS_PER_RESPONSE`."""
    used: Counter[str] = Counter()
    chosen: list[PreferenceRow] = []
    for up, down in sorted(candidates, key=lambda pair: _draw(pair[0].response_id, pair[1].response_id)):
        if max(used[up.response_id], used[down.response_id]) < MAX_PAIRS_PER_RESPONSE:
            used.update((up.response_id, down.response_id))
            chosen.append(_pair(up, down, source))
    return chosen


def _considered(responses: Sequence[ResponseRow], thumb: int) -> list[ResponseRow]:
    rated = sorted((r for r in responses if r.thumb == thumb), key=lambda r: _draw(r.response_id))
    return rated[:MAX_RATED_PER_PROMPT]


def _draw(*parts: str) -> bytes:
    """A number drawn by content: the same in every process, and blind to time and order."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def _up_first(a: ResponseRow, b: ResponseRow) -> tuple[ResponseRow, ResponseRow]:
    return (a, b) if (a.thumb or 0) > 0 else (b, a)


def _pair(up: ResponseRow, down: ResponseRow, source: PreferenceSource) -> PreferenceRow:
    """A pair is as sure as both its thumbs are: the source's weight times how far each one's voters agreed."""
    assert up.rated_at is not None
    assert down.rated_at is not None
    return PreferenceRow(
        preference_id=content_id("pair", *sorted((up.response_id, down.response_id))),
        revision=1,
        prompt_id=up.prompt_id,
        prompt=up.prompt,
        chosen=up.completion,
        rejected=down.completion,
        weight=WEIGHTS[source] * weight_of(up) * weight_of(down),
        source=source,
        rater_id=up.rater_id,
        judged_at=max(up.rated_at, down.rated_at),
        tenant=up.tenant,
        evidence=(*evidence_of(up), *evidence_of(down)) or None,
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
            tenant=row.tenant,
            evidence=None if row.correction_event_id is None else (row.correction_event_id,),
            rejected_response_id=row.response_id,
            rejected_version=row.version,
        )
        for row in responses
        if usable(row) and row.shadow_of is None
        if row.correction and row.correction.strip() != row.completion.strip()
    ]


def _decided(labels: Iterable[Cast], responses: Mapping[str, ResponseRow]) -> list[PreferenceRow]:
    """The decisions on the prompt's tasks. The labels are the labelers' own, but not the texts: where one side is an
    answer that must not be learned from, or the two are of different tenants, there is no pair. (What a label says
    itself of the use of its texts holds for that label: see `votes_on`.)"""
    found: list[PreferenceRow] = []
    for casts in _questions(labels):
        shown = [responses[i] for i in sorted(served(casts)) if i in responses]
        tenants = {row.tenant for row in shown}
        decision = _decision(casts, tenant=min(tenants, key=str, default=None))
        if decision is not None and len(tenants) < 2 and all(usable(row) for row in shown):
            found.append(decision)
    return found


def _questions(labels: Iterable[Cast]) -> list[list[Cast]]:
    """The labels by what they are about, each group in order of time. Tasks on the same two texts are one question,
    however often it was asked; a label on other texts than the first of its task is on none."""
    firsts: dict[str, frozenset[str]] = {}
    found: dict[frozenset[str], list[Cast]] = defaultdict(list)
    for cast in in_order(labels):
        texts = _texts(cast.label)
        if firsts.setdefault(cast.label.task_id, texts) == texts:
            found[texts].append(cast)
    return [casts for _, casts in sorted(found.items(), key=lambda item: sorted(item[0]))]


def in_order(labels: Iterable[Cast]) -> list[Cast]:
    """Each label event once (of two contents under one id the earliest, ties by content), in order of time."""
    ordered = sorted(labels, key=lambda c: (c.time, c.stated or c.time, c.event_id, c.label.model_dump_json()))
    once: dict[str, Cast] = {}
    for cast in ordered:
        once.setdefault(cast.event_id, cast)
    return list(once.values())


def votes_on(casts: Iterable[Cast]) -> dict[str, Cast]:
    """The latest label of each labeler on one task, in order of time; labels on other texts than the first are not
    on this task.

    One that must not be learned from takes back the labeler's earlier one and is no vote, as it is with thumbs
    (`aggregation.standing`).
    """
    ordered = in_order(casts)
    texts = _texts(ordered[0].label) if ordered else frozenset[str]()
    latest = {c.label.labeler_id: c for c in ordered if _texts(c.label) == texts}
    return {who: c for who, c in latest.items() if permits(c.label.purposes, Purpose.TRAINING)}


def served(casts: Iterable[Cast]) -> set[str]:
    """The response ids of the answers that the labels are about, where these were served."""
    sides = (side for c in casts for side in (c.label.left, c.label.right))
    return {side.response_id for side in sides if side.response_id is not None}


def winner(label: Label) -> str | None:
    """The text that a label prefers; None for a tie, "both bad" and a skip."""
    sides = {Verdict.LEFT: label.left, Verdict.RIGHT: label.right}
    return sides[label.verdict].completion if label.verdict in sides else None


def _decision(casts: Sequence[Cast], *, tenant: str | None) -> PreferenceRow | None:
    """What the labels on one question come to; None where no side has more votes than the rest.

    Each labeler has one vote, the latest. Sides may have been shuffled for each labeler, so votes count by text.
    A tie and "both bad" are votes for neither side; a skip is none. It weighs by how far the winner is ahead of the
    next, as the thumbs on one answer do (`aggregation.decide`).
    """
    counted = [c for c in votes_on(casts).values() if c.label.verdict is not Verdict.SKIP]
    tally = Counter(winner(c.label) for c in counted)
    if len(_texts(casts[0].label)) == 1 or not tally:
        return None
    (best, most), *others = tally.most_common()
    ahead = most - max((n for _, n in others), default=0)
    if best is None or ahead == 0:
        return None
    last = max((c for c in counted if winner(c.label) == best), key=lambda c: (c.time, c.event_id))
    evidence = tuple(c.event_id for c in sorted(counted, key=lambda c: (c.time, c.event_id)))
    return _labelled(last, agreement=ahead / len(counted), evidence=evidence, tenant=tenant)


def _texts(label: Label) -> frozenset[str]:
    return frozenset((label.left.completion, label.right.completion))


def _labelled(cast: Cast, *, agreement: float, evidence: tuple[str, ...], tenant: str | None) -> PreferenceRow:
    label = cast.label
    won_left = label.verdict is Verdict.LEFT
    chosen, rejected = (label.left, label.right) if won_left else (label.right, label.left)
    return PreferenceRow(
        preference_id=content_id("label", label.prompt_id, task_id(label.prompt_id, _texts(label))),
        revision=1,
        prompt_id=label.prompt_id,
        prompt=label.prompt,
        chosen=chosen.completion,
        rejected=rejected.completion,
        weight=WEIGHTS[PreferenceSource.LABEL] * agreement,
        source=PreferenceSource.LABEL,
        rater_id=label.labeler_id,
        judged_at=cast.time,
        tenant=tenant,
        evidence=evidence,
        chosen_response_id=chosen.response_id,
        rejected_response_id=rejected.response_id,
        chosen_version=chosen.version,
        rejected_version=rejected.version,
    )
